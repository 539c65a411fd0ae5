"""What the processes of a run tell each other: a stop, and images by shard, each counted once."""

import os
import time

import pytest

from t2i_core.storage.run_marks import RunMarks
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
    marks.note_images("a-1", {"x": 1})
    marks.end()
    assert marks.says_stop()
    assert list((tmp_path / "running").iterdir()) == []


def test_a_shard_that_went_from_a_killed_process_to_another_is_counted_once(marks):
    assert marks.images() == {}
    marks.note_images("a-1", {"x": 3, "y": 1})
    marks.note_images("b-2", {"x": 5})
    marks.note_images("b-2", {"x": 4, "z": 2})
    assert marks.images() == {"x": 4, "y": 1, "z": 2}


def test_marks_of_a_killed_run_are_removed_after_an_hour(tmp_path):
    workspace = Workspace(tmp_path)
    old, young = RunMarks(workspace.running, "old"), RunMarks(workspace.running, "young")
    old.begin()
    young.begin()
    hour_ago = time.time() - 3700
    os.utime(workspace.running / "old", (hour_ago, hour_ago))
    workspace.remove_stale_files()
    assert [path.name for path in workspace.running.iterdir()] == ["young"]
