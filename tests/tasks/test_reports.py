"""Names in Prefect, and a progress that costs no image."""

import logging
from types import SimpleNamespace

import pytest
from prefect.exceptions import FailedRun

from t2i_core.errors import HubUnavailable
from tasks import reporting
from tasks.generation import THIS_PROCESS


@pytest.mark.parametrize(
    ("dataset", "name"),
    [
        ("prompts/Parti.tsv.gz", "parti"),
        ("hf:org/My_Set:default:train", "hf-org-my-set-default-train"),
        ("example", "example"),
        ("/data/日本語.jsonl", "data-set"),
    ],
)
def test_a_data_set_has_a_name_that_artifact_keys_allow(dataset, name):
    assert reporting.data_set_name(dataset) == name


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("flux-dev", "text2image-flux-dev-7-prompts"),
        ("black-forest-labs/FLUX.1-schnell", "text2image-flux-1-schnell-7-prompts"),
        ("/models/mine/", "text2image-mine-7-prompts"),
    ],
)
def test_a_run_has_a_name_that_says_something(model, name):
    assert reporting.run_name(model, 7) == name


def test_a_progress_that_cannot_be_shown_costs_no_image(run, output, prompts, monkeypatch, caplog):
    def away(*arguments, **more):
        raise ConnectionError("nobody there")

    monkeypatch.setattr(reporting, "create_progress_artifact", away)
    assert run(dataset=prompts("a fox", "a cat")).is_completed()
    assert output.counts()["images_generated"] == 2
    assert "the progress could not be shown in Prefect: ConnectionError: nobody there" in caplog.text


def test_a_summary_that_cannot_be_shown_fails_no_run(run, prompts, monkeypatch, caplog):
    def away(*arguments, **more):
        raise ConnectionError("nobody there")

    monkeypatch.setattr(reporting, "create_markdown_artifact", away)
    monkeypatch.setattr(reporting.publish_task, "retries", 0)
    assert run(dataset=prompts("a fox")).is_completed()
    assert "the summary is not in Prefect" in caplog.text


def test_a_bar_outlives_its_terminal(monkeypatch):
    gone = SimpleNamespace(write=len, flush=lambda: None, encoding="utf-8")
    monkeypatch.setattr("sys.stderr", gone)
    bar = reporting._Bar(total=3, mininterval=0)

    def broken(*arguments):
        raise BrokenPipeError

    monkeypatch.setattr(gone, "write", broken)
    monkeypatch.setattr(gone, "flush", broken)
    bar.update(2)
    bar.refresh()
    bar.close()
    assert bar.n == 2


def test_images_of_a_shard_that_is_tried_again_are_counted_once():
    counted = []
    THIS_PROCESS.on_images = counted.append
    try:
        with pytest.raises(OSError, match="disk"), THIS_PROCESS.counting() as count:
            count(2)
            count(1)
            raise OSError("disk")
        with THIS_PROCESS.counting() as count:
            count(4)
    finally:
        THIS_PROCESS.on_images = lambda images: None
    assert counted == [2, 1, -3, 4]


def test_a_run_that_failed_with_its_reason_shows_no_traceback(server):
    import flows.text2image  # noqa: F401 - sets the log up

    def kept(name, error):
        record = logging.LogRecord(name, logging.ERROR, "", 0, "exited", (), (type(error), error, None))
        return logging.getLogger(name).filter(record) and record

    assert not kept("prefect.flow_runs", FailedRun("3 failures"))
    assert kept("prefect.task_runs", HubUnavailable("the hub does not answer")).exc_info is None
    assert kept("prefect.task_runs", RuntimeError("a bug")).exc_info
    assert kept("prefect.flow_runs", RuntimeError("a bug"))
