"""The thumbnails of an output, in files of up to `CHUNK` each: `.t2i/thumbnails/<name>.js`.

A chunk is a script, because a page that is opened from disk may load scripts and pictures, and nothing else; pictures
one by one would be a hundred thousand files. Its first line says which pictures it holds, so that nothing has to be
kept beside the chunks: they are the index. A chunk is named by its content and never changes.
"""

import base64
import hashlib
import json
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

import numpy as np
import numpy.typing as npt

from t2i_core.storage.files import atomic_write, entries, is_temporary, link_or_copy, remove_if_stale, temporary_beside
from t2i_core.storage.keys import KEY, Keys, find
from t2i_core.storage.thumbnails import LOOKS, Thumbnail

CHUNK = 32  # thumbnails in a file, at most
SUFFIX = ".js"
_START, _END = 'gallery.thumbnails("', "/*"


@dataclass(frozen=True, slots=True)
class ThumbnailIndex:
    """Which thumbnails there are, in columns of equal length, sorted by the hash of their pictures' pixels.

    Attributes:
        chunks: the names of the chunks; `chunk` has indices into it.
        slot: the place in the chunk.
        looks: float32, a column for each of `LOOKS`.
    """

    pixels: Keys
    chunk: npt.NDArray[np.int32]
    slot: npt.NDArray[np.int32]
    looks: npt.NDArray[np.float32]
    chunks: Sequence[str]

    def find(self, pixels: Keys) -> npt.NDArray[np.int64]:
        """Return, for each hash of pixels, its row in the columns; -1 where there is no thumbnail."""
        return find(pixels, self.pixels)


class ThumbnailStore:
    """The thumbnails of one output. Each goes by the hash of its picture's pixels, so that it is never outdated."""

    def __init__(self, root: Path) -> None:
        """`root` is the output folder as the user gave it."""
        self.folder = root / ".t2i/thumbnails"

    def write(self, thumbnails: Sequence[Thumbnail]) -> None:
        """Write up to `CHUNK` thumbnails as one chunk, whole or not at all."""
        lines = [json.dumps(base64.b64encode(item.data).decode("ascii")) + ",\n" for item in thumbnails]
        looks = {name: [getattr(item.look, name) for item in thumbnails] for name in LOOKS}
        header = json.dumps({"pixels": [item.pixels_sha256 for item in thumbnails], **looks}, separators=(",", ":"))
        name = hashlib.sha256("".join([header, *lines]).encode("ascii")).hexdigest()[:16]
        path = self.folder / (name + SUFFIX)
        if not path.exists():
            with atomic_write(path) as file:
                file.write(f'{_START}{name}",{_END}{header}*/[\n'.encode("ascii"))
                file.write("".join([*lines, "])\n"]).encode("ascii"))

    def index(self) -> ThumbnailIndex:
        """Return which thumbnails there are, from the first line of each chunk; what is no chunk is left out."""
        names: list[str] = []
        pixels, chunk, slot, looks = [np.empty(0, KEY)], [np.empty(0, np.int32)], [np.empty(0, np.int32)], []
        for entry in entries(self.folder):
            if is_temporary(entry.name):
                remove_if_stale(Path(entry.path))
                continue
            header = _header(Path(entry.path))
            if header is None:
                continue
            keys = np.array(header["pixels"], KEY)
            pixels.append(keys)
            chunk.append(np.full(len(keys), len(names), np.int32))
            slot.append(np.arange(len(keys), dtype=np.int32))
            looks.append(np.array([header[name] for name in LOOKS], np.float32).T)
            names.append(entry.name.removesuffix(SUFFIX))
        all_pixels = np.concatenate(pixels)
        all_looks = np.concatenate(looks) if looks else np.empty((0, len(LOOKS)), np.float32)
        order = np.argsort(all_pixels, kind="stable")
        return ThumbnailIndex(
            all_pixels[order], np.concatenate(chunk)[order], np.concatenate(slot)[order], all_looks[order], names
        )

    def read(self, chunk: str, slot: int) -> bytes:
        """Return the JPEG of a thumbnail of the index."""
        with (self.folder / (chunk + SUFFIX)).open("rb") as lines:
            for number, line in enumerate(lines):
                if number == slot + 1:
                    return base64.b64decode(json.loads(line.rstrip(b",\n")))
        raise IndexError(f"{chunk} has no thumbnail {slot}")

    def delete(self, chunk: str) -> None:
        """Delete a chunk, if it is there."""
        (self.folder / (chunk + SUFFIX)).unlink(missing_ok=True)

    def link(self, chunk: str, target: Path) -> None:
        """Make `target` a hard link to a chunk, or a copy where links do not work."""
        source = self.folder / (chunk + SUFFIX)
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = temporary_beside(target)
        link_or_copy(source, temporary)
        os.replace(temporary, target)
        temporary.unlink(missing_ok=True)  # renaming onto another link of the same file does nothing


class ThumbnailWriter:
    """Collects thumbnails from several threads, and writes them as chunks once they are full, and at the end.

    A chunk that cannot be written is no error: its thumbnails are made later, and images that go to the same disk say
    what is wrong with it.
    """

    def __init__(self, store: ThumbnailStore) -> None:
        self._store = store
        self._lock = Lock()
        self._waiting: list[Thumbnail] = []

    def add(self, thumbnail: Thumbnail) -> None:
        """Take a thumbnail; write a chunk where it is the last of one."""
        with self._lock:
            self._waiting.append(thumbnail)
            if len(self._waiting) < CHUNK:
                return
            full, self._waiting = self._waiting, []
        self._write(full)

    def close(self) -> None:
        """Write what is left."""
        with self._lock:
            rest, self._waiting = self._waiting, []
        if rest:
            self._write(rest)

    def _write(self, thumbnails: Sequence[Thumbnail]) -> None:
        with suppress(OSError):
            self._store.write(thumbnails)


def _header(path: Path) -> dict[str, list[float]] | None:
    """Return the first line of a chunk: hashes of pixels, and how the pictures look; None for another file."""
    try:
        with path.open("rb") as file:
            line = file.readline().decode("ascii")
    except (OSError, UnicodeDecodeError):
        return None
    start = f'{_START}{path.name.removesuffix(SUFFIX)}",{_END}'
    if not (line.startswith(start) and line.endswith("*/[\n")):
        return None
    header: dict[str, list[float]] = json.loads(line.removeprefix(start).removesuffix("*/[\n"))
    return header
