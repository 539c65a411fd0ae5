"""The columns of an export: names that are taken, and what those who read JSON lines can take a type from."""

import pytest

from t2i_core.export.columns import Columns
from t2i_core.export.kinds import StructOf

OWN = {"text": "text", "seed": "int", "negative_prompt": "text"}


def columns(*rows, splits=1, reserved=(), own=None):
    """The columns of rows; a row is its values, or (values, split)."""
    result = Columns(OWN, splits)
    leads = []
    for row in rows:
        values, split = row if isinstance(row, tuple) else (row, 0)
        leads.append(result.see(own or {"text": "a", "seed": 1}, values, split))
    result.settle(reserved)
    return result, leads


def test_ours_come_first_and_a_name_that_is_taken_gets_another():
    found, _ = columns({"seed": 7, "input_seed": 8, "video": "v", "a": 1}, reserved=("vid*",))
    assert list(found.exported()) == [*OWN, "input_seed", "input_input_seed", "input_video", "a"]
    row = found.row({"text": "x", "seed": 1}, {"seed": 7, "input_seed": 8, "video": "v", "a": 1})
    assert row == {
        "text": "x", "seed": 1, "negative_prompt": None,
        "input_seed": 7, "input_input_seed": 8, "input_video": "v", "a": 1,
    }  # fmt: skip
    assert found.renamed() == {"seed": "input_seed", "input_seed": "input_input_seed", "video": "input_video"}


@pytest.mark.parametrize(
    "name, other",
    [("file_name", "filename"), ("source_file_name", "source_filename"), ("file_names", "filenames"), ("", "column")],
)
def test_a_name_that_datasets_takes_for_a_path_is_changed(name, other):
    found, _ = columns({name: "a.png"})
    assert list(found.exported())[-1] == other


def test_an_object_with_such_a_name_inside_becomes_text():
    found, _ = columns({"source": {"file_name": "a.png"}})
    assert found.exported()["source"] == "text"
    assert found.row({}, {"source": {"file_name": "a.png"}})["source"] == '{"file_name": "a.png"}'


def test_json_lines_leave_out_what_has_no_value_in_some_split():
    found, _ = columns(
        ({"full": 1, "rare": None, "never": None, "o": {"a": 1, "b": 2}}, 0),
        ({"full": 2, "rare": "x", "o": {"a": 1, "b": None}}, 1),
        splits=3,  # the third has no row at all
    )
    assert found.in_json_lines() == {"text": "text", "seed": "int", "full": "int", "o": StructOf((("a", "int"),))}
    assert {"rare", "never", "negative_prompt"} <= set(found.exported())


def test_rows_lead_that_are_first_to_have_a_value():
    rows = [{"a": None, "b": [1]}, {"a": None, "b": [2]}, {"a": 3}, {"a": 4, "c": {"d": None}}, {"c": {"d": 1}}]
    _, leads = columns(*rows, ({"a": 1}, 1), ({"a": 2}, 1), splits=2)
    assert leads == [True, False, True, False, True, True, False]
