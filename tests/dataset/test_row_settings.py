"""Settings of rows, and columns that only have the settings' name."""

import csv
import json

import pytest

from t2i_core.config import Config, RowSettings
from t2i_core.dataset.parser import FIRST_ROWS, read_rows
from t2i_core.dataset.rows import Row
from tests.dataset.test_parser import texts


@pytest.fixture
def read(tmp_path):
    """Rows with these values under `generation`, as JSONL or CSV."""

    def read(*values: object, suffix: str = ".jsonl", name: str = "generation", **options: object) -> list[Row]:
        path = tmp_path / f"rows{suffix}"
        rows = [{"conversations": "a", name: value} for value in values]
        if suffix == ".csv":
            with path.open("w", newline="") as file:
                cells = [["a", value if isinstance(value, str) else json.dumps(value)] for value in values]
                csv.writer(file).writerows([["conversations", name], *cells])
        else:
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return list(read_rows(Config(dataset=str(path), **options)))

    return read


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
def test_text_under_the_default_name_is_no_settings_and_the_log_says_so_once(read, caplog, suffix):
    rows = read("a long answer", "another", "", "nan", suffix=suffix)
    assert [texts(row) for row in rows] == [[(0, "a")]] * 4
    assert [row.settings for row in rows] == [RowSettings()] * 4
    (message,) = caplog.messages
    assert message == (
        "settings  column 'generation' holds text, not settings, and is left out; --settings-key names the column of "
        "settings"
    )


def test_lists_of_texts_under_the_default_name_are_no_settings(read, caplog):
    assert not any(row.rejection for row in read(["a", "b"], ["c"]))
    assert len(caplog.messages) == 1


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
def test_among_objects_text_is_a_mistake(read, caplog, suffix):
    fast, seed, wrong = read("fast", {"seed": 7}, {"stpes": 8}, suffix=suffix)
    assert fast.rejection.field == "generation"
    assert "use --settings-key row_settings" in fast.rejection.reason
    assert seed.settings == RowSettings(seed=7)
    assert wrong.rejection.field == "generation.stpes"
    assert not caplog.messages


def test_an_object_with_a_wrong_field_is_rejected_among_texts(read):
    text, wrong, seed = read("a long answer", {"stpes": 8}, {"seed": 7})
    assert "not an object" in text.rejection.reason
    assert wrong.rejection.reason.startswith(
        "unknown option; did you mean steps?; where the column holds no settings, "
    )
    assert seed.settings == RowSettings(seed=7)


def test_objects_after_the_first_rows_count_from_there_on(read, caplog):
    rows = read(*["text"] * (FIRST_ROWS + 1), {"seed": 7}, {"stpes": 8}, "text")
    assert not any(row.rejection for row in rows[: FIRST_ROWS + 1])
    assert rows[FIRST_ROWS + 1].settings == RowSettings(seed=7)
    assert [row.rejection is not None for row in rows[-2:]] == [True, True]
    assert len(caplog.messages) == 1


def test_a_column_that_the_user_named_must_hold_settings(read):
    for value in ("a long answer", ["a"]):
        (row,) = read(value, name="plan", settings_key="plan")
        assert row.rejection.reason == 'is not an object; write one such as {"seed": 7}'


def test_a_column_of_prompts_may_have_the_default_name(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"generation": "a fox"}\n{"generation": ["a", "b"]}\n')
    (fox, _) = read_rows(Config(dataset=str(path), prompt_key="generation"))
    assert texts(fox) == [(0, "a fox")]
    rows = list(read_rows(Config(dataset=str(path), conversation_key="generation")))
    assert [texts(row) for row in rows] == [[(0, "a fox")], [(0, "a"), (1, "b")]]
    path.write_text('{"conversations": "a", "generation": ["a.png"]}\n')
    assert [row.has_images for row in read_rows(Config(dataset=str(path), image_key="generation"))] == [True]


def test_whole_floats_are_integers(read):
    values = {"seed": 7.0, "steps": 8.0, "height": 64.0, "guidance_scale": 2.0, "width": None}
    (row,) = read(values)
    assert row.settings == RowSettings(seed=7, steps=8, height=64, guidance_scale=2.0)
    assert read({"steps": 8.5})[0].rejection.field == "generation.steps"


@pytest.mark.parametrize("name", [" generation", "Generation", "\ufeffgeneration"])
def test_settings_under_a_near_name_are_read_and_said_once(read, caplog, name):
    rows = read({"seed": 7}, {"seed": 8}, name=name)
    assert [row.settings.seed for row in rows] == [7, 8]
    assert caplog.messages == [f"columns   no 'generation'; {name!r} is read in its place"]


def test_text_under_a_near_name_is_nobodys_business(read, caplog):
    assert not any(row.rejection for row in read("a long answer", name="Generation"))
    assert not caplog.messages


def test_a_cell_that_says_that_there_is_no_value_sets_nothing(read):
    rows = read({"seed": 7}, "nan", "None", " ", "null", suffix=".csv")
    assert [row.settings.seed for row in rows] == [7, None, None, None, None]
