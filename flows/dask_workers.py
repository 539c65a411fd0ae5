"""The workers of a Dask cluster: each is checked before its first shard, whenever it joins; and what became of it."""

import logging
import threading
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from contextvars import copy_context
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import dask
from distributed import CancelledError, KilledWorker, Nanny, Scheduler, SpecCluster
from prefect import Task
from prefect.futures import PrefectFuture
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.utilities.annotations import quote
from prefect.utilities.callables import get_call_parameters
from prefect_dask import DaskTaskRunner

from flows.runners import RunToJoin, Workers
from t2i_core.errors import ConfigError, MeasureFailed
from tasks.elsewhere import Introduction, files_here, introduce, versions_here
from tasks.lost_runs import LostRuns
from tasks.process import result_of

log = logging.getLogger(__name__)

DASK_SETTINGS: dict[str, Any] = {
    # Whatever was on a process that died is given back, and `flows/generating.py` says what becomes of it.
    "distributed.scheduler.allowed-failures": 0,
    "distributed.scheduler.work-stealing": False,
    # A process that says nothing for so long is started anew. Longer than any call that keeps Python's lock.
    "distributed.scheduler.worker-ttl": "10 minutes",
    # A process that is started anew has so long to come back. On a busy machine its imports alone take half a minute.
    "distributed.deploy.lost-worker-timeout": "10 minutes",
    # What Dask observes is looked at by nobody, and its threads would take their share of the processes' cores.
    "distributed.worker.profile.enabled": False,
    "distributed.admin.tick.interval": "1s",
    "distributed.admin.system-monitor.interval": "10s",
    "distributed.scheduler.active-memory-manager.start": False,
    # In place of OMP_NUM_THREADS=1. What matters is said by the flow.
    "distributed.nanny.pre-spawn-environ": {"DASK_DISTRIBUTED__LOGGING__DISTRIBUTED": "critical"},
}
# Between two looks at which processes there are.
LOOK_SECONDS = 1.0
# How long a scheduler that is gone may take to come back.
RECONNECT_SECONDS = 600.0
# How long a process may take to say who it is: it may hang.
READY_SECONDS = 3600.0
# How long a process may take to fetch the model's files and to verify them.
FETCH_SECONDS = 24 * 3600.0
# How long an answer of a process or of the scheduler is waited for that is there already.
ANSWER_SECONDS = 30.0
# How long the end of a run waits for a scheduler that does not answer.
END_SECONDS = 5.0
# So many processes may die, one after another, over a task that is called.
DEATHS = 2


def own_cluster(environments: Sequence[dict[str, str]], threads: int) -> DaskTaskRunner:
    """Return a runner with a cluster of its own: a process for each environment, started anew if it dies."""
    dask.config.set(DASK_SETTINGS)
    _silence()
    common = {"host": "127.0.0.1", "dashboard": False}
    worker = {"nthreads": threads, "memory_limit": 0, "preload": ["tasks.elsewhere"]}
    spec = {
        number: {"cls": Nanny, "options": common | worker | {"env": environment}}
        for number, environment in enumerate(environments)
    }
    scheduler = {"cls": Scheduler, "options": common | {"port": 0, "dashboard_address": "127.0.0.1:0"}}
    return DaskTaskRunner(cluster_class=SpecCluster, cluster_kwargs={"workers": spec, "scheduler": scheduler})


def existing_cluster(address: str) -> DaskTaskRunner:
    """Return a runner of an existing scheduler, which is not ended with it."""
    _silence()
    return DaskTaskRunner(address=address, client_kwargs={"timeout": RECONNECT_SECONDS})


def _silence() -> None:
    logging.getLogger("distributed").setLevel(logging.CRITICAL)


@dataclass(eq=False)
class _Member:
    """A process of the cluster: asked who it is, then for the model's files; after both it takes shards."""

    seat: str  # its name, which it keeps when it is started anew; empty where it has none
    asked: Any  # a Dask future
    since: float  # when it was asked
    told: Introduction | None = None
    ready: bool = False
    refused: str = ""
    unlike: Introduction | None = None  # the first worker, where it was refused only because it differs from that one

    def title(self, address: str) -> str:
        return self.told.title if self.told else address


class DaskWorkers(Workers):
    """The workers of a Dask cluster, this run's own or one that is there already.

    A shard is submitted to one worker. So whatever the scheduler's settings, it does not go to another one behind the
    flow's back when its worker dies, and workers that were refused get none.
    """

    deaths = (KilledWorker,)
    losses = (CancelledError, TimeoutError)

    def __init__(self, runner: DaskTaskRunner, count: int, api_url: str, scheduler: str = "") -> None:
        """`api_url`: of Prefect's server. `scheduler`: the address of an existing one."""
        super().__init__(runner, count)
        self._dask = runner
        self._api_url = api_url
        self._scheduler = scheduler
        self._run: RunToJoin | None = None
        self._members: dict[str, _Member] = {}  # by address
        self._first: Introduction | None = None  # that of the first worker that was taken
        self._refused: dict[str, str] = {}  # why, by the title of the worker
        self._client: Any = None
        self._starting = True
        self._began = time.monotonic()
        self._reachable = False
        self._broken: Exception | None = None
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self._lost_runs = LostRuns()
        self._submitting = ThreadPoolExecutor(1, thread_name_prefix="submit")

    def start(self, run: RunToJoin) -> None:
        """Start or find the workers, and check them, in a thread."""
        if self._thread is None:
            self._run, self._began = run, time.monotonic()
            self.runner.__enter__()
            follow = copy_context().run  # its log lines belong to this flow run
            self._thread = threading.Thread(target=follow, args=(self._watch,), name="workers", daemon=True)
            self._thread.start()

    def end(self) -> None:
        """End a cluster of this run's own; leave an existing one as it is."""
        if self._thread is not None:
            self._ended.set()
            self._thread.join(END_SECONDS)
            self._thread = None
            self._submitting.shutdown(wait=False, cancel_futures=True)
            self._lost_runs.end()
            self.runner.__exit__(None, None, None)

    def places(self) -> list[str]:
        """Return the workers that passed the checks and are there.

        Raises:
            ConfigError: all workers were refused.
        """
        if self._broken is not None:
            raise self._broken
        if self._client is None or self._client.status != "running":
            self._reachable = False  # until it says who is left
        if not self._reachable:
            return []
        members = list(self._members.items())
        if members and self._first is None and all(member.refused for _, member in members):
            (title, why), *more = self._refused.items()
            text = f" (and {len(more)} more)" if more else ""
            raise ConfigError([f"{self._option}: none of the workers can be used: {title}{text}: {why}"])
        return [address for address, member in members if member.ready]

    def lost(self, places: set[str]) -> set[str]:
        """Return those of `places` that the scheduler does not know any more; none while it cannot be asked."""
        return places - set(self._members) if self._reachable else set()

    def hopeful(self) -> bool:
        """Return whether workers are being started or checked, none of them for ever."""
        if self._starting:
            return time.monotonic() - self._began < RECONNECT_SECONDS
        return self._reachable and any(not (one.ready or one.refused) for one in list(self._members.values()))

    def fetching(self) -> bool:
        """Return whether workers told who they are, and now fetch the model's files or verify them."""
        fetching = any(one.told and not (one.ready or one.refused) for one in list(self._members.values()))
        return self._reachable and fetching

    def seat(self, place: str) -> str:
        """Return the worker's own name, or its host and card where it was given none."""
        member = self._members.get(place)
        if member is None or member.told is None:
            return place
        return member.seat or f"{member.told.host} {member.told.card}"

    def title(self, place: str) -> str:
        """Return the host, card and process of a worker."""
        member = self._members.get(place)
        return member.title(place) if member else place

    def device(self) -> str | None:
        """Return the device of the first worker, which is that of all."""
        return self._first.device if self._first else None

    def versions(self) -> dict[str, str]:
        """Return the versions of the packages, as the first worker told them."""
        told = self._first.versions if self._first else {}
        return {name: told[name] for name in (self._run.packages if self._run else ()) if name in told}

    def submit(self, task: Task[..., Any], *arguments: Any, place: str) -> PrefectFuture[Any]:
        """Submit a task to a worker, without the marks of `data`: Dask takes them for tuples.

        The server of this run is that of the worker, too: it starts none of its own. A thread submits: where a signal
        arrives while Prefect's context is serialized, pydantic makes an error of its own out of it.
        """
        future: Future[PrefectFuture[Any]]
        future = self._submitting.submit(copy_context().run, self._submit, task, arguments, place)
        return result_of(future)

    def _submit(self, task: Task[..., Any], arguments: tuple[Any, ...], place: str) -> PrefectFuture[Any]:
        values = tuple(value.unwrap() if isinstance(value, quote) else value for value in arguments)
        parameters = get_call_parameters(task.fn, values, {})
        is_set = (PREFECT_API_URL.value() or "").rstrip("/") == self._api_url.rstrip("/")
        server = nullcontext() if is_set else temporary_settings({PREFECT_API_URL: self._api_url})  # which takes 25 ms
        with server, dask.annotate(workers=[place]):
            future: PrefectFuture[Any] = self.runner.submit(task, parameters=parameters)
        return future

    def call(self, task: Task[..., Any], *arguments: Any) -> Any:
        """Run a task on the first worker that is there; on another one where it dies.

        Raises:
            MeasureFailed: its workers died each time, or no worker came.
        """
        for _ in range(DEATHS):
            place = self._wait_for_place()
            future = self.submit(task, *arguments, place=place)
            while not self.lost({place}):
                try:
                    return future.result(timeout=LOOK_SECONDS)
                except TimeoutError:
                    continue
                except (*self.deaths, *self.losses):
                    break
            self.abandon(future)
        raise MeasureFailed(f"the process died, {DEATHS} times")

    def abandon(self, future: PrefectFuture[Any]) -> None:
        """Tell the scheduler that the task is not waited for, and Prefect that its run crashed."""
        try:
            self._client.cancel([future.wrapped_future], force=True)  # type: ignore[attr-defined]
        except Exception as error:
            log.debug("a task was not cancelled: %s", error)
        self._lost_runs.note(future.task_run_id)

    @property
    def _option(self) -> str:
        return "dask_scheduler" if self._scheduler else "workers"

    def _wait_for_place(self) -> str:
        started = time.monotonic()
        while not (places := self.places()):
            limit = READY_SECONDS if self.hopeful() else RECONNECT_SECONDS
            if time.monotonic() - started > limit and not self.fetching():
                raise MeasureFailed("there is no process to measure it in")
            time.sleep(LOOK_SECONDS)
        return places[0]

    def _watch(self) -> None:
        """Follow who comes and goes, until the end."""
        try:
            client = self._client = self._dask.client
        except Exception as error:
            self._broken = error
            return
        while not self._ended.is_set():
            try:
                workers = client.scheduler_info(n_workers=-1)["workers"]
                self._reachable = client.status == "running"
            except Exception as error:  # whatever a scheduler that is gone makes of it
                log.debug("the scheduler does not answer: %s", error)
                self._reachable = False
            if self._reachable and not self._ended.is_set():
                self._follow(client, workers)
            self._ended.wait(LOOK_SECONDS)

    def _follow(self, client: Any, workers: dict[str, Any]) -> None:
        """Check workers that are new, and forget those that are gone."""
        self._starting = self._starting and not workers
        for address in set(self._members) - set(workers):
            del self._members[address]
        for address in sorted(set(workers) - set(self._members)):
            name = str(workers[address]["name"])
            self._members[address] = self._asked(client, address, "" if "://" in name else name)
        for address, member in list(self._members.items()):
            if not (member.ready or member.refused):
                self._check(client, address, member)

    def _asked(self, client: Any, address: str, seat: str) -> _Member:
        """Return a worker that was just asked who it is."""
        assert self._run is not None
        run = self._run
        arguments = (run.run, run.output, self._api_url, run.device, run.packages)
        return _Member(seat, self._ask(client, address, introduce, arguments), time.monotonic())

    def _check(self, client: Any, address: str, member: _Member) -> None:
        """Take the next step with a worker, if it answered the last one."""
        assert self._run is not None
        if member.asked.status == "pending":
            silent, limit = time.monotonic() - member.since, FETCH_SECONDS if member.told else READY_SECONDS
            if silent > limit:
                why = "does not have the model's files after" if member.told else "said nothing for"
                self._refuse(client, address, member, f"it {why} {limit:.0f} s")
            return
        try:
            answer = member.asked.result(timeout=ANSWER_SECONDS)
        except (*self.deaths, *self.losses):
            del self._members[address]  # asked again, if it is still there
            return
        except Exception as error:
            self._refuse(client, address, member, _why(error))
            return
        if member.told is None:
            member.told = answer
            here = versions_here(self._run.packages)
            if why := why_not(answer, self._first, here):
                member.unlike = None if why_not(answer, None, here) else self._first
                self._refuse(client, address, member, why)
                return
            self._first = self._first or answer
            if self._run.source is not None:
                member.asked = self._ask(client, address, files_here, (self._run.source,))
                member.since = time.monotonic()
                return
        member.ready, member.asked = True, None

    def _ask(self, client: Any, address: str, function: Any, arguments: Iterable[Any]) -> Any:
        name = f"text2image-{function.__name__}-{uuid4()}"
        return client.submit(function, *arguments, workers=[address], key=name, pure=False)

    def _refuse(self, client: Any, address: str, member: _Member, why: str) -> None:
        title = member.title(address)
        member.refused, member.asked, self._refused[title] = why, None, why
        log.error("workers   %s is not used: %s", title, why)
        if self._first is not None and self._first is member.told:
            self._replace_first(client)

    def _replace_first(self, client: Any) -> None:
        """Compare with another worker than the first one, whose files are wrong; ask those again that it kept out."""
        wrong = self._first
        for address, member in list(self._members.items()):
            if member.unlike is wrong:
                self._refused.pop(member.title(address), None)
                self._members[address] = self._asked(client, address, member.seat)
        others = [one.told for one in self._members.values() if one.told and not one.refused]
        self._first = next(iter(others), None)


def why_not(told: Introduction, first: Introduction | None, here: dict[str, str]) -> str:
    """Return why a worker cannot take part; empty if it can.

    Args:
        first: what the first worker told, whose device and builds of packages all others must have.
        here: versions on the flow's machine, which may have other builds, such as one of torch without CUDA.
    """
    if told.problem:
        return told.problem
    other = [
        f"{name} {told.versions.get(name)} and not {version}"
        for name, version in here.items()
        if _public(told.versions.get(name, "none")) != _public(version)
    ]
    if other:
        return f"has {', '.join(other)}: install the same versions on all machines"
    if first is None:
        return ""
    other = [
        f"{name} {told.versions[name]} and not {version}"
        for name, version in first.versions.items()
        if told.versions[name] != version
    ]
    if other:
        return f"has {', '.join(other)} like the first worker ({first.title}): install the same builds"
    if told.device != first.device:
        return f"has a {told.device}, and the first worker ({first.title}) a {first.device}: they make other pixels"
    return ""


def _public(version: str) -> str:
    """Return a version without the name of its build."""
    return version.partition("+")[0]


def _why(error: Exception) -> str:
    """Return in one line why a worker could not answer."""
    cause = error.__cause__ or error
    if isinstance(cause, ModuleNotFoundError | AttributeError):
        return f"this version of text2image is not installed there ({cause})"
    return next(iter(str(cause).splitlines()), type(cause).__name__)
