"""A choice among the images of a finished output, written down as a review: each image, kept or not, and why not.

python -m flows.choose OUT --where "score_clip > 0.28 and not duplicate"
"""

if __name__ == "__main__":
    from flows.commands import main

    raise SystemExit(main("choose"))

import logging
from pathlib import Path
from typing import Any

from prefect.client.schemas.objects import State
from prefect.states import Completed

from flows.outcomes import refused
from flows.signature import takes_options
from t2i_core.errors import UserError
from t2i_core.hashing import file_sha256
from t2i_core.options.choose import ChooseOptions
from t2i_core.output.finished import read_finished
from t2i_core.output.selection import CHOICE
from t2i_core.storage.tables import use_system_allocator
from t2i_core.storage.workspace import Workspace
from tasks.caching import ResultCache, cache_key
from tasks.choice import write_choice_task
from tasks.server_wait import waiting_as_asked
from tasks.settings import ConfiguredFlow, apply_settings

log = logging.getLogger("flows.choose")

RETRIES = 2


def write_down(options: ChooseOptions) -> State[Any]:
    """Write `choice.csv`, unless it says the same already; return the state of the run."""
    finished = read_finished(Workspace(options.output))
    path, table = finished.workspace.root / CHOICE, finished.provenance.stat()
    review = Path(options.review) if options.review else None

    def still_there(stored: dict[str, Any]) -> bool:
        return path.is_file() and file_sha256(path) == stored["sha256"]

    key = cache_key(
        [table.st_size, table.st_mtime_ns],
        options.model_dump(exclude={"server_wait"}),
        file_sha256(review) if review and review.is_file() else None,
    )
    cache = ResultCache(finished.workspace.results, RETRIES)
    stored = cache.call(write_choice_task, key, finished, options, is_valid=still_there)
    message = f"{stored['kept']} of {finished.plan.images} images are kept"
    lines = [f"chosen    {message}"]
    lines += [f"left out  {count}: {reason}" for reason, count in stored["reasons"].items()]
    log.info("\n".join([*lines, f"choice    {path}"]))
    return Completed(message=message)


@takes_options(ChooseOptions)
def _choose(**values: Any) -> Any:  # a `State[Any]`, which another process could not look up
    """Write down which images of a finished output are kept."""
    apply_settings()
    use_system_allocator()
    try:
        return write_down(waiting_as_asked(ChooseOptions.from_values(values)))
    except UserError as error:
        return refused(error)


choose = ConfiguredFlow(_choose, name="choose")
