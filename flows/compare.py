"""Several outputs side by side: one page, a column for each run.

python -m flows.compare OUT1 OUT2
"""

if __name__ == "__main__":
    from flows.commands import main

    raise SystemExit(main("compare"))

import logging
from pathlib import Path
from typing import Any

from prefect.client.schemas.objects import State
from prefect.states import Completed

from flows.outcomes import refused
from flows.signature import takes_options
from t2i_core.errors import UserError
from t2i_core.options.compare import CompareOptions
from t2i_core.output.finished import FinishedOutput, read_finished
from t2i_core.reports.comparison_page import PAGE
from t2i_core.storage.tables import use_system_allocator
from t2i_core.storage.workspace import Workspace
from tasks.caching import ResultCache, cache_key
from tasks.comparison import write_comparison_task
from tasks.server_wait import waiting_as_asked
from tasks.settings import ConfiguredFlow, apply_settings

log = logging.getLogger("flows.compare")

RETRIES = 2


def write_page(options: CompareOptions) -> State[Any]:
    """Write the page, unless the one that is there shows the same; return the state of the run."""
    outputs = [read_finished(Workspace(output)) for output in options.outputs]
    page = Path(options.to) / PAGE
    key = cache_key([_identity(output) for output in outputs], options.by, options.limit, str(page.absolute()))
    cache = ResultCache(outputs[0].workspace.results, RETRIES)
    arguments = (outputs, options.by, options.limit, options.to)
    counts = cache.call(write_comparison_task, key, *arguments, is_valid=lambda stored: page.is_file())
    message = f"{counts['shared']} images belong together, {counts['shown']} of them are shown"
    log.info("compared  %s\npage      %s", message, page)
    return Completed(message=message)


def _identity(output: FinishedOutput) -> list[object]:
    status = output.provenance.stat()
    return [str(output.workspace.root.absolute()), status.st_size, status.st_mtime_ns]


@takes_options(CompareOptions)
def _compare(**values: Any) -> Any:  # a `State[Any]`, which another process could not look up
    """Show several outputs side by side."""
    apply_settings()
    use_system_allocator()
    try:
        return write_page(waiting_as_asked(CompareOptions.from_values(values)))
    except UserError as error:
        return refused(error)


compare = ConfiguredFlow(_compare, name="compare")
