"""The bytes of images as an export holds them: as they are stored, or converted where another format was asked for."""

import io
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Any, TypeVar

from PIL import Image

from t2i_core.errors import OutputError
from t2i_core.output.finished import AGAIN
from t2i_core.storage.image_store import ImageStore

THREADS = 4
# Images that are read or converted ahead: each is in memory.
AHEAD = 16
SUFFIXES = {"png": ".png", "webp": ".webp", "jpeg": ".jpg"}
_SAVE: dict[str, dict[str, Any]] = {
    "png": {"compress_level": 6},
    "webp": {"lossless": True, "quality": 50},  # of a lossless file the quality is the effort
    "jpeg": {"quality": 95, "subsampling": 0},
}
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
        data = self.store.read(key)
        if data is None:
            raise OutputError(f"output: {self.store.location(key)} is gone; {AGAIN}")
        form = format_of(data)
        if self.image_format in (None, form):
            return data, SUFFIXES[form]
        try:
            return converted(data, str(self.image_format)), SUFFIXES[str(self.image_format)]
        except (OSError, ValueError, SyntaxError) as error:
            raise OutputError(f"output: {self.store.location(key)} cannot be decoded ({error}); {AGAIN}") from None


def format_of(data: bytes) -> str:
    """Return the format of an image's bytes, by the first of them: png, webp or jpeg."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    return "jpeg" if data[:3] == b"\xff\xd8\xff" else "png"


def converted(data: bytes, image_format: str) -> bytes:
    """Return an image in another format: png and webp keep every pixel, jpeg is of quality 95 in full colour."""
    buffer = io.BytesIO()
    with Image.open(io.BytesIO(data)) as image:
        image.convert("RGB").save(buffer, format=image_format.upper(), **_SAVE[image_format])
    return buffer.getvalue()
