"""`--verify`: whether an output is what it says; with `--repair`, what is not is made again by the run that follows."""

import logging
import shutil
from pathlib import Path
from typing import Any

from prefect.client.schemas.objects import State
from prefect.states import Completed

from flows.finished import open_catalog
from flows.outcomes import damaged
from flows.preflight import check_at_once
from t2i_core.config import Config
from t2i_core.errors import OutputError
from t2i_core.output.verification import Verification, make_room, verify_files
from t2i_core.storage.workspace import Workspace
from tasks.manifest import MANIFEST_KEY
from tasks.verification import verify_images_task

# Not `__name__`: `prefect flow serve` loads the flow under another module name.
log = logging.getLogger("flows.verification")


def verify(config: Config, asked: Config) -> State[Any]:
    """Say whether all is right in the output of `asked`; return the state of the run.

    That of `config` is another one where the output can only be read.
    """
    check_at_once(config)
    found = _look(config, Path(asked.output))
    log.info("verified  %s", _sentence(found))
    if not found.faults:
        return Completed(message=_sentence(found))
    log.info("next      the command that made the output, with --verify --repair, makes again what is not right")
    return damaged(_sentence(found))


def repair_as_asked(workspace: Workspace, config: Config) -> None:
    """With `--repair`, look at an output and delete what is damaged, so that the run that follows makes it again."""
    if not (config.repair and workspace.hidden.is_dir()):
        return
    found = _look(config, workspace.root)
    log.info("verified  %s", _sentence(found))
    if found.faults:
        with workspace.lock():
            make_room(found, workspace)
        # The manifest is written again, whatever its size and time.
        shutil.rmtree(workspace.results / MANIFEST_KEY, ignore_errors=True)


def _look(config: Config, root: Path) -> Verification:
    """Return what is wrong in the output `root`, each fault logged in a line."""
    images = Workspace(config.output).images
    found = verify_images_task(images)
    try:
        finished, catalog = open_catalog(config.output, config.retries, laid_out=Path(config.output) != root)
        verify_files(found, root, finished, catalog)
    except OutputError as error:  # also of a run that was killed before its end
        found.rows.append(str(error).removeprefix("output: "))
    for line in found.lines(images):
        log.warning(line)
    return found


def _sentence(found: Verification) -> str:
    """Return what was found, in one line."""
    counts = {
        "damaged": len(found.damaged),
        "with another record": len(found.records),
        "wrong names": len(found.names),
        "faults in files": len(found.rows),
    }
    faults = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
    return f"{found.images} stored images decoded: {faults or 'all is right'}"
