"""Which processes get shards: those that fail again and again get no more, as long as others fare better; some rest."""

import logging
import time
from collections import Counter

from flows.flights import Flight, Work
from flows.workers import Workers

log = logging.getLogger(__name__)

# After so many shards, one after another, that failed or died on a process it gets no more, if others fare better.
STRIKES = 5
# How long a process that stopped a shard by itself gets no other one: NFS may show it a new time of a file only after a
# minute.
REST_SECONDS = 70.0


class Standing:
    """How the processes of a run fared so far. A *seat* is the name that a process keeps when it is started anew.

    Attributes:
        made_by: the seats of processes that made images.
    """

    def __init__(self, workers: Workers) -> None:
        self.made_by: set[str] = set()
        self._workers = workers
        self._strikes: Counter[str] = Counter()  # by seat
        self._out: set[str] = set()  # seats
        self._hanging: set[str] = set()  # places
        self._resting: dict[str, float] = {}  # by place: until when

    def places(self) -> list[str]:
        """Return the processes that may get shards; those that fare badly only where there are no others."""
        living = [place for place in self._workers.places() if place not in self._hanging]
        return [place for place in living if self._workers.seat(place) not in self._out] or living

    def ready(self) -> list[str]:
        """Return those of `places` that do not rest."""
        return [place for place in self.places() if not self.rests(place)]

    def rests(self, place: str) -> bool:
        """Return whether a process gets no shard for a while."""
        return time.monotonic() < self._resting.get(place, 0.0)

    def rest(self, place: str) -> None:
        """Give a process no shard for a while."""
        self._resting[place] = time.monotonic() + REST_SECONDS

    def leave_out(self, place: str) -> None:
        """Give a process that hangs no more."""
        self._hanging.add(place)

    def untried(self, work: Work) -> set[str]:
        """Return the seats on which work was not tried yet."""
        return {self._workers.seat(place) for place in self.places()} - work.tried

    def made_images(self, flight: Flight) -> None:
        """Note that a process made images of a shard."""
        self.made_by.add(flight.seat)

    def made_all(self, flight: Flight) -> None:
        """Note that a process made all images of a shard."""
        self._strikes[flight.seat] = 0

    def is_odd(self, flight: Flight) -> bool:
        """Return whether a process never made an image, and others that live did: it alone finds the input wrong."""
        living = {self._workers.seat(place) for place in self._workers.places()}
        return flight.seat not in self.made_by and bool(living & self.made_by)

    def strike(self, flight: Flight, why: str) -> None:
        """Count a failure against a process; give it no more shards, if others fare better."""
        self._strikes[flight.seat] += 1
        others = {self._workers.seat(place) for place in self.places()} - {flight.seat}
        too_many = self._strikes[flight.seat] >= STRIKES and flight.seat not in self._out
        if too_many and any(not self._strikes[other] for other in others):
            self._out.add(flight.seat)
            log.error("workers   %s gets no more, after %d failures in a row: %s", flight.title, STRIKES, why)
