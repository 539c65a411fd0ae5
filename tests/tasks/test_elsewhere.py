"""A process that makes shards for a flow elsewhere: it tells of images, heeds a stop, and ends where it hangs."""

import threading
import time

import pytest

from t2i_core.storage.run_marks import RunMarks
from t2i_core.storage.workspace import Workspace
from tasks import elsewhere
from tasks.elsewhere import HANGS, join_run
from tasks.process import ThisProcess

SECONDS = 20


@pytest.fixture
def process(monkeypatch):
    monkeypatch.setattr(elsewhere, "LOOK_SECONDS", 0.01)
    process = ThisProcess()
    monkeypatch.setattr(elsewhere, "THIS_PROCESS", process)
    before = set(threading.enumerate())
    yield process
    process.run = ""
    for thread in set(threading.enumerate()) - before:
        if thread.name == "marks":
            thread.join(SECONDS)


@pytest.fixture
def marks(tmp_path):
    marks = RunMarks(Workspace(tmp_path).running, "r1")
    marks.begin()
    return marks


def until(condition):
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_images_are_told_as_they_are_made(process, marks, tmp_path):
    join_run("r1", tmp_path)
    with process.counting("shard") as count:
        count(2)
        until(lambda: marks.images() == {"shard": 2})
        count(1)
        until(lambda: marks.images() == {"shard": 3})
    until(lambda: marks.images() == {})


def test_a_stop_by_the_flow_stops_this_process(process, marks, tmp_path):
    join_run("r1", tmp_path)
    assert not process.stop.is_set()
    marks.ask_to_stop()
    assert process.stop.wait(SECONDS)


def test_a_run_that_is_over_stops_this_process(process, marks, tmp_path):
    join_run("r1", tmp_path)
    marks.end()
    assert process.stop.wait(SECONDS)


def test_a_process_serves_the_next_run_after_a_stop(process, marks, tmp_path):
    join_run("r1", tmp_path)
    marks.ask_to_stop()
    assert process.stop.wait(SECONDS)
    RunMarks(Workspace(tmp_path).running, "r2").begin()
    join_run("r2", tmp_path)
    assert not process.stop.is_set()
    assert process.run == "r2"


def test_the_flow_s_own_process_follows_no_marks(process, tmp_path):
    process.start_run("r1")
    join_run("r1", tmp_path)
    assert not [thread for thread in threading.enumerate() if thread.name == "marks"]


def test_a_process_whose_device_hangs_ends_itself(process, marks, tmp_path, monkeypatch):
    ended, released = threading.Event(), threading.Event()
    codes = []

    def leave(code):
        codes.append(code)
        process.run = ""  # in place of the end of the process
        ended.set()

    monkeypatch.setattr(elsewhere, "HANG_SECONDS", 0.1)
    monkeypatch.setattr(elsewhere.os, "_exit", leave)
    join_run("r1", tmp_path)
    time.sleep(0.3)  # an idle device does not hang
    assert codes == []
    shard = threading.Thread(target=process.on_device, args=(lambda: released.wait(SECONDS),))
    shard.start()
    assert ended.wait(SECONDS)
    released.set()
    shard.join(SECONDS)
    assert codes == [HANGS]


def test_steps_and_images_are_signs_of_life(process):
    released = threading.Event()
    shard = threading.Thread(target=process.on_device, args=(lambda: released.wait(SECONDS),))
    shard.start()
    until(lambda: process.silent_seconds() > 0.1)
    process.note_step(1, 4)
    assert process.silent_seconds() < 0.1
    until(lambda: process.silent_seconds() > 0.1)
    with process.counting("shard") as count:
        count(1)
    assert process.silent_seconds() < 0.1
    released.set()
    shard.join(SECONDS)
    assert process.silent_seconds() == 0
