"""From drawn pixels to files: checked, encoded and written by threads, beside the drawing of the next batch."""

import errno
import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from threading import BoundedSemaphore

from t2i_core.drawing import Drawn, Timings
from t2i_core.errors import OutputError
from t2i_core.records import ImageRecord
from t2i_core.shards import Order

# PNG encoding and hashing release the GIL. More than four threads outpace any one GPU.
THREADS = min(4, os.cpu_count() or 1)
# What a disk says of every further image, too: it would be a waste to go on drawing.
_LASTING = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}

# An image to make, and the drawn one or why it could not be drawn -> its record.
Write = Callable[[Order, Drawn | Exception], ImageRecord]


class ImageWriter:
    """Writes images in threads, `pending` at most at a time, so that pixels never pile up in memory."""

    def __init__(self, write: Write, pending: int, timings: Timings) -> None:
        self._write = write
        self._slots = BoundedSemaphore(pending)
        self._timings = timings
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="write image")
        self._futures: list[tuple[Order, Future[ImageRecord]]] = []
        self._disk_error: OutputError | None = None

    @contextmanager
    def draining_on_error(self) -> Iterator[None]:
        """Where drawing ends early, for a stop or an error, what was handed in before is still written."""
        try:
            yield
        except BaseException:
            self._pool.shutdown(wait=True)
            raise

    def submit(self, order: Order, drawn: Drawn | Exception) -> None:
        """Hand in an image, or why it could not be drawn; waits while too many are pending.

        Raises:
            OutputError: once the disk is full or read-only.
        """
        with self._timings.measure("waiting for writers"):
            self._slots.acquire()
        if self._disk_error:
            self._slots.release()
            raise self._disk_error
        self._futures.append((order, self._pool.submit(self._run, order, drawn)))

    def finish(self) -> list[tuple[Order, ImageRecord | Exception]]:
        """Wait for everything handed in: the record of each image, or why it could not be written.

        Raises:
            OutputError: if the disk is full or read-only.
        """
        self._pool.shutdown(wait=True)
        outcomes: list[tuple[Order, ImageRecord | Exception]] = []
        for order, future in self._futures:
            error = future.exception()
            if error is not None and not isinstance(error, Exception):
                raise error
            outcomes.append((order, error or future.result()))
        if self._disk_error:
            raise self._disk_error
        return outcomes

    def _run(self, order: Order, drawn: Drawn | Exception) -> ImageRecord:
        try:
            return self._write(order, drawn)
        except OSError as error:
            if error.errno in _LASTING:
                self._disk_error = OutputError(
                    f"output: {error.filename or 'the disk'}: {error.strerror}; what is there is kept: "
                    "make room (--prune deletes images that no manifest names) and run the same command again"
                )
            raise
        finally:
            self._slots.release()
