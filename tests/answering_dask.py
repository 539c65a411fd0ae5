"""A Dask cluster whose workers answer as a test says, in place of one with processes."""

from dataclasses import replace
from pathlib import Path

from flows.dask_workers import DaskWorkers
from flows.workers import RunToJoin
from tasks.elsewhere import Introduction, versions_here

PACKAGES = ("torch",)
HERE = versions_here(PACKAGES)
RUN = RunToJoin("r1", Path("/shared/out"), "auto", PACKAGES, None)


def told(host="a", **values):
    return replace(Introduction(host, 7, "", f"card of {host}", "H100", dict(HERE), ""), **values)


class Future:
    def __init__(self, answer):
        self.answer = answer
        self.task_run_id = None

    @property
    def status(self):
        return "pending" if self.answer is None else "error" if isinstance(self.answer, Exception) else "finished"

    wrapped_future = property(lambda self: self)

    def done(self):
        return self.status != "pending"

    def result(self, timeout):
        if self.answer is None:
            raise TimeoutError
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


class Client:
    """A Dask client whose workers answer as a test says: {address: {function: answer}}."""

    status = "running"

    def __init__(self, answers):
        self.answers, self.asked, self.cancelled = answers, [], []

    def submit(self, function, *arguments, workers, key, pure):
        (address,) = workers
        self.asked.append((address, function.__name__))
        return Future(self.answers[address].get(function, told(address)))

    def cancel(self, futures, force):
        self.cancelled += futures


class Runner:
    def __init__(self, client):
        self.client = client

    def __enter__(self):
        return self


def cluster(answers, run=RUN, names=None):
    """The workers of a cluster, and a function that lets the flow look at who is there."""
    client = Client(answers)
    workers = DaskWorkers(Runner(client), 2, "http://here/api", scheduler="tcp://s:1")
    workers._run, workers._client, workers._reachable = run, client, True

    def look(*addresses, times=3):
        for _ in range(times):
            workers._follow(
                client, {address: {"name": (names or {}).get(address, f"tcp://{address}")} for address in addresses}
            )

    return workers, look, client
