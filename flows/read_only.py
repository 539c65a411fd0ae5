"""A dry run over an output that cannot be written: what it needs is laid out in a temporary folder for it."""

import logging
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from t2i_core.config import Config
from t2i_core.errors import OutputError
from t2i_core.output.layout import PROVENANCE, RUN
from t2i_core.output.writable import check_hidden, check_output, may_be_looked_at

log = logging.getLogger(__name__)

# What of `.t2i` a dry run may write to. Of the rest it reads what it needs where it lies.
_COPIED = ("results", "written")
_FILE_BY_FILE = ("plans", "records")
# Leases and marks of runs: what is laid out is this run's alone.
_LEFT_OUT = ("in-use", "running")


@contextmanager
def with_place_to_write(config: Config) -> Iterator[Config]:
    """Yield the configuration with an output that can be written, for a run that only says what there is to do.

    Any other run gets its configuration as it is, and so does one whose output can be written.

    Raises:
        OutputError: for one with links or pipes among what a run writes, and for one that could not be looked at.
    """
    check_hidden(Path(config.output))
    try:
        if config.only_looks:
            check_output(Path(config.output))
    except OutputError as error:
        if not may_be_looked_at(Path(config.output)):
            raise
        log.warning("output    a run would be refused: %s", str(error).removeprefix("output: "))
        with tempfile.TemporaryDirectory(prefix="text2image-") as folder:
            _lay_out(Path(config.output).absolute(), Path(folder))
            if config.verify:
                (Path(folder) / PROVENANCE).symlink_to(Path(config.output).absolute() / PROVENANCE)
            yield config.model_copy(update={"output": folder})
        return
    yield config


def _lay_out(root: Path, target: Path) -> None:
    """Lay out the output `root` in the empty folder `target`: images are links, and so is all that is only read."""
    if (root / RUN).is_file():
        shutil.copyfile(root / RUN, target / RUN)
    if not (root / ".t2i").is_dir():
        return
    (target / ".t2i").mkdir()
    for entry in (root / ".t2i").iterdir():
        own = target / ".t2i" / entry.name
        if entry.name in _LEFT_OUT:
            continue
        if entry.is_file():
            shutil.copyfile(entry, own)
        elif entry.name in _COPIED:
            shutil.copytree(entry, own, copy_function=shutil.copyfile)
        elif entry.name in _FILE_BY_FILE:
            own.mkdir()
            for file in entry.iterdir():
                (own / file.name).symlink_to(file)
        else:
            own.symlink_to(entry)
