"""The shards of a run: submitted to processes, taken as they end, tried again where a process died under them."""

import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from itertools import chain
from queue import Empty, SimpleQueue
from typing import Any

from prefect.exceptions import CancelledRun
from prefect.futures import PrefectFuture

from flows import vigil
from flows.feed import Feed
from flows.flights import Flight, Work, reason_of
from flows.standing import Standing
from flows.vigil import NoWorkers, Vigil
from flows.workers import RunToJoin, Workers
from t2i_core.errors import DeviceLost, UserError
from t2i_core.generation.image_writer import RunContext
from t2i_core.planning.shards import Shard
from t2i_core.storage.run_marks import RunMarks, Told
from tasks.caching import ResultCache
from tasks.generation import record_failures_task
from tasks.process import HANG_SECONDS, THIS_PROCESS
from tasks.progress import Progress

log = logging.getLogger(__name__)

# Submits a shard to a process, given by its place.
Submit = Callable[[Shard, str], PrefectFuture[Any]]

# Shards submitted and unfinished, for each process: one that generates, one whose last images are being written, and
# one that is next. It bounds what Prefect holds: to submit a million images at once would hold them all.
WINDOW = 3
# In the queue of shards that ended, in place of a shard's number: the feed has news.
NEWS = 0
# Between two looks at what processes tell, and at whether they live.
LOOK_SECONDS = 1.0
# How long the result of a shard that ended is waited for: its process may die before it is fetched.
RESULT_SECONDS = 60.0
# So often a single image, alone, may end its process before it is called a failure: once may be chance.
DEATHS = 2
DEADLY = f"its process died whenever it was made, {DEATHS} times alone"


def record_death(cache: ResultCache, context: RunContext, workers: Workers, shard: Shard) -> None:
    """Store that an image ends its process, so that the next run does not make it again without being asked."""
    device, versions = workers.device() or "unknown", workers.versions()
    cache.call_afresh(record_failures_task, shard.digest, shard, DEADLY, context, device, versions)


class Generating:
    """What a run generates.

    Attributes:
        errors: key -> why the image could not be made in this run.
        timings: seconds by stage, of the shards that ended well.
        seconds: how long it took.
        deadly: images that ended their process whenever they were made, in shards of one.
        standing: how the processes fared.
        gave_up: whether no process was left, or none made anything.
    """

    def __init__(self, workers: Workers, marks: RunMarks) -> None:
        self.errors: dict[str, str] = {}
        self.timings: Counter[str] = Counter()
        self.seconds = 0.0
        self.deadly: list[Shard] = []
        self.standing = Standing(workers)
        self.gave_up = False
        self.workers = workers
        self._marks = marks
        self._started, self._signing = False, ExitStack()
        self._done = 0  # images of shards that ended
        self._flights: dict[int, Flight] = {}
        self._submitted = 0
        self._ended: SimpleQueue[int] = SimpleQueue()
        self._again: deque[Work] = deque()
        self._suspects: deque[Work] = deque()  # whose process died twice: each is tried alone, after all others
        self._dead: set[str] = set()  # places whose process died
        self._vigil = Vigil(workers)

    def start(self, run: RunToJoin) -> None:
        """Start the processes, beside whatever comes next; a second time they are there already."""
        if self.workers.apart and not self._started:
            self._marks.begin()
            self._signing.enter_context(self._marks.signing())
        self._started = True
        self.workers.start(run)

    def __call__(
        self, shards: Iterator[Shard], submit: Submit, shown: Progress, record: Callable[[Shard], None]
    ) -> None:
        """Generate `shards` until all have ended, or a stop is asked for.

        `record` is told at once of an image that ends its process, in a shard of one: a stop must not forget it.

        Raises:
            UserError: that of a shard, which every other shard would meet, too.
        """
        started, self._record = time.perf_counter(), record
        self._vigil.begin()
        try:
            with Feed(shards, lambda: self._ended.put(NEWS)) as feed:
                try:
                    self._generate(feed, submit, shown)
                except NoWorkers as error:
                    self.gave_up = True
                    log.error("workers   %s; run the same command again to go on", error)
                    left = chain((flight.work for flight in self._flights.values()), self._again, self._suspects)
                    for shard in chain((work.shard for work in left), feed.rest()):
                        self._fail(shard, str(error))
        except Exception:  # that of a shard, which the others in flight would meet, too; or they would be waited for
            self._ask_to_stop()
            raise
        finally:
            self.seconds = time.perf_counter() - started

    def stop(self, seconds: float) -> None:
        """Stop the shards in flight at their next denoising step, and wait for them, but no longer than `seconds`."""
        deadline = time.monotonic() + seconds
        self._ask_to_stop()
        if not THIS_PROCESS.wait_until_idle(seconds):
            THIS_PROCESS.give_up()
        while self.workers.apart and self._flights and (left := deadline - time.monotonic()) > 0:
            with suppress(Empty):  # in short waits: a Ctrl-C that comes just before one is heeded only after it
                self._flights.pop(self._ended.get(timeout=min(left, LOOK_SECONDS)), None)

    def end(self) -> None:
        """End the processes, and forget what they told."""
        try:
            self._signing.close()
            if self.workers.apart:
                self._marks.end()
            with suppress(Empty):
                while True:
                    self._flights.pop(self._ended.get_nowait(), None)
            for flight in self._flights.values():
                self.workers.abandon(flight.future)
        finally:
            self.workers.end()

    def _generate(self, feed: Feed, submit: Submit, shown: Progress) -> None:
        looked = time.monotonic()
        while not THIS_PROCESS.stop.is_set():
            self._look_for_lost()
            while (picked := self._pick(feed)) is not None:
                self._submit(*picked, submit)
            if not (self._flights or self._again):
                if feed.is_waiting():
                    self._vigil.wait_for_data_set()
                elif not self._suspects and feed.is_over():
                    return
            with suppress(Empty):
                number = self._ended.get(timeout=LOOK_SECONDS)
                if THIS_PROCESS.stop.is_set():
                    self._ended.put(number)  # for `stop`, which waits for it
                elif number in self._flights:  # one that was given up may end all the same
                    self._take(self._flights.pop(number), shown)
            self._forgive_sleep()
            if THIS_PROCESS.hangs():
                THIS_PROCESS.give_up()
                raise NoWorkers(f"the device hangs: no step and no image for {HANG_SECONDS:.0f} s")
            if self.workers.apart and time.monotonic() - looked > LOOK_SECONDS:
                self._look(shown)
                looked = time.monotonic()

    def _forgive_sleep(self) -> None:
        """Count no time in which this process was itself stopped."""
        if seconds := self._vigil.slept():
            THIS_PROCESS.forgive(seconds)
            for flight in self._flights.values():
                flight.since += seconds

    def _pick(self, feed: Feed) -> tuple[Work, str] | None:
        """Return what is submitted next, and to which process; None as long as all have enough."""
        ready = self.standing.ready()
        loads = Counter(flight.place for flight in self._flights.values())
        alone = {flight.place for flight in self._flights.values() if flight.work.alone}
        with_room = [place for place in ready if loads[place] < WINDOW and place not in alone]
        in_hand: Counter[str] = Counter()
        for flight in self._flights.values():
            in_hand[flight.place] += len(flight.work.shard.batches)
        with_room.sort(key=lambda place: in_hand[place])
        if not with_room:
            return None
        for work in self._again:
            if (place := self._better(work, with_room)) is not None:
                self._again.remove(work)
                return work, place
        if (shard := feed.poll()) is not None:
            return Work(shard), with_room[0]
        if self._again or not feed.is_over() or any(not flight.work.alone for flight in self._flights.values()):
            return None
        idle = [place for place in ready if not loads[place]]
        for work in self._suspects if idle else ():
            if (place := self._better(work, idle)) is not None:
                self._suspects.remove(work)
                work.leave_company()
                return work, place
        return None

    def _better(self, work: Work, free: list[str]) -> str | None:
        """Return a free process on which the work was not tried yet; any free one where it was tried on all of them."""
        untried = self.standing.untried(work)
        return next((place for place in free if self.workers.seat(place) in untried or not untried), None)

    def _submit(self, work: Work, place: str, submit: Submit) -> None:
        self._submitted += 1
        number, now = self._submitted, self._vigil.submitted(place)
        future = submit(work.shard, place)
        self._flights[number] = Flight(work, place, self.workers.seat(place), self.workers.title(place), now, future)
        future.add_done_callback(lambda _: self._ended.put(number))

    def _take(self, flight: Flight, shown: Progress) -> None:
        """Take the result of a shard that ended; decide what becomes of it."""
        try:
            result = flight.future.result(timeout=RESULT_SECONDS, raise_on_failure=False)
        except self.workers.deaths:
            self._died(flight)
            return
        except self.workers.losses:
            log.warning("workers   shard %d was lost on the way; it is tried again", flight.work.shard.number)
            self._give_up(flight)
            self._put_back(flight.work)
            return
        except Exception as error:  # its result is stored and cannot be read: a file system, perhaps
            result = error
        if isinstance(result, CancelledRun) and self.workers.apart:
            self._called_off(flight)
            return
        self._vigil.ended(flight.place)
        self._note(flight, result, shown)

    def _called_off(self, flight: Flight) -> None:
        """Try a shard again that its process stopped by itself, because it heard nothing of this run for a while.

        The run may have hung; then the process may not have heard yet that it is back, and gets no other shard for a
        while. Where others made something in the meantime, the fault is its own.
        """
        log.warning("workers   shard %d was stopped, for %s heard nothing", flight.work.shard.number, flight.title)
        place = flight.place
        if not self.standing.rests(place):
            if self._vigil.others_heard(flight):
                self.standing.strike(flight, "it hears nothing of the run, and others do")
            with suppress(OSError):  # the output is out of reach
                self._marks.begin()
            self.standing.rest(place)
        self._put_back(flight.work)

    def _look_for_lost(self) -> None:
        """Take what was on processes that are gone."""
        lost = self.workers.lost({flight.place for flight in self._flights.values()})
        for number, flight in list(self._flights.items()):
            if flight.place in lost:
                del self._flights[number]
                self._died(flight)

    def _look(self, shown: Progress) -> None:
        """Show what processes tell of the shards in flight, and see whether any of them makes something.

        Raises:
            NoWorkers: all processes have died, and none came back; or those that live make nothing.
        """
        told = self._marks.told()
        self._forgive_sleep()
        in_flight = [told.get(flight.work.shard.digest, Told()) for flight in self._flights.values()]
        shown.reach(self._done + sum(shard.images for shard in in_flight))
        places = self.standing.places()
        shown.workers = len(places) if self.workers.several else 0
        self._vigil.take(told, self._flights.values())
        self._vigil.check(places)
        for place in self._vigil.silent({flight.place for flight in self._flights.values()}):
            self._write_off(place)

    def _write_off(self, place: str) -> None:
        """Take what a process has in hand that makes nothing, and give it no more."""
        self.standing.leave_out(place)
        hanging = [(number, flight) for number, flight in self._flights.items() if flight.place == place]
        for number, flight in hanging:
            del self._flights[number]
            self._died(flight)
        title = hanging[0][1].title
        log.error("workers   %s made nothing for %.0f s; it gets no more", title, vigil.NO_NEWS_SECONDS)

    def _died(self, flight: Flight) -> None:
        """Decide what becomes of a shard whose process died, perhaps because of another shard."""
        work, shard = flight.work, flight.work.shard
        self._give_up(flight)
        if flight.place not in self._dead:
            self._dead.add(flight.place)
            self._vigil.death()
            self.standing.strike(flight, "its process died")
        work.tried.add(flight.seat)
        work.deaths += 1
        if not work.alone:
            log.warning("workers   shard %d was on a process that died; it is tried again", shard.number)
            (self._again if work.deaths < 2 else self._suspects).append(work)
        elif len(shard.requests) > 1:
            self._suspects.extendleft(Work(half) for half in reversed(shard.halves()))
        elif work.deaths < DEATHS:
            self._suspects.appendleft(work)
        else:
            self._vigil.success()
            self._fail(shard, DEADLY)
            self.deadly.append(shard)
            try:
                self._record(shard)
            except Exception as error:  # the others are made all the same
                log.warning(
                    "workers   that an image ends its process is not stored, so a later run tries it: %s", error
                )

    def _put_back(self, work: Work) -> None:
        (self._suspects if work.alone else self._again).append(work)

    def _give_up(self, flight: Flight) -> None:
        self.workers.abandon(flight.future)

    def _note(self, flight: Flight, result: object, shown: Progress) -> None:
        """Note why images of a shard failed. A finished shard gives a reason for each; a crashed one gives one for all.

        What may be the fault of its process alone is tried on another one first. Images that are stored count all the
        same.

        Raises:
            NoWorkers: the device of this process is lost to it.
            UserError: that of the shard.
        """
        if isinstance(result, DeviceLost):
            self._fail(flight.work.shard, str(result))
            raise NoWorkers(str(result))
        shard = flight.work.shard
        if isinstance(result, dict) and len(result["failures"]) < len(shard.requests):
            self.standing.made_images(flight)
            self._vigil.success()
        if isinstance(result, dict) and not result["failures"]:
            self.standing.made_all(flight)
        elif self._tried_elsewhere(flight, result):
            return
        if isinstance(result, dict):
            self.timings.update(result["timings"])
            self.errors |= result["failures"]
        elif isinstance(result, UserError) and not self.standing.is_odd(flight):
            raise result
        elif isinstance(result, BaseException):
            self._fail(shard, f"its shard failed: {type(result).__name__}: {result}")
        self._done += len(shard.requests)
        shown.reach(self._done)

    def _tried_elsewhere(self, flight: Flight, result: object) -> bool:
        """Return whether a shard that failed is tried on another process.

        It is once; and again as long as those on which it failed never made an image: the fault may be theirs.
        """
        work = flight.work
        self.standing.strike(flight, reason_of(result))
        work.tried.add(flight.seat)
        work.failed.add(flight.seat)
        theirs = len(work.failed) == 1 or not work.failed & self.standing.made_by
        if not theirs or not self.standing.untried(work):
            return False
        log.warning("workers   shard %d failed on %s: %s", work.shard.number, flight.title, reason_of(result))
        self._put_back(work)
        return True

    def _fail(self, shard: Shard, reason: str) -> None:
        self.errors |= {request.replaces or request.key: reason for request in shard.requests}

    def _ask_to_stop(self) -> None:
        THIS_PROCESS.stop.set()
        if self.workers.apart:
            self._marks.ask_to_stop()
