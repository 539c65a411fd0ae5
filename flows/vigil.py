"""When the processes of a run last lived and made something, and whether it is of use to wait for them any longer."""

import time
from collections.abc import Collection, Mapping

from flows.flights import Flight
from flows.workers import Workers
from t2i_core.storage.run_marks import Told
from tasks.process import HANG_SECONDS

# How long a run waits for a process where all have died.
NO_WORKER_SECONDS = 600.0
# How long a run waits for an image or a step: longer than a process that hangs waits before it ends itself.
NO_NEWS_SECONDS = 2 * HANG_SECONDS
# Between two rounds of the flow: if it is longer, the flow was stopped meanwhile.
GAP_SECONDS = 90.0
# So many processes for each device may die, one after another, while no image is made and none is called a failure.
# More than it takes to find one in a shard of 10,000 by halves; a model that is too large for the memory kills each.
VAIN_DEATHS = 20


class NoWorkers(Exception):
    """No process is left to generate, or those that live make nothing, or this one's device hangs."""


class Vigil:
    """What was heard of the processes, and when, by this machine's clock. A *place* is one of them, by its address."""

    def __init__(self, workers: Workers) -> None:
        self._workers = workers
        self._came = False  # whether any process ever got a shard
        self._vain_deaths = 0  # since an image was made, or was called a failure
        self._last_alive = 0.0  # when a process lived
        self._news: dict[str, float] = {}  # by place: when a step, an image or a shard was made there
        self._heard: dict[str, float] = {}  # by place: the same, where a shard that was only submitted does not count
        self._told: dict[str, Told] = {}  # by shard
        self._awake = 0.0  # when this process last did something

    def begin(self) -> None:
        """Begin to wait."""
        self._last_alive = self._news[""] = self._awake = time.monotonic()

    def wait_for_data_set(self) -> None:
        """Note that the processes have nothing to do, and are not to blame."""
        self._news[""] = time.monotonic()

    def submitted(self, place: str) -> float:
        """Note that a process got a shard; return when."""
        self._came = True
        self._news[place] = now = time.monotonic()
        return now

    def ended(self, place: str) -> None:
        """Note that a shard ended on a process, well or not."""
        self._hear(place, time.monotonic())

    def success(self) -> None:
        """Note that an image was made, or called a failure for good."""
        self._vain_deaths = 0

    def death(self) -> None:
        """Note that a process died."""
        self._vain_deaths += 1

    def others_heard(self, flight: Flight) -> bool:
        """Return whether other processes made something since a shard was submitted to one."""
        return any(heard > flight.since for place, heard in self._heard.items() if place != flight.place)

    def slept(self) -> float:
        """Return for how long this process was itself stopped, by Ctrl-Z or a scheduler, and count no such time."""
        before, self._awake = self._awake, time.monotonic()
        if (seconds := self._awake - before) < GAP_SECONDS:
            return 0.0
        self._last_alive += seconds
        for times in (self._news, self._heard):
            times.update({place: then + seconds for place, then in times.items()})
        return seconds

    def take(self, told: Mapping[str, Told], flights: Collection[Flight]) -> None:
        """Take what processes tell of their shards in flight."""
        for flight in flights:
            before, now = self._told.get(flight.work.shard.digest, Told()), told.get(flight.work.shard.digest, Told())
            if now not in (before, Told()):
                self._hear(flight.place, time.monotonic())
            if now.images > before.images:
                self.success()
        self._told |= told  # what cannot be read just now is as it was

    def check(self, places: Collection[str]) -> None:
        """Look whether it is of use to wait. `places`: the processes that may get shards.

        Raises:
            NoWorkers: all have died, and none came back; one after another dies; or those that live make nothing.
        """
        now = time.monotonic()
        if self._workers.fetching():
            self._news[""] = now
        if places or self._workers.hopeful():
            self._last_alive = now
        if self._vain_deaths >= VAIN_DEATHS * self._workers.count:
            died = f"{self._vain_deaths} processes died, one after another, and made no image"
            raise NoWorkers(f"{died}{self._workers.troubles()}")
        if now - self._last_alive > NO_WORKER_SECONDS:
            what = "all processes died, and none came back" if self._came else "no process came that can be used"
            raise NoWorkers(f"{what} for {NO_WORKER_SECONDS:.0f} s{self._workers.troubles()}")
        if self._workers.several and now - self._news[""] > NO_NEWS_SECONDS:
            raise NoWorkers(f"no process made anything for {NO_NEWS_SECONDS:.0f} s")

    def silent(self, places: Collection[str]) -> list[str]:
        """Return those of several processes that made nothing for long; a single one knows by itself whether it hangs.

        On a CPU a step may take hours.
        """
        now = time.monotonic()
        return [place for place in places if self._workers.several and now - self._news[place] > NO_NEWS_SECONDS]

    def _hear(self, place: str, now: float) -> None:
        self._news[""] = self._news[place] = self._heard[place] = now
