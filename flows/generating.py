"""The shards of a run: submitted through a window, taken as they end, tried again where a process died under them."""

import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import chain
from queue import Empty, SimpleQueue
from typing import Any

from prefect.futures import PrefectFuture

from flows.runners import Workers
from t2i_core.errors import UserError
from t2i_core.planning.shards import Shard
from t2i_core.storage.run_marks import RunMarks
from tasks.elsewhere import HANG_SECONDS
from tasks.process import THIS_PROCESS
from tasks.progress import Progress

log = logging.getLogger(__name__)

# Shards submitted and unfinished, for each process: one that generates, one whose last images are being written, and
# one that is next. It bounds what Prefect holds: to submit a million images at once would hold them all.
WINDOW = 3
# Between two looks at what processes tell, and at whether they live.
LOOK_SECONDS = 1.0
# How long a run waits for a process where all have died.
NO_WORKER_SECONDS = 600.0
# How long a run waits for an image: longer than a process that hangs waits before it ends itself.
NO_NEWS_SECONDS = 2 * HANG_SECONDS
# So often a single image, alone, may end its process before it is called a failure: once may be chance.
DEATHS = 2


class Lost:
    """In place of a shard's result: its process died, perhaps because of another shard."""


class NoWorkers(Exception):
    """No process is left to generate, or those that live make nothing."""


class Generating:
    """What a run generates.

    Attributes:
        errors: key -> why the image could not be made in this run.
        timings: seconds by stage, of the shards that ended well.
        seconds: how long it took.
    """

    def __init__(self, workers: Workers, marks: RunMarks) -> None:
        self.errors: dict[str, str] = {}
        self.timings: Counter[str] = Counter()
        self.seconds = 0.0
        self.workers = workers
        self._marks = marks
        self._done = 0  # images of shards that ended
        self._in_flight: dict[str, tuple[Shard, PrefectFuture[Any]]] = {}  # by the digest of the shard
        self._ended: SimpleQueue[str] = SimpleQueue()
        self._again: deque[Shard] = deque()  # shards whose process died once
        self._suspects: list[Shard] = []  # shards whose process died twice; the last one is next
        self._last_alive = self._last_news = 0.0  # when a process lived, and when an image or a shard was made
        self._told: Counter[str] = Counter()  # images by shard, of those in flight

    def __call__(self, shards: Iterator[Shard], submit: Callable[[Shard], PrefectFuture[Any]], shown: Progress) -> None:
        """Generate `shards` until all have ended, or a stop is asked for.

        Raises:
            UserError: that of a shard, which every other shard would meet, too.
        """
        started = time.perf_counter()
        self._last_alive = self._last_news = time.monotonic()
        self._marks.begin()
        try:
            self._generate(shards, submit, shown)
            self._generate_alone(submit, shown)
        except NoWorkers as error:
            log.error("workers   %s; run the same command again to go on", error)
            in_flight = [shard for shard, _ in self._in_flight.values()]
            for shard in chain(in_flight, self._again, self._suspects, shards):
                self._fail(shard, str(error))
        except UserError:
            self._ask_to_stop()  # the other shards in flight would meet the same
            raise
        finally:
            self.seconds = time.perf_counter() - started

    def stop(self, seconds: float) -> None:
        """Stop the shards in flight at their next denoising step, and wait for them, but no longer than `seconds`."""
        deadline = time.monotonic() + seconds
        self._ask_to_stop()
        if not THIS_PROCESS.wait_until_idle(seconds):
            THIS_PROCESS.give_up()
        if self.workers.count > 1:
            with suppress(Empty):
                while self._in_flight:
                    del self._in_flight[self._ended.get(timeout=max(0.0, deadline - time.monotonic()))]

    def end(self) -> None:
        """Forget what the processes of this run told."""
        self._marks.end()

    def _generate(self, shards: Iterator[Shard], submit: Callable[[Shard], Any], shown: Progress) -> None:
        """Generate all shards; those whose process died twice are left over in `_suspects`."""
        died: set[str] = set()
        window = WINDOW * self.workers.count
        while True:
            while len(self._in_flight) < window and (shard := self._next(shards)) is not None:
                self._submit(shard, submit)
            if not self._in_flight or (ended := self._wait(shown)) is None:
                return
            shard, result = ended
            if not isinstance(result, Lost):
                self._note(shard, result, shown)
            elif shard.digest in died:
                self._suspects.append(shard)
            else:
                died.add(shard.digest)
                self._again.append(shard)

    def _generate_alone(self, submit: Callable[[Shard], Any], shown: Progress) -> None:
        """Generate each suspect while nothing else runs; in halves, down to the image that ends its process."""
        deaths: Counter[str] = Counter()
        while self._suspects:
            shard = self._suspects[-1]
            self._submit(shard, submit)
            if (ended := self._wait(shown)) is None:
                return
            _, result = ended
            self._suspects.pop()
            if not isinstance(result, Lost):
                self._note(shard, result, shown)
                continue
            deaths[shard.digest] += 1
            if len(shard.requests) > 1:
                self._suspects += reversed(shard.halves())
            elif deaths[shard.digest] < DEATHS:
                self._suspects.append(shard)
            else:
                self._fail(shard, f"its process died whenever it was made, {DEATHS} times alone")

    def _next(self, shards: Iterator[Shard]) -> Shard | None:
        return self._again.popleft() if self._again else next(shards, None)

    def _submit(self, shard: Shard, submit: Callable[[Shard], PrefectFuture[Any]]) -> None:
        digest, future = shard.digest, submit(shard)
        self._in_flight[digest] = shard, future
        future.add_done_callback(lambda _: self._ended.put(digest))

    def _wait(self, shown: Progress) -> tuple[Shard, object] | None:
        """Return the next shard that ended, and its result; None once a stop is asked for.

        Raises:
            NoWorkers: all processes have died, and none came back; or those that live make nothing.
        """
        while not THIS_PROCESS.stop.is_set():
            try:
                shard, future = self._in_flight.pop(self._ended.get(timeout=LOOK_SECONDS))
            except Empty:
                if self.workers.count > 1:
                    self._look(shown)
                continue
            if THIS_PROCESS.stop.is_set():
                break
            self._last_news = time.monotonic()
            try:
                return shard, future.result(raise_on_failure=False)
            except self.workers.losses:
                log.warning("workers   shard %d was on a process that died; it is tried again", shard.number)
                return shard, Lost()
        return None

    def _look(self, shown: Progress) -> None:
        """Show what processes tell of the shards in flight, and see whether any of them lives."""
        told, now = self._marks.images(), time.monotonic()
        shown.reach(self._done + sum(told[digest] for digest in self._in_flight))
        if told != self._told:
            self._told, self._last_news = told, now
        if self.workers.alive():
            self._last_alive = now
        if now - self._last_alive > NO_WORKER_SECONDS:
            raise NoWorkers(f"all processes died, and none came back for {NO_WORKER_SECONDS:.0f} s")
        if now - self._last_news > NO_NEWS_SECONDS:
            raise NoWorkers(f"no process made anything for {NO_NEWS_SECONDS:.0f} s")

    def _note(self, shard: Shard, result: object, shown: Progress) -> None:
        """Note why images of a shard failed. A finished shard gives a reason for each; a crashed one gives one for all.

        Images that are stored count all the same.

        Raises:
            UserError: that of the shard.
        """
        if isinstance(result, dict):
            self.timings.update(result["timings"])
            self.errors |= result["failures"]
        elif isinstance(result, UserError):
            raise result
        elif isinstance(result, BaseException):
            self._fail(shard, f"its shard failed: {type(result).__name__}: {result}")
        self._done += len(shard.requests)
        shown.reach(self._done)

    def _fail(self, shard: Shard, reason: str) -> None:
        self.errors |= {request.replaces or request.key: reason for request in shard.requests}

    def _ask_to_stop(self) -> None:
        THIS_PROCESS.stop.set()
        self._marks.ask_to_stop()
