"""Names in Prefect, and a progress that costs no image."""

import logging
import threading
from types import SimpleNamespace

import pytest

from t2i_core.config import Config
from tasks import reports
from tasks.process import THIS_PROCESS

SECONDS = 20


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


def test_a_progress_that_cannot_be_shown_costs_no_image(run, output, prompts, monkeypatch, caplog):
    monkeypatch.setattr(reports, "create_progress_artifact", away)
    assert run(dataset=prompts("a fox", "a cat")).is_completed()
    assert output.counts()["images_generated"] == 2
    assert "the progress could not be shown in Prefect: ConnectionError: nobody there" in caplog.text


def test_a_summary_that_cannot_be_shown_fails_no_run(run, prompts, monkeypatch, caplog):
    monkeypatch.setattr(reports, "create_markdown_artifact", away)
    monkeypatch.setattr(reports.publish_task, "retries", 0)
    assert run(dataset=prompts("a fox")).is_completed()
    assert "the summary is not in Prefect" in caplog.text


@pytest.fixture
def shown(monkeypatch):
    """What Prefect was told of the progress, without Prefect: [(percent, text)]; `changed` is notified of each."""
    told = SimpleNamespace(updates=[], changed=threading.Condition())

    def tell(percent, description):
        with told.changed:
            told.updates.append((percent, description))
            told.changed.notify_all()

    def create(percent, key, description):
        tell(percent, description)
        return key

    monkeypatch.setattr(reports, "create_progress_artifact", create)
    monkeypatch.setattr(
        reports, "update_progress_artifact", lambda artifact, percent, description: tell(percent, description)
    )
    return told


def wait_for(shown, is_told):
    with shown.changed:
        assert shown.changed.wait_for(lambda: is_told(shown.updates), SECONDS), shown.updates


def test_progress_goes_by_what_shards_of_this_process_report(shown, monkeypatch):
    monkeypatch.setattr(reports, "ARTIFACT_INTERVAL_SECONDS", 0.01)
    with reports.progress(4, ["prompts.jsonl"]) as bar:
        wait_for(shown, lambda updates: updates == [(0.0, "0 of 4 images")] or len(updates) > 1)
        THIS_PROCESS.on_images(2)
        THIS_PROCESS.on_images(1)
        assert bar.n == 3
        wait_for(shown, lambda updates: updates[-1][0] == 75.0)
        assert shown.updates[-1][1].startswith("3 of 4 images, ")
        assert shown.updates[-1][1].endswith(" left")
        THIS_PROCESS.on_images(1)
    assert shown.updates[-1] == (100.0, "4 of 4 images")
    THIS_PROCESS.on_images(5)  # of a later run: nobody shows it
    assert bar.n == 4


def test_a_server_that_comes_back_is_told_of_the_progress(shown, monkeypatch, caplog):
    monkeypatch.setattr(reports, "ARTIFACT_INTERVAL_SECONDS", 0.01)
    create, failed = reports.create_progress_artifact, []

    def first_away(*arguments, **more):
        if len(failed) < 2:
            failed.append(1)
            away()
        return create(*arguments, **more)

    monkeypatch.setattr(reports, "create_progress_artifact", first_away)
    with reports.progress(4, ["prompts.jsonl"]):
        wait_for(shown, len)
    assert len(failed) == 2
    assert "the progress could not be shown in Prefect: ConnectionError: nobody there" in caplog.text


def test_a_server_that_stays_away_does_not_hold_the_run_up(monkeypatch, caplog):
    monkeypatch.setattr(reports, "create_progress_artifact", away)
    with reports.progress(4, ["prompts.jsonl"]):
        pass
    assert not [thread for thread in threading.enumerate() if thread.name == "progress"]


def test_a_bar_outlives_its_terminal(monkeypatch):
    gone = SimpleNamespace(write=len, flush=lambda: None, encoding="utf-8")
    monkeypatch.setattr("sys.stderr", gone)
    bar = reports._Bar(total=3, mininterval=0)

    def broken(*arguments):
        raise BrokenPipeError

    monkeypatch.setattr(gone, "write", broken)
    monkeypatch.setattr(gone, "flush", broken)
    bar.update(2)
    bar.refresh()
    bar.close()
    assert bar.n == 2


def test_a_name_that_cannot_be_given_costs_no_run(monkeypatch, caplog):
    monkeypatch.setattr(reports, "get_client", away)
    config = Config.from_values({"model": "demo", "dataset": "prompts.jsonl"})
    monkeypatch.setattr(reports, "flow_run", SimpleNamespace(get_tags=list, get_id=lambda: "x"))
    with caplog.at_level(logging.WARNING):
        reports.name_flow_run(config)
    assert "the run's name could not be shown in Prefect: ConnectionError: nobody there" in caplog.text
