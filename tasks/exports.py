"""The task that writes an export."""

from contextlib import ExitStack
from typing import Any

from prefect import task

from t2i_core.export.export import export
from t2i_core.options.export import ExportOptions
from t2i_core.output.finished import FinishedOutput
from t2i_core.output.selection import Choice
from t2i_core.planning.catalog import Catalog
from tasks.caching import TASK_OPTIONS, VersionedKey
from tasks.progress import Progress, progress


@task(
    name="export",
    task_run_name="export as {options.format}",
    cache_policy=VersionedKey(version="export-v1"),
    **TASK_OPTIONS,
)
def export_task(
    cache_key: str, catalog: Catalog, finished: FinishedOutput, options: ExportOptions, choice: Choice
) -> dict[str, Any]:
    """Write an export; return what people are told of it. `written` is in its `export.json`, too."""
    with ExitStack() as stack:
        shown: list[Progress] = []

        def begin(total: int) -> None:
            shown.append(stack.enter_context(progress(total, [f"export-{options.format}"])))

        def count(images: int) -> None:
            shown[0].add_images(images)

        summary = export(
            catalog,
            finished,
            options,
            choice,
            written=cache_key,
            on_start=begin,
            on_images=count,
        )
    return {name: summary[name] for name in ("written", "images", "splits", "dropped", "renamed_columns")}
