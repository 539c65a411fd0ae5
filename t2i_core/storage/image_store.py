"""The images of an output as bytes by key. Whoever reads or writes an image gives its key and never sees a path.

`ImageStore` keeps them in a local folder. A store on object storage would be another class with the same methods, but
for `link`, which gives a stored image a second name on the same file system.
"""

import errno
import hashlib
import os
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from t2i_core.storage.files import (
    atomic_write,
    link_or_copy,
    naming,
    open_regular,
    read_regular,
    temporary_beside,
)
from t2i_core.storage.formats import read_header
from t2i_core.storage.image_folders import image_files
from t2i_core.storage.keys import KEY, Keys
from t2i_core.storage.suffixes import PNG, SUFFIXES


@dataclass(frozen=True, slots=True)
class StoredFile:
    """What the file system says of a stored image."""

    size: int  # bytes
    mtime_ns: int
    inode: int
    ctime_ns: int = 0
    format: str = PNG  # one of `SUFFIXES`


@dataclass(frozen=True, slots=True)
class Scan:
    """Every stored image as its directory entry has it, in columns of equal length, sorted by key.

    unchecked: a mark at those of which nobody looked whether they are what their key says: at all, for a start.
    """

    keys: Keys
    sizes: npt.NDArray[np.int64]  # bytes
    mtimes_ns: npt.NDArray[np.int64]
    inodes: npt.NDArray[np.uint64]
    ctimes_ns: npt.NDArray[np.int64]
    unchecked: npt.NDArray[np.bool_]

    def digest(self) -> str:
        """Return the SHA-256 of keys, sizes and times: that of a copied output, with other inodes, is the same."""
        digest = hashlib.sha256()
        for column in (self.keys, self.sizes, self.mtimes_ns):
            digest.update(column.view(np.uint8).data)
        return digest.hexdigest()


class ImageStore:
    """The images of one output, in `<root>/.t2i/images/ab/cd/<key>.png`, or with the suffix of another format."""

    def __init__(self, root: Path) -> None:
        """`root` is the output folder as the user gave it."""
        self.root = root

    def absolute(self) -> "ImageStore":
        """Return the same store for a process that may run in another folder."""
        return ImageStore(self.root.absolute())

    def location(self, key: str, format: str | None = None) -> str:
        """Return where an image lies, relative to the output: `.t2i/images/ab/cd/<key>.png`.

        Without its `format` the file is looked for; of an image that is not there it is that of a PNG.
        """
        if format is None:
            file = self.stat(key)
            format = file.format if file else PNG
        return f".t2i/images/{key[:2]}/{key[2:4]}/{key}{SUFFIXES[format]}"

    def read(self, key: str) -> bytes | None:
        """Return the content of an image; None if there is none that can be read."""
        for format in SUFFIXES:
            with suppress(OSError):
                return read_regular(self._path(key, format))
        return None

    def header(self, key: str) -> dict[str, Any] | None:
        """Return the record that an image carries, without decoding it; None if there is none that can be read."""
        try:
            with open_regular(self.path(key)) as file:
                return read_header(file)
        except OSError:
            return None

    def write(self, key: str, data: bytes, format: str = PNG) -> StoredFile:
        """Write an image, whole or not at all, to a read-only file, in place of one in another format."""
        path = self._path(key, format)
        with atomic_write(path, read_only=True) as file:
            file.write(data)
        self._delete(key, but=format)
        return _stored_file(path, format)

    def delete(self, key: str) -> None:
        """Delete an image, if it is there."""
        self._delete(key)

    def stat(self, key: str) -> StoredFile | None:
        """Return what the file system says of an image; None if it is not there."""
        for format in SUFFIXES:
            with suppress(OSError):
                return _stored_file(self._path(key, format), format)
        return None

    def link(self, key: str, target: Path) -> None:
        """Make `target` a hard link to an image, or a copy where links do not work; in the place of what is there."""
        target.parent.mkdir(exist_ok=True)
        temporary = temporary_beside(target)
        with naming(target):
            try:
                link_or_copy(self.path(key), temporary)
                os.replace(temporary, target)
            finally:
                # Renaming onto another link of the same file does nothing: two runs may link one target at once.
                with suppress(OSError):
                    temporary.unlink()

    def can_link(self, key: str, target: Path) -> bool:
        """Return whether a link to an image can be made beside `target`; nothing is left of the attempt."""
        temporary = temporary_beside(target)
        try:
            os.link(self.path(key), temporary)
        except OSError:
            return False
        temporary.unlink()
        return True

    def scan(self) -> Scan:
        """Return every stored image, by one directory scan.

        Temporary files that a killed process left behind are removed on the way, once they are an hour old.
        """
        found = image_files(self.root / ".t2i/images")
        return Scan(
            keys=np.frombuffer(found.keys, KEY),
            sizes=np.frombuffer(found.sizes, np.int64),
            mtimes_ns=np.frombuffer(found.mtimes_ns, np.int64),
            inodes=np.frombuffer(found.inodes, np.uint64),
            ctimes_ns=np.frombuffer(found.ctimes_ns, np.int64),
            unchecked=np.ones(len(found.sizes), bool),
        )

    def path(self, key: str) -> Path:
        """Return where an image lies on this machine; for its file, not for its content."""
        return self.root / self.location(key)

    def _path(self, key: str, format: str) -> Path:
        return self.root / self.location(key, format)

    def _delete(self, key: str, but: str | None = None) -> None:
        for format in SUFFIXES:
            if format != but:
                self._path(key, format).unlink(missing_ok=True)


def _stored_file(path: Path, format: str) -> StoredFile:
    status = path.lstat()
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "it is no regular file", str(path))
    return StoredFile(status.st_size, status.st_mtime_ns, status.st_ino, status.st_ctime_ns, format)
