"""The files people take away: names, manifest, provenance, failures."""

from dataclasses import asdict
from typing import Any

from prefect import task

from t2i_core.manifest import Outcome, files_written, write_manifest
from t2i_core.store import Scan, Store
from tasks.caching import TASK_OPTIONS, RecipeKey


@task(
    name="write manifest",
    task_run_name="write {outcome.config.manifest_name}",
    cache_policy=RecipeKey(recipe="manifest-v1"),
    **TASK_OPTIONS,
)
def write_manifest_task(cache_key: str, outcome: Outcome, scan: Scan) -> dict[str, Any]:
    """Names, then images.parquet, failures.jsonl and the manifest, each as a stream; returns the accounting."""
    store = Store(outcome.config.output)
    accounting = write_manifest(outcome, store, scan)
    return {"accounting": asdict(accounting), "run": outcome.run, "files": files_written(outcome, store)}
