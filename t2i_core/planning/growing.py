"""A plan that is being written: its finished segments are joined with the records, while the next ones are written."""

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from t2i_core.planning.catalog import CatalogChunk, with_key
from t2i_core.planning.plan import specs_file
from t2i_core.storage.record_index import RecordIndex
from t2i_core.storage.tables import read_chunks

# Between two looks at whether a reader should stop waiting.
LOOK_SECONDS = 0.5


class Growth:
    """How many segments of a plan are written: one thread writes them and tells, others wait for them."""

    def __init__(self, should_stop: Callable[[], bool]) -> None:
        """Where `should_stop`, readers wait no longer and find the plan at its end."""
        self.should_stop = should_stop
        self._changed = threading.Condition()
        self._segments = self._images = 0
        self._ended = False
        self._error: BaseException | None = None

    def note(self, segments: int, images: int) -> None:
        """Note how many segments are written, with how many images in all.

        A plan that is begun again, after an error, has the same ones.
        """
        with self._changed:
            self._segments, self._images = max(self._segments, segments), max(self._images, images)
            self._changed.notify_all()

    def images(self) -> int:
        """Return how many images the segments have that are written by now."""
        return self._images

    def end(self, error: BaseException | None = None) -> None:
        """Note that no other segment comes, or why the plan cannot be written."""
        with self._changed:
            self._ended, self._error = True, error
            self._changed.notify_all()

    def wait_for_images(self) -> None:
        """Wait until a segment is written that has images, or the plan is at its end."""
        with self._changed:
            while not (self._images or self._ended or self.should_stop()):
                self._changed.wait(LOOK_SECONDS)

    def segments(self) -> Iterator[int]:
        """Yield the number of each segment once it is written, from 0.

        Raises:
            BaseException: the error that the writer ended with, after the segments that it wrote.
        """
        number = 0
        while self._wait_for(number):
            yield number
            number += 1
        if self._error is not None and not self.should_stop():
            raise self._error

    def _wait_for(self, number: int) -> bool:
        """Wait until a segment is written; return False where there is none."""
        with self._changed:
            while number >= self._segments and not self._ended and not self.should_stop():
                self._changed.wait(LOOK_SECONDS)
            return number < self._segments and not self.should_stop()


@dataclass(frozen=True, slots=True)
class GrowingCatalog:
    """The join of a plan that is being written and the records: what `Pending` needs of a `Catalog`."""

    plans: Path
    digest: str
    growth: Growth
    index: RecordIndex

    def chunks(self, columns: Sequence[str] | None = None) -> Iterator[CatalogChunk]:
        """Yield the image specs in data-set order as they are planned, with the columns asked for; None: all of them.

        Raises:
            BaseException: the error that the writer of the plan ended with.
        """
        for number in self.growth.segments():
            for chunk in read_chunks(specs_file(self.plans, self.digest, number), with_key(columns)):
                yield CatalogChunk(chunk, self.index.find(chunk["key"]))
