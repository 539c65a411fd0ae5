"""Where the image files of an export are: in the output as they are, or in the export as links or copies."""

import os
from collections import deque
from concurrent.futures import Future
from pathlib import Path, PurePosixPath
from typing import Any

from t2i_core.export.images import AHEAD, Images
from t2i_core.export.samples import Sample
from t2i_core.storage.files import atomic_write, link_or_copy
from t2i_core.storage.promises import unless_lacking
from t2i_core.storage.suffixes import SUFFIXES

IN_PLACE, LINK, COPY = "in-place", "link", "copy"


class Placed:
    """Gives each sample the path of its image file, and brings the file there.

    Args:
        mode: in-place, link or copy; a converted image is always a file of its own.
        folder: where the export is being written; `target`: where it will be.
        previous: an earlier export with the same settings, whose files can be taken over.
        spread: whether files lie in 256 folders, by the first digits of their ids; no folder gets too large then.
    """

    def __init__(
        self, images: Images, mode: str, folder: Path, target: Path, previous: Path | None, spread: bool
    ) -> None:
        self.images, self.mode, self.spread = images, mode, spread
        self._folder, self._target, self._previous = folder, target, previous
        self._running: deque[Future[Any]] = deque()
        self._made: set[Path] = set()

    def root(self) -> Path:
        """Return the folder from which paths count, as an absolute path: the output, or the export."""
        return Path(os.path.abspath(self.images.store.root if self.mode == IN_PLACE else self._target))  # noqa: PTH100

    def place(self, sample: Sample, within: str) -> str:
        """Return the path of a sample's image, relative to `root`; `within` is the folder in the export."""
        location = self.images.store.location(sample.key)
        if self.mode == IN_PLACE:
            return location
        image_format = self.images.image_format
        suffix = SUFFIXES[image_format] if image_format else PurePosixPath(location).suffix
        path = f"{within}/{sample.id[:2]}/" if self.spread else f"{within}/"
        path += sample.id + suffix
        self.images.suffixes.add(suffix)
        target = self._folder / path
        if target.parent not in self._made:
            target.parent.mkdir(parents=True, exist_ok=True)
            self._made.add(target.parent)
        # A killed export may have left it.
        if not self._is_of(sample.key, target) and not self._take_over(sample.key, path, target):
            self._bring(sample.key, target)
        return path

    def close(self) -> None:
        """Wait for the files that are being copied or converted."""
        while self._running:
            self._running.popleft().result()

    def _is_of(self, key: str, path: Path) -> bool:
        """Return whether a file was made of the stored image as it is now: it has its time."""
        stored = self.images.store.stat(key)
        try:
            return stored is not None and path.stat().st_mtime_ns == stored.mtime_ns
        except FileNotFoundError:
            return False

    def _take_over(self, key: str, path: str, target: Path) -> bool:
        if self._previous is None or not self._is_of(key, self._previous / path):
            return False
        target.unlink(missing_ok=True)
        link_or_copy(self._previous / path, target)
        return True

    def _bring(self, key: str, target: Path) -> None:
        if self.mode == LINK and self.images.image_format is None:
            self.images.store.link(key, target)
            return
        while len(self._running) >= AHEAD:
            self._running.popleft().result()
        self._running.append(self.images.submit(self._write, key, target))

    def _write(self, key: str, target: Path) -> None:
        data, _ = self.images.read(key)
        with atomic_write(target) as file:
            file.write(data)
        stored = self.images.store.stat(key)
        if stored is not None:
            with unless_lacking("utime"):
                os.utime(target, ns=(stored.mtime_ns, stored.mtime_ns))
