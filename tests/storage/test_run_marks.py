"""What the processes of a run tell each other: a stop, and images by shard, each counted once."""

import os
import shutil
import time

import pytest

from t2i_core.storage import run_marks
from t2i_core.storage.leases import Lease
from t2i_core.storage.run_marks import RunMarks, Told, remove_stale_marks
from t2i_core.storage.workspace import Workspace


@pytest.fixture
def marks(tmp_path):
    marks = RunMarks(tmp_path / "running", "r1")
    marks.begin()
    return marks


def test_a_stop_is_seen_by_all_and_only_in_its_run(marks, tmp_path):
    other = RunMarks(tmp_path / "running", "r2")
    other.begin()
    assert not marks.says_stop()
    marks.ask_to_stop()
    assert RunMarks(tmp_path / "running", "r1").says_stop()
    assert not other.says_stop()


def test_a_run_that_begins_again_is_not_stopped(marks):
    marks.ask_to_stop()
    marks.begin()
    assert not marks.says_stop()


def test_when_the_run_is_over_its_processes_stop_and_nothing_is_left(marks, tmp_path):
    marks.note("a-1", {"x": Told(1)})
    marks.end()
    assert marks.says_stop()
    assert list((tmp_path / "running").iterdir()) == []


def test_the_end_leaves_nothing_where_a_process_writes_in_that_moment(marks, tmp_path, monkeypatch):
    remove, tries = shutil.rmtree, []

    def beside_a_writer(folder, **options):
        remove(folder, **options)
        tries.append(folder)
        if len(tries) < 3:
            folder.mkdir()
            (folder / "a-1.json").write_text("{}")

    monkeypatch.setattr(run_marks.shutil, "rmtree", beside_a_writer)
    marks.end()
    assert list((tmp_path / "running").iterdir()) == []
    assert marks.says_stop()


def test_a_shard_that_went_from_a_killed_process_to_another_is_counted_once(marks):
    assert marks.told() == {}
    marks.note("a-1", {"x": Told(3, steps=9), "y": Told(1)})
    marks.note("b-2", {"x": Told(5)})
    marks.note("b-2", {"x": Told(4), "z": Told(2, steps=7)})
    assert marks.told() == {"x": Told(4, steps=9), "y": Told(1), "z": Told(2, steps=7)}


def test_steps_show_also_where_a_process_that_died_had_made_more(marks):
    marks.note("a-1", {"x": Told(0, steps=5000)})
    marks.note("b-2", {"x": Told(0, steps=70)})
    before = marks.told()
    marks.note("b-2", {"x": Told(0, steps=71)})
    assert marks.told() != before


def test_marks_of_a_killed_run_are_removed_after_an_hour(tmp_path):
    workspace = Workspace(tmp_path)
    old, young = RunMarks(workspace.running, "old"), RunMarks(workspace.running, "young")
    old.begin()
    young.begin()
    hour_ago = time.time() - 3700
    os.utime(workspace.running / "old", (hour_ago, hour_ago))
    with Lease(workspace.leases, "old") as lease:
        lease.begin("plan")
        workspace.remove_stale_files()
        assert (workspace.running / "old").exists()  # it lives: its processes would stop
    workspace.remove_stale_files()
    assert [path.name for path in workspace.running.iterdir()] == ["young"]


def test_signs_of_life_are_seen_and_keep_the_marks_of_a_long_run(marks, tmp_path):
    first = marks.last_sign()
    hour_ago = time.time() - 3700
    for path in (tmp_path / "running" / "r1", tmp_path / "running" / "r1" / "flow"):
        os.utime(path, (hour_ago, hour_ago))
    marks.sign()
    assert marks.last_sign() > first
    remove_stale_marks(tmp_path / "running", ())
    assert not marks.says_stop()


def test_marks_of_a_run_that_ends_just_now_stop_no_other_run(marks, tmp_path, monkeypatch):
    def gone(path):
        raise FileNotFoundError(path)

    monkeypatch.setattr(run_marks, "is_stale", gone)
    remove_stale_marks(tmp_path / "running", ())


def test_a_sign_of_life_that_cannot_be_given_is_left_out(marks):
    marks.end()
    marks.sign()
    assert marks.last_sign() is None


def test_a_process_that_sees_another_folder_or_cannot_write_is_told_apart(marks, tmp_path, monkeypatch):
    assert marks.why_unusable("a-1") == ""
    other = RunMarks(tmp_path / "elsewhere", "r1")
    assert other.why_unusable("a-1").startswith(f"does not see {tmp_path / 'elsewhere' / 'r1'}: mount the output there")

    def refuse(path, text):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(run_marks, "write_text", refuse)
    assert marks.why_unusable("a-1") == f"cannot write to {tmp_path / 'running' / 'r1'}: Read-only file system"


def test_what_cannot_be_read_just_now_is_not_told(marks, tmp_path):
    marks.note("a-1", {"x": Told(3)})
    (tmp_path / "running" / "r1" / "b-2.json").mkdir()
    assert marks.told() == {"x": Told(3)}


def test_a_folder_that_cannot_be_read_just_now_tells_nothing(marks, monkeypatch):
    def stale(folder):
        raise OSError(116, "Stale file handle", str(folder))

    marks.note("a-1", {"x": Told(3)})
    monkeypatch.setattr(run_marks, "entries", stale)
    assert marks.told() == {}
