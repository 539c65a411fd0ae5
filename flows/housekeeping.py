"""What a finished run removes: old plans, and with `--prune` the images that the manifest does not name."""

from t2i_core.planning.catalog import Catalog, Unreferenced
from t2i_core.storage.files import remove_if_stale
from t2i_core.storage.workspace import Workspace


def remove_old_plans(catalog: Catalog) -> None:
    """Delete plans of earlier versions of the data set that no run can still be reading."""
    plans = catalog.workspace.plans
    current = catalog.plan.files(plans)
    for path in plans.glob("*.parquet"):
        if path not in current:
            remove_if_stale(path)


def prune(workspace: Workspace, unreferenced: Unreferenced) -> None:
    """Delete stored images that the manifest does not name, and earlier manifests, which may name them."""
    with workspace.lock():
        for manifest in unreferenced.manifests:
            manifest.unlink(missing_ok=True)
        for key in unreferenced.keys:
            workspace.images.delete(key)
