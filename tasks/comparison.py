"""The task that compares outputs and writes the page."""

from collections.abc import Sequence
from pathlib import Path

from prefect import task

from t2i_core.output.finished import FinishedOutput
from t2i_core.reports.comparison import compare
from t2i_core.reports.comparison_page import write_comparison
from tasks.caching import TASK_OPTIONS, VersionedKey
from tasks.progress import progress


@task(
    name="write comparison",
    task_run_name="write {folder}",
    cache_policy=VersionedKey(version="comparison-v1"),
    **TASK_OPTIONS,
)
def write_comparison_task(
    cache_key: str, outputs: Sequence[FinishedOutput], by: str | None, limit: int, folder: str
) -> dict[str, int]:
    """Compare outputs, and write the page with its pictures; return how many images belong together, and are shown."""
    comparison = compare(outputs, by, limit)
    with progress(len(comparison.rows) * len(outputs), ["comparison"]) as shown:
        write_comparison(Path(folder), comparison, by, shown.add_images)
    return {"shared": comparison.shared, "shown": len(comparison.rows)}
