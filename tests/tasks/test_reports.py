"""Names in Prefect, and a summary that costs no image."""

import logging
from types import SimpleNamespace

import pytest

from t2i_core.config import Config
from tasks import reports


@pytest.mark.parametrize(
    ("names", "name"),
    [
        (["prompts/Parti.tsv.gz"], "parti"),
        (["hf:org/My_Set:default:train"], "hf-org-my-set-default-train"),
        (["example"], "example"),
        (["/data/日本語.jsonl"], "data-set"),
        (["/data/night/*.jsonl"], "night"),
        (["*.jsonl"], "data-set"),
        (["a.jsonl", "b.jsonl", "c.jsonl"], "a-and-2-more"),
    ],
)
def test_a_data_set_has_a_name_that_artifact_keys_allow(names, name):
    assert reports.data_set_name(names) == name


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("flux-dev", "text2image-flux-dev"),
        ("black-forest-labs/FLUX.1-schnell", "text2image-flux-1-schnell"),
        ("/models/mine/", "text2image-mine"),
    ],
)
def test_a_run_has_a_name_that_says_something(model, name):
    assert reports.run_name(model) == name
    assert reports.run_name(model, 7) == f"{name}-7-prompts"


def away(*arguments, **more):
    raise ConnectionError("nobody there")


def test_a_summary_that_cannot_be_shown_fails_no_run(run, prompts, monkeypatch, caplog):
    monkeypatch.setattr(reports, "create_markdown_artifact", away)
    monkeypatch.setattr(reports.publish_task, "retries", 0)
    assert run(dataset=prompts("a fox")).is_completed()
    assert "the summary is not in Prefect" in caplog.text


def test_a_name_that_cannot_be_given_costs_no_run(monkeypatch, caplog):
    monkeypatch.setattr(reports, "get_client", away)
    config = Config.from_values({"model": "demo", "dataset": "prompts.jsonl"})
    monkeypatch.setattr(reports, "flow_run", SimpleNamespace(get_tags=list, get_id=lambda: "x"))
    with caplog.at_level(logging.WARNING):
        reports.name_flow_run(config)
    assert "the run's name could not be shown in Prefect: ConnectionError: nobody there" in caplog.text
