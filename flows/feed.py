"""The shards of a run, made in a thread ahead of their use: whoever takes them does not wait for the data set."""

import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from contextvars import copy_context
from queue import Empty, Full, Queue
from types import TracebackType
from typing import Self

from t2i_core.planning.shards import Shard

# Shards that are made and not yet taken.
AHEAD = 1
# How long the end waits for the thread.
END_SECONDS = 1.0
# Between two looks at whether no more shards are wanted.
LOOK_SECONDS = 0.5


class Feed:
    """Shards of an iterator that may wait long for its next one: as long as the data set is still read.

    A context manager: it makes no more shards after its block.
    """

    def __init__(self, shards: Iterator[Shard], on_news: Callable[[], None]) -> None:
        """`on_news` is called in the feed's thread, when a shard is there, and when no other one comes."""
        self._shards, self._on_news = shards, on_news
        self._ahead: Queue[Shard] = Queue(AHEAD)
        self._left, self._ended = threading.Event(), threading.Event()
        self._error: BaseException | None = None

    def __enter__(self) -> Self:
        # Its log lines belong to the flow run of the caller.
        self._thread = threading.Thread(target=copy_context().run, args=(self._make,), name="feed", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._left.set()
        self._thread.join(END_SECONDS)  # it may be in the midst of a long look for the next shard

    def poll(self) -> Shard | None:
        """Return the next shard; None where none is there by now, or `is_over`."""
        try:
            return self._ahead.get_nowait()
        except Empty:
            return None

    def is_over(self) -> bool:
        """Return whether all shards were taken, and no other one comes.

        Raises:
            BaseException: what the iterator ended with, once the shards before it were taken.
        """
        if not (self._ended.is_set() and self._ahead.empty()):
            return False
        if self._error is not None:
            raise self._error
        return True

    def is_waiting(self) -> bool:
        """Return whether no shard is there by now, and others may come."""
        return self._ahead.empty() and not self._ended.is_set()

    def rest(self) -> Iterator[Shard]:
        """Yield all shards that were not taken; wait for each.

        Raises:
            BaseException: what the iterator ended with.
        """
        while not self.is_over():
            with suppress(Empty):
                yield self._ahead.get(timeout=LOOK_SECONDS)

    def _make(self) -> None:
        try:
            for shard in self._shards:
                if not self._hand_over(shard):
                    return
        except BaseException as error:  # raised where the shards are taken
            self._error = error
        finally:
            self._ended.set()
            self._on_news()

    def _hand_over(self, shard: Shard) -> bool:
        """Wait for room, and give the shard; return False if no more are wanted."""
        while not self._left.is_set():
            try:
                self._ahead.put(shard, timeout=LOOK_SECONDS)
            except Full:
                continue
            self._on_news()
            return True
        return False
