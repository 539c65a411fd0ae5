"""Files that appear whole or not at all, and the temporary files that a killed process leaves behind."""

import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

STALE_SECONDS = 3600
_TEMPORARY = re.compile(r"\..+\.\d+-\d+\.tmp")


@contextmanager
def atomic_write(path: Path, *, read_only: bool = False) -> Iterator[BinaryIO]:
    """Open a temporary file beside `path` for the block, then flush it to disk (fsync) and rename it to `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_beside(path)
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
            if read_only:
                os.fchmod(file.fileno(), 0o444)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """Write a small text file atomically, as UTF-8."""
    with atomic_write(path) as file:
        file.write(text.encode("utf-8"))


def temporary_beside(path: Path) -> Path:
    """Return a hidden name in the same folder that no other writer uses."""
    return path.with_name(f".{path.name}.{os.getpid()}-{time.monotonic_ns()}.tmp")


def is_temporary(name: str) -> bool:
    """Return whether this tool gave a file this name while it was writing it."""
    return _TEMPORARY.fullmatch(name) is not None


def remove_if_stale(path: Path) -> None:
    """Remove a file that no living run can still be using: one that is an hour old."""
    with suppress(FileNotFoundError):  # another run finished or removed it in the meantime
        if time.time() - path.stat().st_mtime > STALE_SECONDS:
            path.unlink()


def entries(folder: str | Path) -> list[os.DirEntry[str]]:
    """Return the entries of a folder, sorted by name; none for a folder that is not there."""
    try:
        with os.scandir(folder) as found:
            return sorted(found, key=lambda entry: entry.name)
    except (FileNotFoundError, NotADirectoryError):
        return []  # removed by another run, or no folder of ours
