"""One process of the run's own for its one device: what ends it, or takes its device from it, does not end the run."""

import logging
import os
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from typing import Any, ParamSpec, Self, TypeVar
from uuid import uuid4

from prefect import Task
from prefect.client.schemas.objects import RunInput
from prefect.context import serialize_context
from prefect.futures import PrefectConcurrentFuture, PrefectFuture
from prefect.settings import (
    PREFECT_API_URL,
    PREFECT_CLIENT_SERVER_VERSION_CHECK_ENABLED,
    temporary_settings,
)
from prefect.task_runners import TaskRunner
from prefect.utilities.callables import get_call_parameters

from flows.served import ProcessDied, Served
from flows.workers import RunToJoin, Workers, without_marks
from t2i_core.config import Config
from t2i_core.errors import ConfigError, MeasureFailed, Stopped, UserError
from tasks.elsewhere import Introduction
from tasks.lost_runs import LostRuns
from tasks.process import THIS_PROCESS, import_engine, interruptible, result_of
from tasks.server_wait import WAIT
from tasks.serving import ALIVE_SECONDS, forget_server, join, run_task

P = ParamSpec("P")
T = TypeVar("T")

log = logging.getLogger(__name__)

# What says which servers are reached past a proxy: this process may have set it after it started the other one.
PROXIES = ("NO_PROXY", "no_proxy")
LOOK_SECONDS = 0.5
# How long a process may take until it is ready: it may hang.
READY_SECONDS = 1800.0
# So many processes, one after another, may end before they are ready, and the next one is still hoped for.
EARLY_DEATHS = 3
# The pause before another one is started then: a driver that lost its device may need a while.
PAUSE_SECONDS = 10.0
# A process that gives no sign of life for so long is killed. Longer than any call that keeps Python's lock.
SILENT_SECONDS = 600.0
# How long it may be silent still, once that is found: this process may itself have been stopped, and read nothing.
DOUBT_SECONDS = 3 * ALIVE_SECONDS
# So many may end over a task that is called.
DEATHS = 2

# A process that was started before its run, while Prefect's server starts.
_EARLY: list[Served] = []


def start_early() -> None:
    """Start the process of the run that comes next."""
    _EARLY.append(Served())
    _EARLY[0].call(import_engine)


class ProcessTaskRunner(TaskRunner[PrefectConcurrentFuture[Any]]):
    """Runs tasks in a process of its own, several at a time: in Prefect's own process pool, each would be alone."""

    def __init__(self, api_url: str) -> None:
        """`api_url`: of Prefect's server, for the other process starts none of its own."""
        super().__init__()  # type: ignore[no-untyped-call]
        self._api_url = api_url
        self._context: dict[str, Any] = {}
        self.served: Served | None = None

    def duplicate(self) -> "ProcessTaskRunner":
        """Return another one."""
        return type(self)(self._api_url)

    def start_process(self) -> Served:
        """Start a process in place of the one before; return it."""
        self.served = _EARLY.pop() if _EARLY else Served()
        return self.served

    def __enter__(self) -> Self:
        """Take the context of the run, which does not change.

        In a thread: where a signal arrives while it is serialized, pydantic makes an error of its own out of it.
        """

        def serialized() -> dict[str, Any]:
            # The version was compared by this process; and while the server is away, a new process could not ask.
            with temporary_settings(
                {PREFECT_API_URL: self._api_url, PREFECT_CLIENT_SERVER_VERSION_CHECK_ENABLED: False}
            ):
                return serialize_context()

        self._context = interruptible(serialized)
        return super().__enter__()

    def __exit__(self, exc_type: Any, exc_value: Any, traceback: Any) -> None:
        """End the process."""
        if self.served is not None:
            self.served.end()
        super().__exit__(exc_type, exc_value, traceback)

    def submit(
        self,
        task: Task[..., Any],
        parameters: dict[str, Any],
        wait_for: Iterable[PrefectFuture[Any]] | None = None,
        dependencies: dict[str, set[RunInput]] | None = None,
    ) -> PrefectConcurrentFuture[Any]:
        """Run a task in the process."""
        assert self.served is not None, "submitted to a process that is there"
        run, values = uuid4(), without_marks(parameters)
        future = self.served.call(run_task, task, run, values, self._context)
        return PrefectConcurrentFuture(run, future)


class OwnProcess(Workers):
    """A process beside the flow's, for the one device of a run.

    A crash of a library or of the driver, or lack of memory, ends that process alone: the flow starts another one, and
    tries again there what the first one had in hand. The flow has its own memory and its own Python lock.
    """

    deaths = (ProcessDied,)
    apart = True

    def __init__(self, api_url: str) -> None:
        """`api_url`: of Prefect's server."""
        self._runner = ProcessTaskRunner(api_url)
        super().__init__(self._runner, 1)
        self._api_url = api_url
        self._run: RunToJoin | None = None
        self._asked: Future[Introduction] | None = None
        self._ready = False
        self._first: Introduction | None = None
        self._early_deaths = 0  # of processes that were not ready yet, since one was
        self._next_start = 0.0
        self._doubted: float | None = None  # since when the process is silent for too long
        self._server_is_gone = False  # whether the process was told so
        self._ended = False  # whether the end of this process was noted
        self._last_end = ""  # how the last one ended
        self._lost_runs = LostRuns()

    @staticmethod
    def serves(config: Config) -> bool:
        """Return whether it is what makes the images of a run on one device."""
        return config.workers != 0 and Served.is_possible()

    def start(self, run: RunToJoin) -> None:
        """Start the process."""
        if self._run is None:
            self._run = run
            self._runner.__enter__()
            self._begin()

    def end(self) -> None:
        """End the process."""
        if self._run is not None:
            try:
                self._runner.__exit__(None, None, None)
            finally:
                self._lost_runs.end()

    def places(self) -> list[str]:
        """Return the process, once it is ready; start another one where it has ended.

        Raises:
            UserError: the first one cannot be used, or one after another ends before any is ready.
        """
        served = self._runner.served
        if served is None:
            return []
        self._look_after()
        if served.died is not None:
            self._note_end(served, str(served.died))
            if time.monotonic() >= self._next_start:
                self._begin_again()
        elif not self._ready and self._asked is not None and self._asked.done():
            self._take(served, self._asked)
        return [served.title] if self._ready else []

    def hopeful(self) -> bool:
        """Return whether the process gets ready, but not for ever."""
        return self._runner.served is not None and not self._ready and self._early_deaths < EARLY_DEATHS

    def submit(self, task: Task[..., Any], *arguments: Any, place: str) -> PrefectFuture[Any]:
        """Submit a task to the process; to the one before, if it has ended meanwhile."""
        if self._runner.served is None or place != self._runner.served.title:
            ended: Future[Any] = Future()
            ended.set_exception(ProcessDied(self._last_end))
            return PrefectConcurrentFuture(uuid4(), ended)
        return self._runner.submit(task, parameters=get_call_parameters(task.fn, arguments, {}))

    def call(self, task: Task[..., Any], *arguments: Any) -> Any:
        """Run a task in the process; in another one, where that ends.

        Raises:
            MeasureFailed: it ended each time, or none gets ready.
        """
        for _ in range(DEATHS):
            while not (places := self.places()):
                if not self.hopeful():
                    raise MeasureFailed(f"there is no process to measure it in{self.troubles()}")
                time.sleep(LOOK_SECONDS)
            future = self.submit(task, *arguments, place=places[0])
            try:
                result_of(future.wrapped_future, self._look_while_called)  # type: ignore[attr-defined]
                return future.result()
            except ProcessDied as died:
                self.abandon(future)
                self._last_end = str(died)
            except Stopped:
                if THIS_PROCESS.stop.is_set():
                    raise
                self._last_end = "heard nothing of the run"
            except BaseException:
                if not future.wrapped_future.done():  # type: ignore[attr-defined] # nobody waits for it any more
                    self.abandon(future)
                raise
        raise MeasureFailed(f"the process {self._last_end}, {DEATHS} times")

    def ask(self, function: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
        """Return what a function tells of this machine; the process that generates has the engine."""
        if self._runner.served is None:
            return super().ask(function, *arguments, **named)
        try:
            return result_of(self._runner.served.call(function, *arguments, **named), self._look_after)
        except UserError:
            raise
        except Exception as error:  # its traceback is worth having here
            log.debug("%s does not answer: %s", function.__name__, error)
            return super().ask(function, *arguments, **named)

    def troubles(self) -> str:
        """Return how the last process ended."""
        return f"; the last one {self._last_end}" if self._last_end else ""

    def seat(self, place: str) -> str:
        """Return the same name for each process."""
        return "the process"

    def device(self) -> str | None:
        """Return the name of the device."""
        return self._first.device if self._first else None

    def versions(self) -> dict[str, str]:
        """Return the versions of the packages, as the process told them."""
        return self._first.versions_of(self._run.packages) if self._run and self._first else {}

    def abandon(self, future: PrefectFuture[Any]) -> None:
        """Tell Prefect that the task run crashed."""
        self._lost_runs.note(future.task_run_id)

    def _look_after(self) -> None:
        """Kill a process that hangs; tell it of a server that is gone, for which it would wait."""
        served = self._runner.served
        assert served is not None, "looked after once it is started"
        doubted = self._doubted
        if served.silent_seconds() < SILENT_SECONDS:
            self._doubted = None
        elif doubted is None:
            self._doubted = time.monotonic()
        elif time.monotonic() - doubted > DOUBT_SECONDS and served.died is None:
            served.kill(f"gave no sign of life for {SILENT_SECONDS:.0f} s, and was killed")
        waits = served.died is None and self._asked is not None and not self._asked.done()
        if waits and time.monotonic() - served.started > READY_SECONDS:
            served.kill(f"was not ready after {READY_SECONDS:.0f} s, and was killed")
        if WAIT.is_gone() and not self._server_is_gone:
            self._server_is_gone = True
            served.call(forget_server)

    def _look_while_called(self) -> None:
        self._look_after()
        if THIS_PROCESS.stop.is_set():
            raise Stopped

    def _begin(self) -> None:
        """Start a process, and ask it who it is."""
        assert self._run is not None
        self._asked, self._ready = None, False
        run, served = self._run, self._runner.start_process()
        self._ended = self._server_is_gone = False
        server = {name: os.environ[name] for name in PROXIES if name in os.environ} | {"PREFECT_API_URL": self._api_url}
        self._asked = served.call(join, run.run, run.output, run.device, run.packages, server, WAIT.seconds)

    def _begin_again(self) -> None:
        log.warning("workers   another process is started")
        try:
            self._begin()
        except (OSError, RuntimeError) as error:  # memory or processes are short; they may not be later
            log.error("workers   it cannot be started: %s", error)
            if self._runner.served is not None:
                self._runner.served.kill("was not started in full")
            self._ended, self._last_end = True, f"could not be started ({error})"
            self._early_deaths += 1
            self._next_start = time.monotonic() + PAUSE_SECONDS

    def _take(self, served: Served, asked: "Future[Introduction]") -> None:
        """Take a process that said who it is, if it can be used.

        Raises:
            UserError: it cannot be used, and none could before.
        """
        try:
            told = asked.result()
            problem = f"it {told.problem}" if told.problem else ""
            if self._first is not None and told.device != self._first.device:
                problem = f"it has a {told.device}, and the one before had a {self._first.device}"
            if problem:
                raise ConfigError([f"workers: {problem}"])
        except Exception as error:
            if self._first is None and isinstance(error, UserError):
                raise
            served.kill(f"cannot be used: {error}")
            self._note_end(served, str(served.died))
            return
        self._first = self._first or told
        self._ready, self._early_deaths = True, 0

    def _note_end(self, served: Served, how: str) -> None:
        """Note once how a process ended.

        Raises:
            ConfigError: several have ended, and none was ever ready.
        """
        if self._ended:
            return
        self._ended, self._last_end = True, how
        log.error("workers   %s %s", served.title, how)
        if not self._ready:
            self._early_deaths += 1
        self._ready = False
        if self._early_deaths >= EARLY_DEATHS:
            if self._first is None:
                raise ConfigError([f"workers: the process that generates {how}, {EARLY_DEATHS} times; see above"])
            self._next_start = time.monotonic() + PAUSE_SECONDS
