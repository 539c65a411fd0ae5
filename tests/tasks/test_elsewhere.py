"""A process that makes shards for a flow elsewhere: it tells of images, heeds a stop, and ends where it hangs."""

import shutil
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
def process(monkeypatch, tmp_path):
    monkeypatch.setattr(elsewhere, "LOOK_SECONDS", 0.01)
    process = ThisProcess()
    monkeypatch.setattr(elsewhere, "THIS_PROCESS", process)
    monkeypatch.setattr(elsewhere, "_RUNS", {})
    before = set(threading.enumerate())
    yield process
    shutil.rmtree(Workspace(tmp_path).running, ignore_errors=True)  # all runs are over
    for thread in set(threading.enumerate()) - before:
        if thread.name == "marks":
            thread.join(SECONDS)
            assert not thread.is_alive()


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


def test_a_stop_by_the_flow_stops_its_shards(process, marks, tmp_path):
    should_stop = join_run("r1", tmp_path)
    assert not should_stop()
    marks.ask_to_stop()
    until(should_stop)


def test_a_run_that_is_over_stops_its_shards(process, marks, tmp_path):
    should_stop = join_run("r1", tmp_path)
    marks.end()
    until(should_stop)


def test_of_two_runs_in_one_process_each_stops_its_own_shards(process, marks, tmp_path):
    RunMarks(Workspace(tmp_path).running, "r2").begin()
    first, second = join_run("r1", tmp_path), join_run("r2", tmp_path)
    again = join_run("r1", tmp_path)
    marks.ask_to_stop()
    until(first)
    assert again()
    assert not second()


def test_a_flow_that_was_killed_stops_its_shards_and_one_that_comes_back_lets_them_go_on(
    process, marks, tmp_path, monkeypatch
):
    monkeypatch.setattr(elsewhere, "FLOW_SECONDS", 0.3)
    should_stop = join_run("r1", tmp_path)
    for _ in range(10):
        marks.sign()
        time.sleep(0.05)
        assert not should_stop()
    until(should_stop)
    marks.sign()
    until(lambda: not should_stop())


def test_the_flow_s_own_process_follows_no_marks(process, tmp_path):
    process.start_run("r1")
    join_run("r1", tmp_path)
    assert not [thread for thread in threading.enumerate() if thread.name == "marks"]


def test_a_process_whose_device_hangs_ends_itself(process, marks, tmp_path, monkeypatch):
    ended, released = threading.Event(), threading.Event()
    codes = []

    def leave(code):
        codes.append(code)
        monkeypatch.setattr(elsewhere, "HANG_SECONDS", 1e9)  # in place of the end of the process
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
