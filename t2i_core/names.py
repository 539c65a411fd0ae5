"""The names under which people find images: hard links from `sample0_condition0/...png` to the images by key."""

import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from t2i_core.images import read_header
from t2i_core.spec import digest
from t2i_core.store import Store, atomic_write, remove_if_stale

_FOLDER = re.compile(r".+_condition\d+")
_FILE = re.compile(r"(?P<folder>.+_condition\d+)_\d+\.png")


@dataclass(frozen=True, slots=True)
class NamedImage:
    """A name relative to the output, and the key of the image it stands for."""

    name: str
    key: str


class Names:
    """The names in an output folder."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def differences(self, wanted: Iterable[tuple[NamedImage, int]]) -> tuple[list[NamedImage], list[Path]]:
        """(names to set because they are absent or stand for another file, named images that nobody wants).

        `wanted`: each name with the inode of its image.
        """
        wrong: list[NamedImage] = []
        names: set[int] = set()  # hashes: half the memory of the strings; a collision only leaves a stale name
        for image, inode in wanted:
            if not self._stands_for(image, inode):
                wrong.append(image)
            names.add(hash(image.name))
        # A user's own file has no key, whatever its name.
        extra = [path for path in self._others(names) if self.key_of(path) is not None]
        return wrong, extra

    def apply(self, wrong: Iterable[NamedImage], extra: Iterable[Path]) -> None:
        """Make every name of `wrong` stand for its image, and remove `extra` with the folders they leave empty."""
        for path in extra:
            path.unlink()
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
        try:
            status = os.stat(self._store.root / image.name, follow_symlinks=False)
        except OSError:
            return False
        if status.st_ino == inode:
            return True
        if status.st_nlink > 1:
            return False
        # A copy, where links do not work: it keeps size and time of its image.
        original = os.stat(self._store.image_path(image.key))
        return (status.st_size, status.st_mtime_ns) == (original.st_size, original.st_mtime_ns)

    def _set(self, path: Path, image: Path) -> None:
        path.parent.mkdir(exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        temporary.unlink(missing_ok=True)
        try:
            os.link(image, temporary)
        except OSError:
            shutil.copy2(image, temporary)
        os.replace(temporary, path)
        # Renaming onto another link of the same file does nothing: two runs may set one name at once.
        temporary.unlink(missing_ok=True)

    def _others(self, names: set[int]) -> Iterator[Path]:
        """Files that are named like images of ours and are not among `names` (hashes, for speed checked first)."""
        with os.scandir(self._store.root) as folders:
            for folder in folders:
                if not (_FOLDER.fullmatch(folder.name) and folder.is_dir(follow_symlinks=False)):
                    continue
                with os.scandir(folder.path) as files:
                    for file in files:
                        if hash(f"{folder.name}/{file.name}") in names:
                            continue
                        if file.name.endswith(".tmp"):
                            remove_if_stale(Path(file.path))
                        match = _FILE.fullmatch(file.name)
                        if match and match["folder"] == folder.name:
                            yield Path(file.path)


def retire_manifest(manifest: Path, prefix: str, store: Store, names: Names, image_key: str) -> None:
    """Move a manifest to `.t2i/manifests/`, its names rewritten to paths by key, before any name changes its meaning.

    What it says there stays true for ever. Done before the first name changes; until the new manifest is written there
    is none, so at no instant does a manifest name a wrong picture.
    """
    target = store.manifests / f"{digest([manifest.stat().st_mtime_ns, manifest.name])[:16]}.jsonl"
    with atomic_write(target) as file, manifest.open(encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            paths = row.get(image_key)
            if isinstance(paths, list):
                row[image_key] = [_by_key(path, prefix, store, names) for path in paths]
            file.write((json.dumps(row, ensure_ascii=False) + "\n").encode())
    manifest.unlink()


def _by_key(path: object, prefix: str, store: Store, names: Names) -> object:
    if not (isinstance(path, str) and path.startswith(prefix)):
        return path  # not ours: an image the row came with
    key = names.key_of(store.root / path.removeprefix(prefix))
    return path if key is None else prefix + store.image_path(key).relative_to(store.root).as_posix()
