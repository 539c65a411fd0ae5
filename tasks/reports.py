"""What a run shows in the terminal and in Prefect's UI: its name, its progress, and its report."""

import contextvars
import glob
import logging
import re
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import PurePath
from typing import Any
from uuid import UUID

from prefect import get_client, task
from prefect.artifacts import (
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.cache_policies import NO_CACHE
from prefect.runtime import flow_run
from tqdm import tqdm

from t2i_core.config import Config
from t2i_core.planning.catalog import Catalog
from t2i_core.reports.report import Report, write_report
from t2i_core.reports.summary_page import failure_rows, summary_markdown
from tasks.process import THIS_PROCESS

log = logging.getLogger(__name__)

# Between two lines of the bar where it cannot redraw itself: in a log file.
LOG_INTERVAL_SECONDS = 30
# Between two updates of the progress that Prefect shows: each is a request.
ARTIFACT_INTERVAL_SECONDS = 10
# How long the last update is waited for, where a silent server holds it up.
LAST_UPDATE_SECONDS = 5


def data_set_name(names: Sequence[str]) -> str:
    """Return a data set's name in letters, digits and dashes, for artifact keys: `prompts/parti.tsv.gz` -> `parti`.

    A glob goes by its last folder without a wildcard, several files by the first.
    """
    first, more = names[0], f"-and-{len(names) - 1}-more" if len(names) > 1 else ""
    if not first.startswith("hf:"):
        parts = [part for part in PurePath(first.partition("?")[0]).parts if not glob.has_magic(part)]
        first = parts[-1].partition(".")[0] if parts else ""
    return (_slug(first) or "data-set") + more


def run_name(model: str, prompts: int | None = None) -> str:
    """Return a run's name, for example `text2image-flux-dev-1632-prompts`; a hub id or folder goes by its last part."""
    name = f"text2image-{_slug(model.rstrip('/').rpartition('/')[2])}"
    return name if prompts is None else f"{name}-{prompts}-prompts"


def name_flow_run(config: Config, prompts: int | None = None) -> None:
    """Give the flow run its name and its tags; once more when the number of prompts is known."""
    tags = {*flow_run.get_tags(), f"model:{_slug(config.model)}", f"data-set:{data_set_name(config.dataset_names)}"}
    try:
        client = get_client(sync_client=True)
        client.update_flow_run(UUID(flow_run.get_id()), name=run_name(config.model, prompts), tags=sorted(tags))
    except Exception as error:
        _not_shown("the run's name", error)


class _Bar(tqdm):  # type: ignore[type-arg]
    """A progress bar that outlives its terminal: that of a killed worker, or of `| head`. No image is lost for it."""

    def display(self, *arguments: Any, **more: Any) -> Any:
        with suppress(OSError):
            return super().display(*arguments, **more)

    def close(self) -> None:
        with suppress(OSError):
            super().close()


@contextmanager
def progress(total: int, names: Sequence[str]) -> Iterator["tqdm[Any]"]:
    """Show images made, as the shards of this process report them: a bar, and an artifact of the flow run."""
    terminal = sys.stderr.isatty()
    with _Bar(
        total=total, unit="image", disable=not total, mininterval=0.5 if terminal else LOG_INTERVAL_SECONDS
    ) as bar:
        lock = threading.Lock()

        def advance(count: int) -> None:
            with lock:  # several threads write images
                bar.update(count)

        THIS_PROCESS.on_images = advance
        try:
            with _shown_in_prefect(bar, total, f"progress-{data_set_name(names)}"):
                yield bar
        finally:
            THIS_PROCESS.on_images = lambda count: None


@contextmanager
def _shown_in_prefect(bar: "tqdm[Any]", total: int, key: str) -> Iterator[None]:
    """Keep a progress artifact up to date for the block, in a thread: no image ever waits for the server."""
    ended = threading.Event()
    follow = contextvars.copy_context().run  # the artifact belongs to this flow run
    thread = threading.Thread(target=follow, args=(_follow, bar, total, key, ended), name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(LAST_UPDATE_SECONDS)


def _follow(bar: "tqdm[Any]", total: int, key: str, ended: threading.Event) -> None:
    artifact: Any = None
    started, last = time.monotonic(), False
    while not last:
        last = ended.wait(ARTIFACT_INTERVAL_SECONDS if artifact else 0)
        done, seconds = bar.n, time.monotonic() - started
        text = f"{done} of {total} images"  # the UI's card shows some 40 characters
        if done and not last:
            left = bar.format_interval((total - done) * seconds / done)
            text += f", {done / seconds:.2f}/s, {left} left"
        percent = round(100 * done / total, 1)
        try:
            if artifact is None:
                artifact = create_progress_artifact(percent, key=key, description=text)
            else:
                update_progress_artifact(artifact, percent, description=text)
        except Exception as error:  # the server may be back for the next update
            _not_shown("the progress", error)
            last = last or ended.wait(ARTIFACT_INTERVAL_SECONDS)


@task(name="report", task_run_name="report", cache_policy=NO_CACHE, persist_result=False)
def report_task(report: Report, catalog: Catalog) -> None:
    """Write run.json and the contact sheet."""
    write_report(report, catalog)


@task(
    name="publish",
    task_run_name="publish",
    cache_policy=NO_CACHE,
    persist_result=False,
    retries=3,
    retry_delay_seconds=[2, 10, 30],
    retry_jitter_factor=0.5,
)
def publish_task(report: Report, catalog: Catalog) -> None:
    """Create the summary and the failures as artifacts of the flow run."""
    _publish(report, catalog)


def publish_now(report: Report, catalog: Catalog) -> None:
    """Do the same without a task and without another try, for a run that was told to stop."""
    try:
        _publish(report, catalog)
    except Exception as error:
        _not_shown("the summary", error)


def _publish(report: Report, catalog: Catalog) -> None:
    name = data_set_name(report.config.dataset_names)
    create_markdown_artifact(summary_markdown(report, catalog), key=f"summary-{name}", description=report.message())
    if report.accounting.failures:
        create_table_artifact(
            failure_rows(catalog.workspace),
            key=f"failures-{name}",
            description=f"{report.accounting.failures} failures",
        )


def _not_shown(what: str, error: Exception) -> None:
    """Log that something is missing in Prefect. It is not worth an image, and the server may be away for a while."""
    log.warning("%s could not be shown in Prefect: %s: %s", what, type(error).__name__, error)


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
