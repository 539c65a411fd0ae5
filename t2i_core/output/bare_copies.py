"""Named images without metadata: copies that do not tell which image they are, so that it is remembered.

`.t2i/bare.parquet` has for each name the key of its image, the digest of the copy's content, and inode, size and times
of the file as it was written. While those are the same, so is the content, for no program sets a change time. A file
that has others is read, as after an output was copied.
"""

import errno
import hashlib
import os
import stat
import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from t2i_core.errors import OutputError
from t2i_core.storage.files import atomic_write, temporary_beside
from t2i_core.storage.formats import without_texts
from t2i_core.storage.keys import find
from t2i_core.storage.tables import write_table
from t2i_core.storage.workspace import Workspace

_STATUS = ("inode", "size", "mtime_ns", "ctime_ns")
SCHEMA = pa.schema(
    [("name", pa.string()), ("key", pa.string()), ("sha256", pa.string()), *((name, pa.int64()) for name in _STATUS)]
)
READ_ONLY = 0o444


class BareCopies:
    """The named images of an output that were written without metadata."""

    def __init__(self, workspace: Workspace) -> None:
        self._root, self._images = workspace.root, workspace.images
        self._file = workspace.hidden / "bare.parquet"
        try:
            self._table = pq.read_table(self._file, schema=SCHEMA)
        except (OSError, pa.ArrowInvalid):  # none, or damaged: then the copies are written again
            self._table = None
        self._rows = SCHEMA.empty_table() if self._table is None else self._table
        hashes = np.fromiter(map(hash, self._rows["name"].to_pylist()), np.int64, len(self._rows))
        self._order = np.argsort(hashes)
        self._hashes = hashes[self._order]
        self._kept: list[dict[str, object]] = []

    def are_right(self, names: Sequence[str], keys: Sequence[str]) -> npt.NDArray[np.bool_]:
        """Mark the names whose file is the copy without metadata of the image with its key; those are kept."""
        right = np.zeros(len(names), bool)
        for number, (name, key, row) in enumerate(zip(names, keys, self._find(names).tolist(), strict=True)):
            if row >= 0 and self._rows["key"][row].as_py() == key and (known := self._known(name, row)):
                right[number] = True
                self._kept.append(known)
        return right

    def key_of(self, name: str) -> str | None:
        """Return the key of the image whose copy without metadata a name is; None where it is no such copy."""
        (row,) = self._find([name]).tolist()
        known = self._known(name, row) if row >= 0 else None
        return None if known is None else str(known["key"])

    @property
    def knows_any(self) -> bool:
        """Whether any copy is remembered."""
        return len(self._rows) > 0

    def is_copy_of(self, name: str, key: str) -> bool:
        """Return whether a name is the copy without metadata of an image, told by the content of both."""
        path, content = self._root / name, self._bare_content(key)
        try:
            return content is not None and _status(path)["size"] == len(content) and path.read_bytes() == content
        except OSError:
            return False

    def write(self, key: str, name: str) -> None:
        """Write the copy of an image under a name, in the place of what is there.

        Raises:
            OutputError: where the image is gone or torn.
        """
        target, content = self._root / name, self._bare_content(key)
        if content is None:
            raise OutputError(f"output: {self._images.location(key)} is damaged or gone; delete it, and run again")
        target.parent.mkdir(exist_ok=True)
        temporary = temporary_beside(target)
        temporary.write_bytes(content)
        temporary.chmod(READ_ONLY)
        os.replace(temporary, target)
        sha256 = hashlib.sha256(content).hexdigest()
        self._kept.append({"name": name, "key": key, "sha256": sha256, **_status(target)})

    def keep(self) -> None:
        """Remember the copies that were found right and those that were written; forget all others."""
        table = pa.Table.from_pylist(self._kept, SCHEMA).sort_by("name")
        if not self._kept:
            self._file.unlink(missing_ok=True)
        elif self._table is None or not table.equals(self._table):
            with atomic_write(self._file) as file:
                write_table(file, table)

    def _bare_content(self, key: str) -> bytes | None:
        stored, data = self._images.stat(key), self._images.read(key)
        try:
            return None if stored is None or data is None else without_texts(data, stored.format)
        except (struct.error, IndexError, ValueError):  # torn
            return None

    def _find(self, names: Sequence[str]) -> npt.NDArray[np.int64]:
        found = find(np.fromiter(map(hash, names), np.int64, len(names)), self._hashes)
        return np.where(found >= 0, self._order[found], -1) if len(self._order) else found

    def _known(self, name: str, row: int) -> dict[str, object] | None:
        """Return what is known of a copy, with its status as it is now; None if its content is another one."""
        known: dict[str, object] = {field: self._rows[field][row].as_py() for field in SCHEMA.names}
        path = self._root / name
        try:
            status = _status(path)
            if any(known[field] != value for field, value in status.items()):
                if hashlib.sha256(path.read_bytes()).hexdigest() != known["sha256"]:
                    return None
                known |= status
        except (OSError, ValueError):  # ValueError: a manifest broken by hand may name anything
            return None
        return known if known["name"] == name else None


def _status(path: Path) -> dict[str, int]:
    """Return what tells whether a file was changed; OSError for what is no file: a pipe would be waited for."""
    status = os.stat(path, follow_symlinks=False)
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), str(path))
    # As signed numbers, which Parquet compares and every file system's inodes fit after the cast.
    inode = int(np.uint64(status.st_ino).astype(np.int64))
    return dict(zip(_STATUS, (inode, status.st_size, status.st_mtime_ns, status.st_ctime_ns), strict=True))
