"""Prompts that text encoders cut or do not know: said by a dry run, before a run generates, and after it."""

import json
import shutil

import pyarrow.parquet as pq
import pytest

from t2i_core.bundled import DEMO_MODEL

pytestmark = pytest.mark.timeout(300)

CHINESE = "一只狐狸在雪地里"
UNREAD = "unread    2 of 3 prompts are more than a third unknown to CLIPTextModel and T5EncoderModel (rows 1, 2)"
LONG = " ".join(["a fox"] * 20)


def test_a_dry_run_says_which_prompts_the_model_does_not_know_or_cuts(run, prompts, no_model, caplog):
    assert run(dataset=prompts("a fox", CHINESE, "🦊 ثعلب"), dry_run=True).is_completed()
    assert f"{UNREAD}: the demo model knows fewer than 200 English words" in caplog.text
    assert "cut  " not in caplog.text
    caplog.clear()
    run(dataset=prompts("a fox", LONG), dry_run=True)
    assert "cut       1 of 2 prompts is longer than CLIPTextModel or T5EncoderModel takes (row 1)" in caplog.text


def test_a_run_says_it_before_it_generates_and_after(run, output, prompts, caplog):
    dataset = prompts("a fox", CHINESE, "🦊 ثعلب")
    assert run(dataset=dataset, images_per_prompt=2, steps=1).is_completed()
    said = [record.getMessage() for record in caplog.records]
    (warning,) = (place for place, text in enumerate(said) if text.startswith(UNREAD))
    (summary,) = (place for place, text in enumerate(said) if "\nunread    2 prompts are more than a third" in text)
    (plan,) = (place for place, text in enumerate(said) if text.startswith("plan"))
    assert plan < warning < summary
    assert caplog.records[warning].levelname == "WARNING"
    accounting = output.run()["accounting"]
    assert (accounting["prompts_unread"], accounting["rows_unread"]) == (2, [1, 2])
    rows = pq.read_table(output.folder / "images.parquet").to_pylist()
    assert [row["prompt_lengths"][1]["unread"] for row in rows] == [0, 0, 1, 1, 1, 1]

    caplog.clear()  # an unchanged run makes nothing, and still says what the images are worth
    run(dataset=dataset, images_per_prompt=2, steps=1)
    assert UNREAD not in caplog.text
    assert "unread    2 prompts are more than a third unknown" in caplog.text


def test_a_tokenizer_that_cannot_be_read_ends_no_dry_run(run, prompts, no_model, tmp_path, caplog):
    model = tmp_path / "model"
    shutil.copytree(DEMO_MODEL, model)
    (model / "tokenizer" / "tokenizer.json").write_text(json.dumps({"version": "9"}))
    assert run(dataset=prompts(CHINESE), model=str(model), dry_run=True).is_completed()
    assert "unread    1 of 1 prompts is more than a third unknown to T5EncoderModel (row 0)" in caplog.text
    assert "prompts   not counted for CLIPTextModel, whose tokenizer cannot be read" in caplog.text


def test_a_check_that_fails_ends_no_dry_run(run, prompts, no_model, monkeypatch, caplog):
    def fail(*arguments):
        raise RuntimeError("no\nuse")

    monkeypatch.setattr("flows.prompts.check_prompts", fail)
    assert run(dataset=prompts("a fox"), dry_run=True).is_completed()
    assert "prompts   not checked: RuntimeError: " in caplog.text


def test_many_prompts_are_announced(run, prompts, no_model, monkeypatch, caplog):
    monkeypatch.setattr("flows.prompts.PROMPTS_SILENT", 2)
    run(dataset=prompts("a fox", "a cat", "a house"), dry_run=True)
    assert "prompts   counting the tokens of 3" in caplog.text
