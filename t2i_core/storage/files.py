"""Files that appear whole or not at all, and the temporary files that a killed process leaves behind."""

import errno
import filecmp
import os
import re
import shutil
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import IO, Any, BinaryIO, TypeVar

from t2i_core.storage.promises import is_lacking, unless_lacking
from t2i_core.system_errors import is_lasting

T = TypeVar("T")
R = TypeVar("R")

STALE_SECONDS = 3600
# Calls that wait for a network file system at the same time.
WAITING = 64
# A call waits when it takes so many times the CPU time it needs.
_WAITS = 4
# Windows has neither.
_NOT_FOLLOWING = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
# By the device of a file system, what `_seconds_ahead` found.
_AHEAD: dict[int, float] = {}
_TEMPORARY = re.compile(r"\.(.+)\.\d+-\d+\.tmp")


@contextmanager
def atomic_write(
    path: Path,
    *,
    read_only: bool = False,
    keep_equal: bool = False,
    before_rename: Callable[[Path], None] | None = None,
) -> Iterator[BinaryIO]:
    """Open a temporary file beside `path` for the block, then flush it to disk (fsync) and rename it to `path`.

    With `keep_equal` a file that is there and holds the same bytes stays: another machine may be reading it, and a
    network file system would call it stale (ESTALE). `before_rename` is told of the temporary file once it is whole.

    Raises:
        OSError: with the name of a file, which an error of writing lacks.
    """
    with naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = temporary_beside(path)
        try:
            with temporary.open("xb") as file:
                yield file
                flush_to_disk(file)
                if read_only:
                    with unless_lacking("fchmod"):
                        os.fchmod(file.fileno(), 0o444)
            if before_rename is not None:
                before_rename(temporary)
            if keep_equal and _is_equal(temporary, path):
                temporary.unlink()
            else:
                os.replace(temporary, path)
        except BaseException:
            with suppress(OSError):
                temporary.unlink()
            raise


def _is_equal(new: Path, old: Path) -> bool:
    """Return whether two files hold the same bytes; of one that cannot be read, the new one takes the place."""
    try:
        return not old.is_symlink() and filecmp.cmp(new, old, shallow=False)
    except OSError:
        return False


def open_regular(path: Path) -> BinaryIO:
    """Open a file for reading, without following a link and without waiting for the other end of a pipe.

    Raises:
        OSError: also for what is no regular file: a link, a pipe, a socket, a device, a folder.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | _NOT_FOLLOWING)
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return os.fdopen(descriptor, "rb")
    os.close(descriptor)
    raise OSError(errno.EINVAL, "it is no regular file", str(path))


def read_regular(path: Path) -> bytes:
    """Return the content of a file, opened as by `open_regular`."""
    with open_regular(path) as file:
        return file.read()


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Name a file in an error of the operating system that names none, as that of a write; or a temporary one."""
    try:
        yield
    except OSError as error:
        named = error.filename
        if error.errno is not None and (named is None or is_temporary(os.path.basename(str(named)))):  # noqa: PTH119
            error.filename, error.filename2 = str(path), None
        raise


def link_or_copy(source: Path, target: Path) -> None:
    """Make `target` a hard link to `source`, or a copy with its time where the file system has no links."""
    try:
        os.link(source, target)
    except OSError as error:
        if not is_lacking("hard links", error) and is_lasting(error):
            raise
        shutil.copyfile(source, target)
        with unless_lacking("utime"):
            status = source.stat()
            os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))


def flush_to_disk(file: IO[Any]) -> None:
    """Flush what was written to a file to its disk, where the file system can do so."""
    file.flush()
    with unless_lacking("fsync"):
        os.fsync(file.fileno())


def write_text(path: Path, text: str) -> None:
    """Write a small text file atomically, as UTF-8."""
    with atomic_write(path) as file:
        file.write(text.encode("utf-8"))


def temporary_beside(path: Path) -> Path:
    """Return a hidden name in the same folder that no other writer uses."""
    return path.with_name(f".{path.name}.{os.getpid()}-{time.monotonic_ns()}.tmp")


def is_temporary(name: str) -> bool:
    """Return whether this tool gave a file this name while it was writing it."""
    return final_name(name) is not None


def final_name(name: str) -> str | None:
    """Return what a file that is named so by `temporary_beside` is about to be called; None for any other name."""
    match = _TEMPORARY.fullmatch(name)
    return match[1] if match else None


def remove_if_stale(path: Path) -> None:
    """Remove a file that no living run can still be using: one that is an hour old; if it may be removed."""
    with suppress(OSError):  # another run finished or removed it in the meantime; or the disk is only for reading
        if is_stale(path):
            path.unlink()


def is_stale(path: Path) -> bool:
    """Return whether a file was neither written nor touched within the hour.

    Raises:
        OSError: it is gone.
    """
    status = path.stat()
    age = time.time() - status.st_mtime
    return age > STALE_SECONDS and age - _seconds_ahead(path.parent, status.st_dev) > STALE_SECONDS


def _seconds_ahead(folder: Path, device: int) -> float:
    """Return how far this machine's clock is ahead of that of a file system; 0 for a folder that cannot be written.

    The clocks of machines that share a folder may differ by hours, and a file of a living run must not seem old.
    """
    if device not in _AHEAD:
        probe = temporary_beside(folder / "clock")
        try:
            probe.touch(exist_ok=False)
            _AHEAD[device] = time.time() - probe.stat().st_mtime
        except OSError:
            return 0.0
        finally:
            with suppress(OSError):
                probe.unlink()
    return _AHEAD[device]


def entries(folder: str | Path) -> list[os.DirEntry[str]]:
    """Return the entries of a folder, sorted by name; none for a folder that is not there."""
    try:
        with os.scandir(folder) as found:
            return sorted(found, key=lambda entry: entry.name)
    except (FileNotFoundError, NotADirectoryError):
        return []  # removed by another run, or no folder of ours


def in_threads(call: Callable[[T], R], portions: Iterable[T]) -> Iterator[R]:
    """Yield `call` of each portion, in order, many at a time where they wait. A portion is some dozen files or more.

    On a local disk, calls that wait for nothing go one by one: threads that pass Python's lock on at each file took
    two to five times as long (measured on two idle cores). While calls wait, one in some hundred runs alone, and tells
    whether they still do.
    """
    rest = iter(portions)
    with ThreadPoolExecutor(WAITING, thread_name_prefix="files") as pool:
        for portion in rest:
            started, worked = time.perf_counter(), time.thread_time()
            result = call(portion)
            waits = time.perf_counter() - started > _WAITS * (time.thread_time() - worked)
            yield result
            if waits:
                yield from pool.map(call, islice(rest, 4 * WAITING))


def portions_of(items: Iterable[T], size: int = 64) -> Iterator[list[T]]:
    """Yield lists of `size` items, the last one shorter."""
    rest = iter(items)
    while portion := list(islice(rest, size)):
        yield portion
