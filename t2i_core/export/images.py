"""The bytes of images as an export holds them: as they are stored, or converted where another format was asked for."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Any, TypeVar

from PIL import Image

from t2i_core.errors import DamagedImage, OutputError
from t2i_core.output.finished import AGAIN
from t2i_core.storage.formats import FORMATS, Encoding, read_image
from t2i_core.storage.image_store import ImageStore
from t2i_core.storage.suffixes import PNG, SUFFIXES

THREADS = 4
# Images that are read or converted ahead: each is in memory.
AHEAD = 16
T = TypeVar("T")
R = TypeVar("R")


class Images:
    """Reads stored images by key; with `image_format` (png, webp, jpeg) it converts those of another format."""

    def __init__(self, store: ImageStore, image_format: str | None) -> None:
        self.store, self.image_format = store, image_format
        self.suffixes: set[str] = set()  # of what was read
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="export")

    def read(self, key: str) -> tuple[bytes, str]:
        """Return the bytes of an image, and the suffix of a file of them.

        Raises:
            OutputError: if it is gone or cannot be decoded.
        """
        data, suffix = self._read(key)
        self.suffixes.add(suffix)
        return data, suffix

    def picture(self, key: str) -> Image.Image:
        """Return the pixels of an image (RGB).

        Raises:
            OutputError: if it is gone or damaged.
        """
        return self._decoded(key, self._stored(key))

    def submit(self, function: Callable[..., R], *arguments: Any) -> "Future[R]":
        """Run a function in one of the threads that read and convert."""
        return self._pool.submit(function, *arguments)

    def ahead(self, function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
        """Yield `function` of each item in order, while the next ones are worked on in threads."""
        items = iter(items)
        running = [self.submit(function, item) for item in islice(items, AHEAD)]
        while running:
            result = running.pop(0).result()
            running += [self.submit(function, item) for item in islice(items, 1)]
            yield result

    def close(self) -> None:
        """End the threads; what was not begun is not done."""
        self._pool.shutdown(cancel_futures=True)

    def _read(self, key: str) -> tuple[bytes, str]:
        data = self._stored(key)
        form = format_of(data)
        if self.image_format is None or self.image_format == form:
            return data, SUFFIXES[form]
        image = self._decoded(key, data)
        return FORMATS[self.image_format].encode(image, Encoding(self.image_format)), SUFFIXES[self.image_format]

    def _stored(self, key: str) -> bytes:
        data = self.store.read(key)
        if data is None:
            raise OutputError(f"output: {self.store.location(key)} is gone; {AGAIN}")
        return data

    def _decoded(self, key: str, data: bytes) -> Image.Image:
        try:
            return read_image(data).image
        except DamagedImage as error:
            raise OutputError(f"output: {self.store.location(key)} is damaged: {error}; {AGAIN}") from None


def format_of(data: bytes) -> str:
    """Return the format of an image's bytes, by the first of them."""
    return next((name for name, known in FORMATS.items() if data.startswith(known.starts)), PNG)
