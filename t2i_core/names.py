"""The names under which people find images: hard links from `sample0_condition0/...png` to the images by key."""

import json
import os
import re
import shutil
from array import array
from collections.abc import Container, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from t2i_core.images import read_header
from t2i_core.json_values import json_text
from t2i_core.keys import find
from t2i_core.output import ManifestForm
from t2i_core.spec import digest
from t2i_core.store import Store, atomic_write, is_temporary, remove_if_stale, temporary_beside

_FOLDER = re.compile(r".+_condition\d+")
_FILE = re.compile(r".+_condition\d+_\d+\.png")


@dataclass(frozen=True, slots=True)
class NamedImage:
    """A name relative to the output, and the key of the image it stands for."""

    name: str
    key: str


class WantedNames(NamedTuple):
    """Some of the names that an output should have, in columns of equal length."""

    names: list[str]
    keys: list[str]
    inodes: npt.NDArray[np.uint64]  # of the images by key


class Names:
    """The names in an output folder."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def differences(self, wanted: Iterable[WantedNames]) -> tuple[list[NamedImage], list[Path]]:
        """(names to set because they are absent or stand for another file, named images that nobody wants)."""
        hashes, inodes = self._found()
        unwanted = np.ones(len(hashes), bool)
        wrong = []
        for names, keys, wanted_inodes in wanted:
            places = find(np.fromiter(map(hash, names), np.int64, len(names)), hashes)
            there = places >= 0
            unwanted[places[there]] = False
            right = there.copy()
            right[there] = inodes[places[there]] == wanted_inodes[there]
            for i in np.flatnonzero(~right):
                image = NamedImage(names[i], keys[i])
                if not self._stands_for(image, int(wanted_inodes[i])):
                    wrong.append(image)
        # What is left over nobody wants; a user's own file has no key, whatever its name.
        left_over = set(hashes[unwanted].tolist())
        extra = [path for path in self._paths(left_over) if self.key_of(path) is not None] if left_over else []
        return wrong, extra

    def apply(self, wrong: Iterable[NamedImage], extra: Iterable[Path]) -> None:
        """Make every name of `wrong` stand for its image, and remove `extra` with the folders they leave empty."""
        for path in extra:
            path.unlink(missing_ok=True)
            with suppress(OSError):  # not empty: it holds a name in use, or files of the user's own
                path.parent.rmdir()
        for image in wrong:
            self._set(self._store.root / image.name, self._store.image_path(image.key))

    def key_of(self, path: Path) -> str | None:
        """The key of the image that a named file stands for, read from the file itself."""
        header = read_header(path)
        key = header.get("key") if header else None
        return key if isinstance(key, str) else None

    def _stands_for(self, image: NamedImage, inode: int) -> bool:
        """The careful look: on some file systems a directory entry has another inode than its file."""
        try:
            status = os.stat(self._store.root / image.name, follow_symlinks=False)
            if status.st_ino == inode or status.st_nlink > 1:
                return status.st_ino == inode
            # A copy, where links do not work: it keeps size and time of its image.
            original = os.stat(self._store.image_path(image.key))
        except OSError:
            return False
        return (status.st_size, status.st_mtime_ns) == (original.st_size, original.st_mtime_ns)

    def _set(self, path: Path, image: Path) -> None:
        path.parent.mkdir(exist_ok=True)
        temporary = temporary_beside(path)
        try:
            os.link(image, temporary)
        except OSError:
            shutil.copy2(image, temporary)
        os.replace(temporary, path)
        # Renaming onto another link of the same file does nothing: two runs may set one name at once.
        temporary.unlink(missing_ok=True)

    def _entries(self) -> Iterator[tuple[str, os.DirEntry[str]]]:
        """Files that are named like images of ours: (name relative to the output, entry)."""
        with os.scandir(self._store.root) as folders:
            for folder in folders:
                if not (_FOLDER.fullmatch(folder.name) and folder.is_dir(follow_symlinks=False)):
                    continue
                with os.scandir(folder.path) as files:
                    for file in files:
                        if is_temporary(file.name):
                            remove_if_stale(Path(file.path))
                        elif file.name.startswith(folder.name) and _FILE.fullmatch(file.name):
                            yield f"{folder.name}/{file.name}", file

    def _found(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint64]]:
        """The hash of every name, sorted, and its inode; a collision leaves a name to be set once more.

        The inode comes with the directory entry: no file is looked at.
        """
        hashes, inodes = array("q"), array("Q")
        for name, entry in self._entries():
            hashes.append(hash(name))
            inodes.append(entry.inode())
        order = np.argsort(np.frombuffer(hashes, np.int64))
        return np.frombuffer(hashes, np.int64)[order], np.frombuffer(inodes, np.uint64)[order]

    def _paths(self, hashes: Container[int]) -> list[Path]:
        return [Path(entry.path) for name, entry in self._entries() if hash(name) in hashes]


def names_in(manifest: Path, form: ManifestForm) -> Iterator[str]:
    """The names, relative to the output, that a manifest gives its images."""
    for row in _rows(manifest):
        for path in _paths(row, form):
            if isinstance(path, str) and path.startswith(form.prefix):
                yield path.removeprefix(form.prefix)


def retire_manifest(manifest: Path, form: ManifestForm, store: Store, names: Names) -> None:
    """Move a manifest to `.t2i/manifests/`, its names rewritten to paths by key, before any name changes its meaning.

    What it says there stays true until an image is pruned; a name whose picture cannot be told any more is left out.
    Done before the first name changes; until the new manifest is written there is none, so at no instant does a
    manifest name a wrong picture.
    """

    def by_key(path: object) -> object:
        if not (isinstance(path, str) and path.startswith(form.prefix)):
            return path  # an image the row came with
        key = names.key_of(store.root / path.removeprefix(form.prefix))
        return None if key is None else form.prefix + store.image_path(key).relative_to(store.root).as_posix()

    target = store.manifests / f"{digest([manifest.stat().st_mtime_ns, manifest.name])[:16]}.jsonl"
    with atomic_write(target) as file:
        for row in _rows(manifest):
            if _paths(row, form):
                row[form.image_key] = [new for path in _paths(row, form) if (new := by_key(path)) is not None]
            file.write((json_text(row) + "\n").encode())
    manifest.unlink(missing_ok=True)


def _rows(manifest: Path) -> Iterator[dict[str, Any]]:
    """The rows of a manifest of ours; a line that somebody broke by hand is passed over."""
    with manifest.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            with suppress(ValueError):
                row = json.loads(line)
                if isinstance(row, dict):
                    yield row


def _paths(row: dict[str, Any], form: ManifestForm) -> list[object]:
    paths = row.get(form.image_key)
    return paths if isinstance(paths, list) else []
