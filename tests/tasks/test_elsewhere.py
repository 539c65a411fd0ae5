"""A process that makes shards for a flow elsewhere: it tells of images, heeds a stop, and ends where it hangs."""

import errno
import os
import threading
import time
from importlib.metadata import version

import pytest

from t2i_core.generation.interface import LoadConfig, LocalCheckpoint
from t2i_core.models.identity import resolve_model
from t2i_core.models.loaded_files import LoadedFile
from t2i_core.models.local_files import ModelSource
from t2i_core.storage.run_marks import RunMarks
from t2i_core.storage.workspace import Workspace
from tasks import elsewhere
from tasks.elsewhere import HANGS, files_here, here, introduce, join_run, versions_here
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
    for run in ("r1", "r2"):
        RunMarks(Workspace(tmp_path).running, run).end()
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
        until(lambda: marks.told().get("shard") == (2, 0))
        count(1)
        until(lambda: marks.told().get("shard") == (3, 0))
    until(lambda: marks.told() == {})


def test_steps_are_told_now_and_then(process, marks, tmp_path, monkeypatch):
    monkeypatch.setattr(elsewhere, "STEPS_SECONDS", 0.05)
    join_run("r1", tmp_path)
    with process.counting("shard"):
        until(lambda: "shard" in marks.told())
        for _ in range(3):
            process.note_step(1, 4)
        until(lambda: marks.told().get("shard") == (0, 3))


def test_a_stop_by_the_flow_stops_its_shards(process, marks, tmp_path):
    should_stop = join_run("r1", tmp_path)
    assert not should_stop()
    marks.ask_to_stop()
    until(should_stop)


def test_in_the_flow_s_own_process_a_stop_and_a_device_that_was_given_up_stop_the_shards(process, tmp_path):
    process.start_run("r1")
    should_stop = join_run("r1", tmp_path)
    assert not should_stop()
    process.stop.set()
    assert should_stop()
    process.stop.clear()
    process.give_up()
    assert should_stop()


def test_a_run_that_is_over_stops_its_shards(process, marks, tmp_path):
    should_stop = join_run("r1", tmp_path)
    marks.end()
    until(should_stop)


def test_an_output_that_was_out_of_sight_is_no_end_of_the_run(process, marks, tmp_path):
    should_stop = join_run("r1", tmp_path)
    marks.end()
    until(lambda: not elsewhere._RUNS["r1"].is_followed)
    assert should_stop()
    marks.begin()  # it is in sight again, or the run was started anew under its name
    should_stop = join_run("r1", tmp_path)
    assert not should_stop()
    marks.ask_to_stop()
    until(should_stop)


def test_a_look_at_the_marks_that_fails_is_not_the_last_one(process, marks, tmp_path, monkeypatch):
    failed = []

    def stale(_):
        failed.append(1)
        raise OSError(errno.ESTALE, "Stale file handle")

    with monkeypatch.context() as broken:
        broken.setattr(RunMarks, "says_stop", stale)
        should_stop = join_run("r1", tmp_path)
        until(lambda: len(failed) > 2)
    assert not should_stop()
    marks.ask_to_stop()
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
        process.may_hang = False  # in place of the end of the process
        ended.set()

    process.may_hang = True
    process.note_step(1, 4)
    monkeypatch.setattr("tasks.process.HANG_SECONDS", 0.1)
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


def test_a_process_on_another_machine_loads_the_model_from_its_own_files(monkeypatch):
    asked = []
    paths = {"model": "/here/m", "checkpoints": ["/here/c"], "adapters": ["/here/a"]}
    paths["files"] = [LoadedFile("/here/m", "1", None)]
    monkeypatch.setattr(elsewhere, "fetch_and_verify", lambda source: asked.append(source) or paths)
    source = ModelSource(bundled())
    load_config = LoadConfig(
        path="/there/m",
        dtype="float32",
        device="cpu",
        checkpoints=(LocalCheckpoint("/there/c", ("transformer",), "fp16"),),
        adapters=(("/there/a", 0.5),),
        source=source,
    )
    files_here.cache_clear()
    found = [here(load_config) for _ in range(2)]
    files_here.cache_clear()
    assert (
        found[0]
        == found[1]
        == LoadConfig(
            path="/here/m",
            dtype="float32",
            device="cpu",
            checkpoints=(LocalCheckpoint("/here/c", ("transformer",), "fp16"),),
            adapters=(("/here/a", 0.5),),
            files=(LoadedFile("/here/m", "1", None),),
        )
    )
    assert asked == [source], "the disk is asked once a process"
    assert here(found[0]) is found[0]


def test_a_process_introduces_itself(marks, tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    monkeypatch.setattr(elsewhere, "why_unreachable", lambda url: "" if url == "http://here/api" else "unreachable")
    told = introduce("r1", tmp_path, "http://here/api", "cpu", ("torch", "no such package"))
    assert (told.device, told.card, told.problem) == ("cpu", "3", "")
    assert told.title == f"{told.host}, card 3, process {os.getpid()}"
    assert told.versions["torch"] == version("torch")
    assert told.versions["no such package"] == "none"
    assert set(told.versions) == {"text2image", "python", "torch", "no such package"}
    monkeypatch.setattr(elsewhere, "SEE_SECONDS", 0)
    assert "does not see" in introduce("r2", tmp_path, "http://here/api", "cpu", ()).problem
    assert introduce("r1", tmp_path, "http://there/api", "cpu", ()).problem == "unreachable"


def bundled():
    return resolve_model("demo")


def test_the_version_of_this_tool_tells_one_commit_from_another(tmp_path, monkeypatch):
    digests = []
    for text in ("one", "two", "one"):
        (tmp_path / "flows").mkdir(exist_ok=True)
        (tmp_path / "flows" / "a.py").write_text(text)
        (tmp_path / "flows" / ".#a.py").symlink_to("nowhere") if not digests else None  # an editor's lock
        monkeypatch.setattr(elsewhere, "__file__", str(tmp_path / "tasks" / "elsewhere.py"))
        elsewhere._sources_digest.cache_clear()
        digests.append(versions_here(())["text2image"])
    elsewhere._sources_digest.cache_clear()
    assert digests[0] == digests[2] != digests[1]
