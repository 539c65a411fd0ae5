"""What is hashed is what is loaded: files of a model from when they are hashed until they are loaded."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from t2i_core.errors import ModelError
from t2i_core.hashing import file_sha256

# Size, modification time and change time (ns): no program sets the last, so while they are equal, so is the content.
FileState = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class LoadedFile:
    """A file that is about to be loaded, the SHA-256 that it had, and its state then."""

    path: str
    sha256: str
    state: FileState | None  # None: it could not be read


def file_state(path: Path) -> FileState:
    """Return what tells a file from what it was before: it is equal only while its content is.

    Where a file system keeps no change times, size and modification time have to do.
    """
    status = path.stat()
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns


@contextmanager
def unchanged(paths: Iterable[Path]) -> Iterator[None]:
    """Refuse files that change within the block, in which they are read and hashed.

    Raises:
        ModelError: naming the first.
    """
    before = [(path, file_state(path)) for path in paths]
    yield
    for path, state in before:
        if state_now(path) != state:
            raise _changed(path)


@contextmanager
def as_hashed(files: Sequence[LoadedFile]) -> Iterator[None]:
    """Refuse files that are not what they were when they were hashed, or change within the block, which loads them.

    Raises:
        ModelError: naming the first.
    """
    paths = [Path(file.path) for file in files]
    for path, file in zip(paths, files, strict=True):
        # Something else may have touched it, a backup for one: then its content tells.
        if state_now(path) != file.state and _sha256_now(path) != file.sha256:
            raise _changed(path)
    with unchanged(paths):
        yield


def state_now(path: Path) -> FileState | None:
    """Return the state of a file; None where it cannot be read, which its loader says in its own words."""
    try:
        return file_state(path)
    except OSError:
        return None


def _sha256_now(path: Path) -> str | None:
    try:
        return file_sha256(path)
    except OSError:
        return None


def _changed(path: Path) -> ModelError:
    return ModelError(f"{path}: changed or vanished while it was read; run the same command again")
