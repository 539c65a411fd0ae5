"""The task that writes the files people take away: named images, provenance, failures, manifest."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from prefect import task

from t2i_core.config import Config
from t2i_core.output.accounting import Accounting
from t2i_core.output.manifest import files_written, write_manifest
from t2i_core.planning.catalog import Catalog
from tasks.caching import TASK_OPTIONS, VersionedKey

MANIFEST_KEY = "manifest-v1"


@task(
    name="write manifest",
    task_run_name="write {config.manifest_name}",
    cache_policy=VersionedKey(version=MANIFEST_KEY),
    **TASK_OPTIONS,
)
def write_manifest_task(cache_key: str, catalog: Catalog, config: Config) -> dict[str, Any]:
    """Write the files; return the accounting, the run that it is about, and how the files look on disk."""
    accounting = write_manifest(catalog, config)
    return {
        "accounting": asdict(accounting),
        "run": catalog.run,
        "files": files_written(catalog.workspace, config),
    }


def accounting_of(stored: Mapping[str, Any]) -> Accounting:
    """Return the accounting of a stored result."""
    return Accounting(**stored["accounting"])
