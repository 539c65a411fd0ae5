"""Opening a finished output: what each command beside `text2image` begins with."""

from flows.records import collect_index
from t2i_core.output.finished import FinishedOutput, read_finished
from t2i_core.planning.catalog import Catalog
from t2i_core.storage.workspace import Workspace
from tasks.caching import ResultCache


def open_catalog(output: str, retries: int = 3) -> tuple[FinishedOutput, Catalog]:
    """Return what the last run left in `output`, and the catalog of its images.

    Raises:
        OutputError: where no run came to write its files.
    """
    workspace = Workspace(output)
    finished = read_finished(workspace)
    index, scan = collect_index(workspace, ResultCache(workspace.results, retries))
    catalog = Catalog(
        workspace, finished.plan, index, scan, finished.run, finished.errors(), interrupted=finished.interrupted
    )
    return finished, catalog
