"""What a finished run removes: old plans, and with `--prune` the images that the manifest does not name.

Another run may use the output meanwhile. Whatever it reads is told by its lease (`storage/leases.py`): a run takes it
under the lock of the output before it looks at what there is, and here nothing is removed without that lock.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from t2i_core.output.manifest import is_last_manifest
from t2i_core.planning.catalog import Catalog, Unreferenced
from t2i_core.planning.plan import digest_of
from t2i_core.reports.report import Report
from t2i_core.storage.files import remove_if_stale
from t2i_core.storage.leases import Lease
from t2i_core.storage.workspace import Workspace
from tasks.caching import result_name
from tasks.dataset import load_dataset_task
from tasks.manifest import write_manifest_task
from tasks.records import collect_records_task


def current_results(catalog: Catalog, manifest_key: str) -> set[str]:
    """Return the names of the stored results of a finished run that stand for its files: plan, records, manifest."""
    records = catalog.index.name.removesuffix(".parquet")
    return {
        result_name(load_dataset_task, catalog.plan.digest),
        result_name(collect_records_task, records),
        result_name(write_manifest_task, manifest_key),
    }


def hold_plan(workspace: Workspace, lease: Lease, plan: str, makes: str = "") -> None:
    """Tell other runs that this one uses the output and reads, or is about to write, the plan with this digest.

    `makes`: the part of the images that it makes; empty for none.
    """
    with workspace.lock():
        lease.begin(plan, makes)


def remove_old_plans(catalog: Catalog, lease: Lease) -> None:
    """Delete plans of earlier versions of the data set, once an hour old, but for those that a living run reads.

    The hour is for runs that tell of no lease: a dry run over an output that it cannot write.
    """
    plans = catalog.workspace.plans
    with catalog.workspace.lock():
        kept = {catalog.plan.digest, *(run.plan for run in lease.others())}
        for path in plans.glob("*.parquet"):
            if digest_of(path) not in kept:
                remove_if_stale(path)


def pruned(report: Report, catalog: Catalog, lease: Lease, files: dict[str, list[int]]) -> Report:
    """Prune the output, and return the report that says what became of that. `files`: those of this run's manifest."""
    is_mine = partial(is_last_manifest, files, catalog.workspace, report.config)
    return replace(report, not_pruned=prune(catalog, report.unreferenced, lease, is_mine))


def prune(catalog: Catalog, unreferenced: Unreferenced, lease: Lease, is_mine: Callable[[], bool]) -> str:
    """Delete stored images that the manifest does not name, and earlier manifests, which may name them.

    Nothing is deleted beside another run, which may have found or made any of them; nor where `is_mine` says that
    another run wrote its manifest since. Return why nothing was deleted; empty if it was.
    """
    if not (unreferenced.keys or unreferenced.manifests):
        return ""
    with catalog.workspace.lock():
        if others := lease.others():
            return f"another run uses this output ({others[0].holder}); run again with --prune once it is done"
        if not is_mine():
            return "another run wrote its manifest meanwhile; run again with --prune"
        for manifest in unreferenced.manifests:
            manifest.unlink(missing_ok=True)
        for key in unreferenced.keys:
            catalog.workspace.images.delete(key)
    return ""
