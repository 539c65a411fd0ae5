"""Leases: which runs use an output at the moment, and the plan that each of them reads.

A lease is a file that its process keeps locked, so that it ends with the process, however that ends. A file system may
not know locks, or know them on one machine alone: then it is asked whether the process lives, and of a process on
another machine, whether it touched its lease within the hour.
"""

import fcntl
import json
import os
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from t2i_core.storage.files import entries, is_stale, is_temporary, naming, temporary_beside
from t2i_core.storage.holders import Holder
from t2i_core.storage.promises import is_lacking

# So often a lease is touched: several times within the hour after which it counts for nothing.
TOUCH_SECONDS = 600.0
# A lease is some hundred bytes; a longer file is none.
_LONGEST = 10_000


@dataclass(frozen=True, slots=True)
class InUse:
    """A living run, as its lease tells it: who it is, the digest of the plan that it reads.

    `makes`: the part of the images that it makes, as `3/64`; `1/1` for all, empty for none.
    """

    run: str
    plan: str
    holder: Holder
    makes: str


class Lease:
    """The lease of one run. A context manager: it ends with the block, once it was begun."""

    def __init__(self, folder: Path, run: str) -> None:
        """`folder`: `Workspace.leases`."""
        self._path = folder / run
        self._file: int | None = None
        self._ended = threading.Event()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def begin(self, plan: str, makes: str = "") -> None:
        """Tell that the run uses the output and reads the plan with this digest; do nothing if that was told already.

        `makes`: as of `InUse`.

        The caller holds the lock of the output: whoever deletes something holds it, too, and looks for leases.
        """
        if self._file is not None:
            return
        with naming(self._path):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            temporary = temporary_beside(self._path)
            self._file = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
            try:
                _try_lock(self._file, fcntl.LOCK_EX)
                text = json.dumps({"plan": plan, "makes": makes, **Holder.this_process().to_json()})
                os.write(self._file, text.encode("utf-8"))
                os.replace(temporary, self._path)
            except BaseException:
                self.end()
                with suppress(OSError):
                    temporary.unlink()
                raise
        threading.Thread(target=_touch, args=(self._path, self._ended), name="lease", daemon=True).start()

    def end(self) -> None:
        """Tell that the run uses the output no more."""
        if self._file is not None:
            self._ended.set()
            with suppress(OSError):
                self._path.unlink()
            os.close(self._file)
            self._file = None

    def others(self) -> list[InUse]:
        """Return the other runs that use the output, and remove the leases of dead ones."""
        return [lease for lease in in_use(self._path.parent) if lease.run != self._path.name]


def in_use(folder: Path) -> list[InUse]:
    """Return the runs that use an output, and remove the leases of dead ones. `folder`: `Workspace.leases`."""
    found = (_read(Path(entry.path)) for entry in entries(folder) if not is_temporary(entry.name))
    return [lease for lease in found if lease is not None]


def _read(path: Path) -> InUse | None:
    """Return the run that a lease is of; None for one of a dead process, which is removed, and for what is no lease."""
    try:
        file = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:  # ended just now, or not for this user
        return None
    try:
        locked = _try_lock(file, fcntl.LOCK_SH)  # shared: others may be looking, too
        try:
            values = json.loads(os.read(file, _LONGEST))
        except (OSError, ValueError, RecursionError):
            values = None
        holder, plan = Holder.from_json(values), values.get("plan") if isinstance(values, dict) else None
        if holder is None or not isinstance(plan, str):
            return None
        if _lives(holder, path, locked):
            return InUse(path.name, plan, holder, str(values.get("makes", "")))
        with suppress(OSError):
            path.unlink()
        return None
    finally:
        os.close(file)


def _lives(holder: Holder, path: Path, locked: bool | None) -> bool:
    """Return whether the holder of a lease lives. `locked`: whether this process got its lock; None: there are none."""
    if locked is False:
        return True
    here = holder.lives_here()
    if here is None:  # its lock may be known on its own machine alone
        return not is_stale(path)
    return here and locked is None


def _try_lock(file: int, kind: int) -> bool | None:
    """Lock a file; return whether that succeeded, None where the file system knows no locks."""
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if is_lacking("flock", error):
            return None
        raise
    return True


def _touch(path: Path, ended: threading.Event) -> None:
    while not ended.wait(TOUCH_SECONDS):
        with suppress(OSError):
            os.utime(path)
