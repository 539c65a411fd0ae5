"""Opening a finished output: what each command beside `text2image` begins with."""

import logging
import weakref
from pathlib import Path
from uuid import uuid4

from flows.housekeeping import hold_plan
from flows.records import collect_index
from t2i_core.output.finished import FinishedOutput, read_finished
from t2i_core.output.writable import check_hidden
from t2i_core.planning.catalog import Catalog
from t2i_core.storage.leases import Lease
from t2i_core.storage.workspace import Workspace
from tasks.caching import ResultCache

log = logging.getLogger(__name__)


def open_catalog(output: str, retries: int = 3, *, laid_out: bool = False) -> tuple[FinishedOutput, Catalog]:
    """Return what the last run left in `output`, and the catalog of its images.

    Other runs delete nothing of what it names as long as the workspace of the two is in use in this process.
    `laid_out`: `output` is a temporary folder of links to one that can only be read.

    Raises:
        OutputError: where no run came to write its files.
    """
    if not laid_out:
        check_hidden(Path(output))
    workspace = Workspace(output)
    finished = read_finished(workspace)
    _hold(workspace, finished.plan.digest)
    index, scan = collect_index(workspace, ResultCache(workspace.results, retries))
    catalog = Catalog(
        workspace, finished.plan, index, scan, finished.run, finished.errors(), interrupted=finished.interrupted
    )
    return finished, catalog


def _hold(workspace: Workspace, plan: str) -> None:
    """Hold a plan as long as the workspace object lives; an output that is only for reading has no runs beside this."""
    lease = Lease(workspace.leases, uuid4().hex)
    try:
        hold_plan(workspace, lease, plan)
    except OSError as error:
        log.debug("the output is not held: %s", error)
    weakref.finalize(workspace, lease.end)
