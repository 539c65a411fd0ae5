"""An engine that answers as a test says, in place of processes that make shards."""

import threading
import time
from collections import Counter

from flows.workers import Workers
from t2i_core.planning.pending import ImageRequest
from t2i_core.planning.shards import Shard
from tests.builders import image_spec

DONE = {"timings": {"check": 1.0}, "failures": {}}


class Died(Exception):
    pass


class Lost(Exception):
    pass


class Future:
    def __init__(self):
        self.callbacks, self.answer = [], None

    def add_done_callback(self, call):
        if self.answer is None:
            self.callbacks.append(call)
        else:
            call(self)

    def end(self, answer):
        self.answer = answer
        for call in self.callbacks:
            call(self)

    def result(self, timeout, raise_on_failure):
        if isinstance(self.answer, Died | Lost):
            raise self.answer
        return self.answer


class Processes(Workers):
    """Each shard runs in a thread: `answer(prompts, how often they were submitted, others on the process, process)`."""

    deaths = (Died,)
    losses = (Lost,)

    def __init__(self, answer, count=2, alive=None):
        super().__init__(None, count)
        self.apart = self.several = count > 1
        self.answer, self.submitted, self.in_flight, self.most = answer, Counter(), Counter(), 0
        self.here = [f"p{i}" for i in range(count)] if alive is None else alive
        self.gone, self.abandoned, self.where = set(), [], {}

    def start(self, run):
        pass

    def end(self):
        pass

    def places(self):
        return [place for place in self.here if place not in self.gone]

    def lost(self, places):
        return places & self.gone

    def seat(self, place):
        return place.partition(" ")[0]  # a process that is started anew has another place

    def abandon(self, future):
        self.abandoned.append(future)

    def call(self, task, *arguments):
        raise NotImplementedError

    def submit(self, shard, place):
        prompts = tuple(request.spec.prompt for request in shard.requests)
        self.submitted[prompts] += 1
        self.in_flight[place] += 1
        self.where.setdefault(prompts, []).append(place)
        self.most = max(self.most, self.in_flight[place])
        future = Future()
        threading.Thread(target=self.run, args=(prompts, place, future)).start()
        return future

    def run(self, prompts, place, future):
        time.sleep(0.02)
        answer = self.answer(prompts, self.submitted[prompts], self.in_flight[place] - 1, place)
        self.in_flight[place] -= 1
        future.end(answer)


def shards(*sizes, batch=2):
    number = 0
    for position, size in enumerate(sizes, start=1):
        specs = [image_spec(i) for i in range(number, number + size)]
        number += size
        requests = [ImageRequest(spec, spec.key) for spec in specs]
        batches = tuple(tuple(requests[i : i + batch]) for i in range(0, size, batch))
        yield Shard(position, len(sizes), batch, batches)
