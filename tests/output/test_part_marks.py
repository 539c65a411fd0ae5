"""Marks of parts: the last word of each part, of the run that was started last."""

import socket

import pytest

from t2i_core.output import part_marks
from t2i_core.output.part_marks import PartMark, PartMarks, PartState
from t2i_core.planning.parts import Part
from t2i_core.storage.workspace import Workspace


@pytest.fixture
def marks(tmp_path):
    return PartMarks(Workspace(tmp_path))


def test_an_output_without_parts_has_no_marks(marks):
    assert marks.latest() == {}


def test_the_last_word_of_each_part_counts(marks):
    marks.note(Part(1, 2), PartMark.of("run", "plan", PartState.RUNNING))
    marks.note(Part(2, 2), PartMark.of("other", "plan", PartState.RUNNING))
    marks.note(Part(1, 2), PartMark.of("run", "plan", PartState.FINISHED))
    assert {part: mark.state for part, mark in marks.latest().items()} == {
        Part(1, 2): PartState.FINISHED,
        Part(2, 2): PartState.RUNNING,
    }
    assert marks.latest()[Part(2, 2)].host == socket.gethostname()
    assert marks.latest()[Part(2, 2)].run == "other"


def test_marks_with_an_earlier_number_of_parts_are_left_out(marks, monkeypatch):
    for day, part in enumerate((Part(1, 8), Part(2, 3), Part(1, 3)), start=1):
        monkeypatch.setattr(part_marks, "now", lambda day=day: f"2026-01-0{day}T00:00:00+00:00")
        marks.note(part, PartMark.of("run", "plan", PartState.FINISHED))
    assert set(marks.latest()) == {Part(1, 3), Part(2, 3)}
