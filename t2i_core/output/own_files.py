"""The files of an output that this tool wrote: a file that it did not write is never overwritten or removed.

One rule for every file that people see: `OwnFiles.check` before any work, `OwnFiles.write` for the writing itself.
What is about to get a name is noted first in `.t2i/written/<name>`, by size and digest, so that a kill at any moment
leaves a note of the file that is there. A file without a matching note is ours if its own content says so
(`recognition.py`).

A folder that a command fills whole is claimed by `claim_folder`, wherever it lies: a marker in it says whose it is.
"""

import hashlib
import os
import shutil
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from t2i_core.errors import OutputError
from t2i_core.output.recognition import has_images_of_ours, is_manifest_of_ours, recognisers
from t2i_core.storage.files import (
    atomic_write,
    entries,
    final_name,
    is_stale,
    open_regular,
    read_regular,
    temporary_beside,
    write_text,
)
from t2i_core.storage.workspace import Workspace

# In a folder that a command fills: it is this tool's, and may be filled anew.
MARKER = ".text2image"
# Of a file: what its digest is taken of. Two files of equal size that differ only behind it are no two people's.
_DIGESTED = 1 << 20


class OwnFiles:
    """The files under names of ours in an output."""

    def __init__(self, workspace: Workspace, *, replace: bool = False, trusted: Iterable[str] = ()) -> None:
        """Name the output.

        Args:
            workspace: the output.
            replace: whether files of others may be overwritten (`--replace`).
            trusted: names that an earlier version, which noted nothing, wrote; they count while there are no notes.
        """
        self._workspace = workspace
        self._replace = replace
        self._notes = workspace.written
        self._trusted = frozenset(trusted)

    def check(self, names: Iterable[str]) -> None:
        """Refuse the first of these names, relative to the output, under which there is a file of somebody else.

        Raises:
            OutputError: naming it.
        """
        if self._replace:
            return
        for name in names:
            if self.is_foreign(name):
                raise OutputError(
                    f"output: {self._workspace.root} holds {name}, which this tool did not write; "
                    "choose another --output, or add --replace to overwrite it"
                )

    @contextmanager
    def write(self, name: str) -> Iterator[BinaryIO]:
        """Open a temporary file for the block, then give it `name`, as `atomic_write`; it is noted as ours.

        Raises:
            OutputError: for a file of somebody else under that name.
        """

        def note(temporary: Path) -> None:
            self.check([name])
            there = [path] if path.is_file() else []  # it stays until the new file gets its name
            write_text(self._notes / name, "\n".join(map(_identity_of, [*there, temporary])))

        self.check([name])
        path = self._workspace.root / name
        with atomic_write(path, before_rename=note) as file:
            yield file

    def remove(self, name: str) -> None:
        """Remove a file of ours and its note; leave one of somebody else."""
        if not self.is_foreign(name):
            (self._workspace.root / name).unlink(missing_ok=True)
            self.forget(name)

    def forget(self, name: str) -> None:
        """Forget a file of ours that is gone: the next one of its name may be anybody's."""
        (self._notes / name).unlink(missing_ok=True)

    def is_foreign(self, name: str) -> bool:
        """Return whether there is something under a name that this tool did not write."""
        path = self._workspace.root / name
        try:
            status = os.lstat(path)
        except FileNotFoundError:
            return False
        except NotADirectoryError:  # a file in the place of the folder
            return True
        if not stat.S_ISREG(status.st_mode):  # a folder, or a link: not even one to a file of ours is ours
            return True
        noted = self._noted(name)
        if _identity_of(path) in noted or (noted and not status.st_size):  # empty after a power cut: nothing to lose
            return False
        return not self._is_recognised(name, path)

    def begin(self, names: Iterable[str]) -> None:
        """Begin to note what is written: of files that are there already, those of these names that are ours; at once.

        From then on a manifest is ours only by its note: a copy of one, under a name of the user's own, is not.
        """
        for entry in entries(self._notes.parent):  # of a process that was killed here
            with suppress(OSError):  # another run gave it its name just now
                if final_name(entry.name) == self._notes.name and is_stale(Path(entry.path)):
                    shutil.rmtree(entry.path, ignore_errors=True)
        if self._notes.is_dir():
            return
        beginning = temporary_beside(self._notes)  # of this process alone, whatever the file system knows of locks
        try:
            beginning.mkdir(parents=True)
            for name in names:
                path = self._workspace.root / name
                if path.is_file() and not self.is_foreign(name):
                    write_text(beginning / name, _identity_of(path))
            beginning.rename(self._notes)
        except OSError:
            shutil.rmtree(beginning, ignore_errors=True)
            if not self._notes.is_dir():  # no other run was first
                raise

    def _noted(self, name: str) -> list[str]:
        try:
            return read_regular(self._notes / name).decode(errors="replace").splitlines()
        except OSError:
            return []

    def _is_recognised(self, name: str, path: Path) -> bool:
        has_notes = self._notes.is_dir()
        if not has_notes and name in self._trusted:
            return True
        if not has_notes and not has_images_of_ours(self._workspace):
            return False
        if name in recognisers:
            return recognisers[name](path)
        return (not has_notes or bool(self._noted(name))) and is_manifest_of_ours(path)


def check_folder(folder: Path, fix: str = "name another folder, or an empty one") -> None:
    """Refuse a folder that holds files and no marker; write nothing. `fix`: what to do instead, for the message.

    Raises:
        OutputError: naming the folder.
    """
    if (folder / MARKER).is_file() or not os.path.lexists(folder):
        return
    if not folder.is_dir():
        raise OutputError(f"output: {folder} is no folder; {fix}")
    if any(folder.iterdir()):
        raise OutputError(f"output: {folder} holds files that this tool did not write; {fix}")


def claim_folder(folder: Path, *, replace: bool = False) -> None:
    """Make a folder that a command fills whole, or take one that this tool has filled before; put the marker in it.

    Raises:
        OutputError: for a folder that holds files and no marker, unless they may be replaced.
    """
    if not replace:
        check_folder(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / MARKER).is_file():
        write_text(folder / MARKER, "The files in this folder were written by text2image, and may be written anew.\n")


def _identity_of(path: Path) -> str:
    """Return what tells a file from another one of its name: its size in bytes, and a SHA-256 of how it begins."""
    with open_regular(path) as file:
        return f"{os.fstat(file.fileno()).st_size} {hashlib.sha256(file.read(_DIGESTED)).hexdigest()}"
