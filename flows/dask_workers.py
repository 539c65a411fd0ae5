"""The workers of a Dask cluster: each is checked before its first shard, whenever it joins; and what became of it."""

import logging
import threading
import time
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from contextvars import copy_context
from dataclasses import dataclass, replace
from typing import Any
from uuid import uuid4

import dask
from distributed import CancelledError, KilledWorker
from prefect import Task
from prefect.futures import PrefectFuture
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.utilities.callables import get_call_parameters
from prefect_dask import DaskTaskRunner

from flows.dask_clusters import RECONNECT_SECONDS
from flows.introductions import twin_of, why_not, why_silent
from flows.workers import RunToJoin, Workers, without_marks
from t2i_core.errors import ConfigError, MeasureFailed, Stopped
from tasks.elsewhere import Introduction, files_here, introduce, versions_here
from tasks.lost_runs import LostRuns
from tasks.process import THIS_PROCESS, result_of

log = logging.getLogger(__name__)

# Between two looks at which processes there are.
LOOK_SECONDS = 1.0
# How long a process may take to say who it is: it may hang.
READY_SECONDS = 3600.0
# How long a process without a GPU waits for others to say who they are.
FIRST_SECONDS = 60.0
# How long a process may take to fetch the model's files and to verify them.
FETCH_SECONDS = 24 * 3600.0
# How long an answer of a process or of the scheduler is waited for that is there already.
ANSWER_SECONDS = 30.0
# How long the end of a run waits for a scheduler that does not answer.
END_SECONDS = 5.0
# So many times as there are workers these may die before one of them is ready, and others are still waited for.
EARLY_DEATHS = 5
# So many processes may die, one after another, over a task that is called.
DEATHS = 2


@dataclass(eq=False)
class _Member:
    """A process of the cluster: asked who it is, then for the model's files; after both it takes shards."""

    seat: str  # its name, which it keeps when it is started anew; empty where it has none
    asked: Any  # a Dask future
    since: float  # when it was asked
    told: Introduction | None = None
    waits: float = 0.0  # since when it waits for others, which may have a GPU, to say who they are
    ready: bool = False
    refused: str = ""
    unlike: Introduction | None = None  # the first worker, where it was refused only because it differs from that one
    twin: Introduction | None = None  # the worker that has its card

    def title(self, address: str) -> str:
        return self.told.title if self.told else address


class DaskWorkers(Workers):
    """The workers of a Dask cluster, this run's own or one that is there already.

    A shard is submitted to one worker. So whatever the scheduler's settings, it does not go to another one behind the
    flow's back when its worker dies, and workers that were refused get none.
    """

    apart = several = True
    deaths = (KilledWorker,)
    losses = (CancelledError, TimeoutError)

    def __init__(
        self, runner: DaskTaskRunner, count: int, api_url: str, *, scheduler: str = "", kind: str | None = None
    ) -> None:
        """Take the workers of a cluster as a run finds them.

        Args:
            api_url: of Prefect's server.
            scheduler: the address of an existing one.
            kind: that of the devices, where it is known.
        """
        super().__init__(runner, count)
        self._dask = runner
        self._api_url = api_url
        self._kind = kind
        self._scheduler = scheduler
        self._run: RunToJoin | None = None
        self._members: dict[str, _Member] = {}  # by address
        self._first: Introduction | None = None  # that of the first worker that was taken
        self._refused: dict[str, str] = {}  # why, by the title of the worker
        self._used = False  # whether a worker got a task: then all others must be like it
        self._early_deaths = 0  # of workers that were not ready yet, since one was
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
            # A process of a machine with cards that cannot open its own one is not to go on with the CPU.
            self._run = replace(run, device=self._kind) if self._kind and run.device == "auto" else run
            self._began = time.monotonic()
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
        first, members = self._first, list(self._members.items())
        if members and first is None and all(member.refused for _, member in members):
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
        return self._is_patient() and any(not (one.ready or one.refused) for one in list(self._members.values()))

    def fetching(self) -> bool:
        """Return whether workers told who they are, and now fetch the model's files or verify them."""
        fetching = any(one.told and not (one.ready or one.refused) for one in list(self._members.values()))
        return self._is_patient() and fetching

    def troubles(self) -> str:
        """Return how many workers were refused, and why one of them was."""
        if not self._refused:
            return ""
        title, why = next(iter(self._refused.items()))
        return f"; {len(self._refused)} refused: {title}: {why}"

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
        return self._first.versions_of(self._run.packages) if self._first and self._run else {}

    def submit(self, task: Task[..., Any], *arguments: Any, place: str) -> PrefectFuture[Any]:
        """Submit a task to a worker.

        The server of this run is that of the worker, too: it starts none of its own. A thread submits: where a signal
        arrives while Prefect's context is serialized, pydantic makes an error of its own out of it.
        """
        future: Future[PrefectFuture[Any]]
        future = self._submitting.submit(copy_context().run, self._submit, task, arguments, place)
        return result_of(future)

    def _submit(self, task: Task[..., Any], arguments: tuple[Any, ...], place: str) -> PrefectFuture[Any]:
        self._used = True
        parameters = without_marks(get_call_parameters(task.fn, arguments, {}))
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
                done = future.wrapped_future.done()  # type: ignore[attr-defined]
                try:
                    return future.result(timeout=ANSWER_SECONDS if done else LOOK_SECONDS)
                except TimeoutError as error:
                    if done:  # raised by the task: of a file system
                        raise MeasureFailed(f"TimeoutError: {error}") from None
                except (*self.deaths, *self.losses):
                    break
                except Stopped:
                    if THIS_PROCESS.stop.is_set():
                        raise
                    break  # it stopped by itself, for it heard nothing of this run
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
                info = client.scheduler_info(n_workers=-1)
                # Dask's own look at the scheduler asks for no workers: where it comes between, there are none here.
                if client.status == "running" and len(info["workers"]) == info["n_workers"]:
                    if not self._ended.is_set():
                        self._follow(client, info["workers"])
                    self._reachable = True
                elif client.status != "running":
                    self._reachable = False
            except Exception as error:  # whatever a scheduler that is gone makes of it
                log.debug("the scheduler does not answer: %s", error)
                self._reachable = False
            self._ended.wait(LOOK_SECONDS)

    def _follow(self, client: Any, workers: dict[str, Any]) -> None:
        """Check workers that are new, and forget those that are gone."""
        self._starting = self._starting and not workers
        gone = {address: self._members.pop(address) for address in set(self._members) - set(workers)}
        for address, member in gone.items():
            self._note_gone(client, address, member)
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
        except (*self.deaths, *self.losses) as error:
            if isinstance(error, TimeoutError) and member.asked.status == "error":  # its own: of a file system
                self._refuse(client, address, member, f"it timed out ({error})")
            else:  # asked again, if it is still there
                self._note_gone(client, address, self._members.pop(address))
            return
        except Exception as error:
            self._refuse(client, address, member, why_silent(error))
            return
        if member.told is None:
            try:
                if self._first is None and not self._may_be_first(member, answer):
                    return
                why = self._why_not(member, answer)
            except Exception as error:  # an answer of another commit, which cannot be read
                log.debug("what a worker told cannot be read", exc_info=True)
                self._refuse(client, address, member, why_silent(error))
                return
            if why:
                member.told = answer
                self._refuse(client, address, member, why)
                return
            source = self._run.source
            fetched = None if source is None else self._ask(client, address, files_here, (source,))
            # Last: where the scheduler is gone just now, the worker is looked at again.
            member.told, self._first = answer, self._first or answer
            if fetched is not None:
                member.asked, member.since = fetched, time.monotonic()
                return
        member.ready, member.asked, self._early_deaths = True, None, 0

    def _why_not(self, member: _Member, told: Introduction) -> str:
        """Return why a worker cannot take part, and note which other one keeps it out; empty if it can."""
        assert self._run is not None
        here = versions_here(self._run.packages)
        if why := why_not(told, self._first, here):
            member.unlike = None if why_not(told, None, here) else self._first
            return why
        others = [one.told for one in self._members.values() if one.told and one is not member and not one.refused]
        member.twin = twin_of(told, others)
        if member.twin is None:
            return ""
        return f"it has the same card as {member.twin.title}; start each worker with a CUDA_VISIBLE_DEVICES of its own"

    def _may_be_first(self, member: _Member, told: Introduction) -> bool:
        """Return whether a worker may decide which device all have; one without a GPU lets others answer first."""
        assert self._run is not None
        if told.device != "cpu" or self._run.device != "auto" or not self._scheduler:
            return True
        member.waits = member.waits or time.monotonic()
        if time.monotonic() - member.waits > FIRST_SECONDS:
            return True
        return all(one.told or one.refused or one.waits for one in self._members.values())

    def _ask(self, client: Any, address: str, function: Any, arguments: Iterable[Any]) -> Any:
        name = f"text2image-{function.__name__}-{uuid4()}"
        return client.submit(function, *arguments, workers=[address], key=name, pure=False)

    def _refuse(self, client: Any, address: str, member: _Member, why: str) -> None:
        title = member.title(address)
        member.refused, member.asked, self._refused[title] = why, None, why
        log.error("workers   %s is not used: %s", title, why)
        if member.told is not None:
            self._without(client, member.told)

    def _note_gone(self, client: Any, address: str, member: _Member) -> None:
        if not (member.ready or member.refused):
            self._early_deaths += 1
            log.warning("workers   %s was lost before it was ready", member.title(address))
        if member.told is not None:
            self._without(client, member.told)

    def _without(self, client: Any, gone: Introduction) -> None:
        """Go on without a worker; ask those again that it kept out.

        They have the same card; or, as long as no worker got a task, another kind of device.
        """
        another = self._first is gone and not self._used
        for address, member in list(self._members.items()):
            if member.twin is gone or (another and member.unlike is gone):
                title = member.title(address)
                self._members[address] = self._asked(client, address, member.seat)
                self._refused.pop(title, None)
        if another:  # last: at no moment are all of them refused
            others = [one.told for one in self._members.values() if one.told and not one.refused]
            self._first = next(iter(others), None)

    def _is_patient(self) -> bool:
        """Return whether workers that are not ready are waited for: not where one after another dies before it is."""
        return self._reachable and self._early_deaths < EARLY_DEATHS * max(1, len(self._members))
