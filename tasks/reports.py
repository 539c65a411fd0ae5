"""What a run shows in Prefect's UI: its name, and its report."""

import glob
import logging
import re
from collections.abc import Sequence
from pathlib import PurePath
from uuid import UUID

from prefect import get_client, task
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.runtime import flow_run

from t2i_core.config import Config
from t2i_core.planning.catalog import Catalog
from t2i_core.reports.report import Report, write_report
from t2i_core.reports.summary_page import failure_rows, summary_markdown
from tasks.server_wait import WAIT, is_silence

log = logging.getLogger(__name__)


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
        with WAIT.not_waiting():
            client = get_client(sync_client=True)
            client.update_flow_run(UUID(flow_run.get_id()), name=run_name(config.model, prompts), tags=sorted(tags))
    except Exception as error:
        not_shown("the run's name", error)


@task(name="report", task_run_name="report", cache_policy=NO_CACHE, persist_result=False)
def report_task(report: Report, catalog: Catalog, same_images: bool) -> None:
    """Write run.json, and the contact sheet where images changed."""
    write_report(report, catalog, same_images=same_images)


@task(
    name="publish",
    task_run_name="publish",
    cache_policy=NO_CACHE,
    persist_result=False,
    retries=3,
    retry_condition_fn=lambda task, run, state: not WAIT.given_up,
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
        not_shown("the summary", error)


def _publish(report: Report, catalog: Catalog) -> None:
    WAIT.run_ends()
    name = data_set_name(report.config.dataset_names)
    create_markdown_artifact(summary_markdown(report, catalog), key=f"summary-{name}", description=report.message())
    if report.accounting.failures:
        create_table_artifact(
            failure_rows(catalog.workspace),
            key=f"failures-{name}",
            description=f"{report.accounting.failures} failures",
        )


def not_shown(what: str, error: Exception) -> None:
    """Log that something is missing in Prefect. It is not worth an image, and the server may be away for a while."""
    level = logging.DEBUG if is_silence(error) else logging.WARNING  # of a silence it is said once
    log.log(level, "%s could not be shown in Prefect: %s: %s", what, type(error).__name__, error)


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
