"""The lines of `failures.jsonl`: where, why, and what the value was."""

from dataclasses import replace

from t2i_core.dataset.rows import Rejection
from t2i_core.errors import VALUE_SHOWN
from t2i_core.output.failures import failures_of
from tests.builders import SKIPPED, failed_record, image_spec, make_catalog, store_image


def failures(catalog):
    return [failure for row in catalog.rows() for failure in failures_of(row, "prompts.jsonl")]


def test_a_rejected_row_is_one_failure(workspace):
    rejection = Rejection(0, 1, "generation.steps", "'many'", "write a whole number")
    assert failures(make_catalog(workspace, rejection)) == [
        {
            "file": "prompts.jsonl",
            "row": 0,
            "line": 1,
            "field": "generation.steps",
            "value": "'many'",
            "reason": "write a whole number",
        }
    ]


def test_a_row_of_one_file_among_several_names_its_own(workspace):
    (row,) = make_catalog(workspace, image_spec(0)).rows()
    (failure,) = failures_of(replace(row, file="b.jsonl"), "a.jsonl and 1 more")
    assert failure["file"] == "b.jsonl"


def test_each_failed_image_is_a_failure_of_its_own(workspace):
    specs = [image_spec(i) for i in range(3)]
    store_image(workspace, specs[1])
    catalog = make_catalog(workspace, SKIPPED, specs, records=[failed_record(specs[0], "it is black")])
    first, second = failures(catalog)
    assert first == {
        "file": "prompts.jsonl",
        "row": 1,
        "line": 2,
        "condition": 0,
        "image": 0,
        "key": specs[0].key,
        "field": "prompt",
        "value": "'p0'",
        "reason": "it is black",
    }
    assert (second["image"], second["key"]) == (2, specs[2].key)
    assert "for no recorded reason" in second["reason"]


def test_what_an_interrupted_run_did_not_come_to_is_no_failure(workspace):
    assert failures(make_catalog(workspace, image_spec(0), interrupted=True)) == []


def test_a_long_prompt_is_cut(workspace):
    (failure,) = failures(make_catalog(workspace, image_spec(0, prompt="fox " * 100)))
    assert len(failure["value"]) == VALUE_SHOWN
    assert failure["value"].endswith("…")


def test_a_row_that_names_its_file_is_a_failure_there(workspace):
    rejection = Rejection(0, 7, "row", "", "is not JSON")
    (row,) = make_catalog(workspace, rejection).rows()
    (failure,) = failures_of(replace(row, line=7, file="set/b.jsonl"), "set")
    assert (failure["file"], failure["row"], failure["line"]) == ("set/b.jsonl", 0, 7)
