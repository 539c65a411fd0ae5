"""Named images: hard links from `sample0_condition0/...png`, under which people find images, to the images by key."""

import os
import re
from array import array
from collections.abc import Container, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from t2i_core.output.bare_copies import BareCopies
from t2i_core.output.named_copies import NamedCopies
from t2i_core.storage.files import final_name, in_threads, open_regular, portions_of, remove_if_stale
from t2i_core.storage.formats import read_header
from t2i_core.storage.keys import find
from t2i_core.storage.workspace import Workspace

_FOLDER = re.compile(r".+_condition\d+")
_FILE = re.compile(r".+_condition\d+_\d+\.(png|webp|jpg)")

# Names that an output should have, their keys, and the inodes of the images by key: columns of equal length.
WantedNames = tuple[list[str], list[str], npt.NDArray[np.uint64]]


@dataclass(frozen=True, slots=True)
class NamedImage:
    """A name relative to the output, and the key of the image it stands for."""

    name: str
    key: str


@dataclass(frozen=True, slots=True)
class LinkChanges:
    """What has to change so that an output has just the names that are wanted."""

    to_link: list[NamedImage]  # absent, or links to another file
    to_remove: list[Path]  # images of ours that nobody wants under this name

    def __bool__(self) -> bool:
        return bool(self.to_link or self.to_remove)


class NamedLinks:
    """The names in an output folder."""

    def __init__(self, workspace: Workspace, *, bare: bool = False) -> None:
        """`bare`: names are to be copies without metadata, not links (`--embed-metadata none`)."""
        self._root = workspace.root
        self._images = workspace.images
        self._workspace = workspace
        self._bare = bare
        self._bare_copies = BareCopies(workspace)

    def changes(self, wanted: Iterable[WantedNames]) -> LinkChanges:
        """Compare the folder with the names that are wanted; change no name.

        A file that is no link to its image is a copy of it if its header says so.
        """
        hashes, inodes = self._found()
        unwanted = np.ones(len(hashes), bool)
        to_link = []
        copies = NamedCopies(self._workspace)
        for names, keys, wanted_inodes in wanted:
            index = find(np.fromiter(map(hash, names), np.int64, len(names)), hashes)
            present = index >= 0
            unwanted[index[present]] = False
            right = present.copy()
            if self._bare:
                right &= self._bare_copies.are_right(names, keys)
            else:
                right[present] = inodes[index[present]] == wanted_inodes[present]
                doubtful = np.flatnonzero(~right)
                right[doubtful] = copies.are_right(
                    [names[i] for i in doubtful], [keys[i] for i in doubtful], wanted_inodes[doubtful]
                )
            to_link += [NamedImage(names[i], keys[i]) for i in np.flatnonzero(~right)]
        copies.keep()
        return LinkChanges(to_link, list(self._images_of_ours(set(hashes[unwanted].tolist()))))

    def outdated_names(self, changes: LinkChanges) -> set[str]:
        """Return the names, relative to the output, that stand for another picture until the changes are made.

        A name that is absent, or whose file is torn, is among them: what a manifest says of it cannot be checked.
        """
        outdated = {image.name for image in changes.to_link if self.key_of(image.name) != image.key}
        return outdated | {path.relative_to(self._root).as_posix() for path in changes.to_remove}

    def apply(self, changes: LinkChanges) -> None:
        """Make the changes; remove folders that they leave empty."""
        for path in changes.to_remove:
            path.unlink(missing_ok=True)
            with suppress(OSError):  # not empty: it holds a name in use, or files of the user's own
                path.parent.rmdir()
        try:
            for image in changes.to_link:
                if self._bare:
                    self._bare_copies.write(image.key, image.name)
                else:
                    self._images.link(image.key, self._root / image.name)
        finally:
            self._bare_copies.keep()

    def key_of(self, name: str) -> str | None:
        """Return the key of the image that a name stands for, as its file tells; where it tells none, as remembered."""
        try:
            with open_regular(self._root / name) as file:
                header = read_header(file)
        except (OSError, ValueError):  # ValueError: a manifest broken by hand may name anything
            return None
        key = header.get("key") if header else None
        return key if isinstance(key, str) else self._bare_copies.key_of(name)

    def _images_of_ours(self, hashes: Container[int] | None) -> Iterator[Path]:
        """Yield the named files with these hashes that hold an image of ours: a user's own file has no key."""
        if not hashes:
            return
        for name, entry in self._entries():
            if hash(name) in hashes and self.key_of(name) is not None:
                yield Path(entry.path)

    def _entries(self) -> Iterator[tuple[str, os.DirEntry[str]]]:
        """Yield the files that are named like images of ours: (name relative to the output, entry)."""
        with os.scandir(self._root) as folders:
            ours = [one for one in folders if _FOLDER.fullmatch(one.name) and one.is_dir(follow_symlinks=False)]
        for found in in_threads(_named_files, portions_of(ours)):
            yield from found

    def _found(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint64]]:
        """Return the hash of every name, sorted, and its inode; a collision leaves a name to be linked once more.

        The inode comes with the directory entry: no file is looked at.
        """
        hashes, inodes = array("q"), array("Q")
        for name, entry in self._entries():
            hashes.append(hash(name))
            inodes.append(entry.inode())
        order = np.argsort(np.frombuffer(hashes, np.int64))
        return np.frombuffer(hashes, np.int64)[order], np.frombuffer(inodes, np.uint64)[order]


def _named_files(folders: Sequence[os.DirEntry[str]]) -> list[tuple[str, os.DirEntry[str]]]:
    found = []
    for folder in folders:
        with os.scandir(folder.path) as files:
            for file in files:
                final = final_name(file.name)
                name = final or file.name
                if not (name.startswith(folder.name) and _FILE.fullmatch(name)):
                    continue
                if final is not None:
                    remove_if_stale(Path(file.path))
                else:
                    found.append((f"{folder.name}/{name}", file))
    return found
