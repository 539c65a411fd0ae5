"""Named images that are copies, where links do not work: whether each is a copy of its image.

Size and time do not tell: two images may have both in common. The header of a copy names its key and the digest of its
pixels. It is read once: what was found is kept until the copy or its image changes. Where a link can be made, as after
an output was copied or unpacked, a copy is not right: a link cannot come to hold another picture than its image.
"""

import os
import stat
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path

import numpy as np
import numpy.typing as npt

from t2i_core.storage.checked_files import Marks, Mask, mixed, own_change_times, shows_changes
from t2i_core.storage.files import open_regular
from t2i_core.storage.formats import read_header
from t2i_core.storage.image_store import StoredFile
from t2i_core.storage.workspace import Workspace


class NamedCopies:
    """The copies in an output folder, looked at in one pass over its names."""

    def __init__(self, workspace: Workspace) -> None:
        self._root, self._images, self._checked = workspace.root, workspace.images, workspace.checked_names
        self._seen: list[Marks] = []

    def are_right(self, names: Sequence[str], keys: Sequence[str], inodes: npt.NDArray[np.uint64]) -> Mask:
        """Mark the names whose file is a link to the image with its key, which has this inode, or a copy that must be.

        The file itself is looked at: on some file systems a directory entry has another inode than its file.
        """
        right = np.zeros(len(names), bool)
        rows, copies, images = [], [], []
        for row, (name, key, inode) in enumerate(zip(names, keys, inodes.tolist(), strict=True)):
            try:
                copy = os.stat(self._root / name, follow_symlinks=False)
            except OSError:
                continue
            if copy.st_ino == inode or copy.st_nlink > 1:
                right[row] = copy.st_ino == inode
            elif (image := self._images.stat(key)) and stat.S_ISREG(copy.st_mode) and copy.st_size == image.size:
                rows.append(row)
                images.append(image)
                copies.append(StoredFile(copy.st_size, copy.st_mtime_ns, copy.st_ino, copy.st_ctime_ns))
        if rows:
            right[rows] = self._are_copies([names[row] for row in rows], [keys[row] for row in rows], copies, images)
        return right

    def keep(self) -> None:
        """Keep what was found for the next run. Call it when all names were looked at: others are forgotten."""
        self._checked.keep(np.concatenate([np.zeros(0, np.uint64), *self._seen]))

    def _are_copies(
        self, names: Sequence[str], keys: Sequence[str], copies: Sequence[StoredFile], images: Sequence[StoredFile]
    ) -> Mask:
        labels = [
            blake2b(f"{name}\0{key}".encode(), digest_size=8).digest() for name, key in zip(names, keys, strict=True)
        ]
        places = np.frombuffer(b"".join(labels), np.uint64)
        known = self._checked.know(mixed([places, *_columns(copies), *_columns(images)]))
        right = known.copy()
        for row in np.flatnonzero(~known).tolist():
            path, key = self._root / names[row], keys[row]
            right[row] = not self._images.can_link(key, path) and self._has_header_of(path, key)
        ours = _columns(copies)
        mtimes_ns, ctimes_ns = ours[2:]
        same = np.flatnonzero(right & (mtimes_ns == ctimes_ns)).tolist()
        ctimes_ns[same] = own_change_times((self._root / names[row] for row in same), mtimes_ns[same])
        lasting = shows_changes(mtimes_ns, ctimes_ns) & shows_changes(*_columns(images)[2:])
        self._seen.append(mixed([places, *ours, *_columns(images)])[right & lasting])
        return right

    def _has_header_of(self, path: Path, key: str) -> bool:
        """Return whether a file carries the key and the digest of pixels of a stored image, and the image does, too."""
        try:
            with open_regular(path) as file:
                copy = read_header(file) or {}
        except OSError:
            return False
        image = self._images.header(key) or {}
        facts = ("key", "pixels_sha256")
        return copy.get("key") == key and all(copy.get(name) == image.get(name) for name in facts)


def _columns(files: Sequence[StoredFile]) -> list[npt.NDArray[np.int64]]:
    """Return inodes, sizes, modification times and change times."""
    inodes = np.array([file.inode for file in files], np.uint64).view(np.int64)
    others = [[file.size for file in files], [file.mtime_ns for file in files], [file.ctime_ns for file in files]]
    return [inodes, *(np.array(values, np.int64) for values in others)]
