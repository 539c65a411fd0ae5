"""From a finished output to a data set that a trainer reads.

python -m flows.export ./cache_local/demo --format webdataset
"""

if __name__ == "__main__":
    # Before the imports below, so that --help and a wrong flag are answered at once.
    from flows.commands import main

    raise SystemExit(main("export"))

import logging
from pathlib import Path
from typing import Any

from prefect.client.schemas.objects import State
from prefect.states import Completed

from flows.finished import open_catalog
from flows.outcomes import refused
from flows.signature import takes_options
from flows.system_errors import as_users
from t2i_core.errors import UserError
from t2i_core.export.export import check_options, target_folder
from t2i_core.export.target import is_whole
from t2i_core.hashing import digest, file_sha256
from t2i_core.options.export import ExportOptions
from t2i_core.output.finished import FinishedOutput
from t2i_core.output.selection import Choice, choose
from t2i_core.planning.catalog import Catalog
from t2i_core.storage.tables import use_system_allocator
from tasks.caching import ResultCache, cache_key
from tasks.exports import export_task
from tasks.server_wait import waiting_as_asked
from tasks.settings import ConfiguredFlow, apply_settings

# Not `__name__`: `prefect flow serve` loads this file under another module name.
log = logging.getLogger("flows.export")
RETRIES = 3


def _run(options: ExportOptions) -> State[Any]:
    """Export, unless the export is there already."""
    check_options(options)
    finished, catalog = open_catalog(options.output)
    if finished.interrupted:
        log.warning("stopped   the last run was stopped; images that it did not make are left out")
    choice = choose(finished, options)
    target = target_folder(options)

    def still_there(stored: dict[str, Any]) -> bool:
        return is_whole(target, stored["written"])

    cache = ResultCache(finished.workspace.results, RETRIES)
    key = _key(options, finished, catalog, choice)
    unchanged = is_whole(target, key)
    stored = cache.call(export_task, key, catalog, finished, options, choice, is_valid=still_there)
    log.info("\n".join(_lines(target, stored, unchanged=unchanged)))
    return Completed(message=f"{stored['images']} images in {target}")


def _key(options: ExportOptions, finished: FinishedOutput, catalog: Catalog, choice: Choice) -> str:
    """Return the digest of what an export depends on."""
    provenance = finished.provenance.stat()
    return cache_key(
        [catalog.plan.digest, catalog.index.name, provenance.st_size, provenance.st_mtime_ns],
        [options.model_dump(exclude={"server_wait"}), str(target_folder(options).absolute())],
        file_sha256(Path(options.questions)) if options.questions else None,
        digest([choice.codes.tobytes().hex(), choice.reasons]),
    )


def _lines(target: Path, stored: dict[str, Any], *, unchanged: bool) -> list[str]:
    """Return the lines that a person reads after an export."""
    splits = ", ".join(f"{count} {name}" for name, count in stored["splits"].items())
    lines = [f"images    {stored['images']}" + (f": {splits}" if len(stored["splits"]) > 1 else "")]
    lines += [f"left out  {count}: {reason}" for reason, count in stored["dropped"].items()]
    if stored["dropped"]:
        lines.append(f"          each one with its reason: {target}/dropped.jsonl")
    lines += [f"empty     the split {name} has no image" for name, count in stored["splits"].items() if not count]
    lines += [f"column    {column} of the input is {name}" for column, name in stored["renamed_columns"].items()]
    return [*lines, f"export    {target}" + ", unchanged" * unchanged, f"card      {target}/README.md"]


@takes_options(ExportOptions)
def _export(**values: Any) -> Any:  # a `State[Any]`, which another process could not look up
    """Write the images of a finished output in the form that a trainer reads."""
    apply_settings()
    use_system_allocator()
    try:
        return _run(waiting_as_asked(ExportOptions.from_values(values)))
    except (UserError, OSError) as error:
        return refused(as_users(error, values))


export = ConfiguredFlow(_export, name="export")
