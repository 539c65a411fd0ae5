"""What a finished run removes: old plans, and with `--prune` the images that the manifest does not name."""

from t2i_core.planning.catalog import Catalog, Unreferenced
from t2i_core.storage.files import remove_if_stale
from t2i_core.storage.workspace import Workspace
from tasks.caching import result_name
from tasks.dataset import load_dataset_task
from tasks.manifest import write_manifest_task
from tasks.records import collect_records_task


def remove_old_plans(catalog: Catalog) -> None:
    """Delete plans of earlier versions of the data set that no run can still be reading."""
    plans = catalog.workspace.plans
    current = catalog.plan.files(plans)
    for path in plans.glob("*.parquet"):
        if path not in current:
            remove_if_stale(path)


def current_results(catalog: Catalog, manifest_key: str) -> set[str]:
    """Return the names of the stored results of a finished run that stand for its files: plan, records, manifest."""
    records = catalog.index.name.removesuffix(".parquet")
    return {
        result_name(load_dataset_task, catalog.plan.digest),
        result_name(collect_records_task, records),
        result_name(write_manifest_task, manifest_key),
    }


def prune(workspace: Workspace, unreferenced: Unreferenced) -> None:
    """Delete stored images that the manifest does not name, and earlier manifests, which may name them."""
    with workspace.lock():
        for manifest in unreferenced.manifests:
            manifest.unlink(missing_ok=True)
        for key in unreferenced.keys:
            workspace.images.delete(key)
