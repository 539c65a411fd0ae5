"""Who runs tasks that need the device: threads of this process, or several processes with a device each.

Each engine is one function that returns `Workers` around a Prefect `TaskRunner`; all else in the flow is the same with
all of them.
"""

import math
import os
from collections.abc import Callable, Sequence
from typing import Any, ParamSpec, TypeVar

from prefect import Task, get_client
from prefect.futures import PrefectFuture
from prefect.task_runners import ThreadPoolTaskRunner
from prefect.utilities.callables import get_call_parameters

from flows.apart import ask_apart
from flows.dask_scheduler import check_dask_scheduler, scheduler_address
from flows.own_process import OwnProcess
from flows.preflight import check_dask, check_workers
from flows.workers import RunToJoin, Workers
from t2i_core.config import Config
from t2i_core.errors import ConfigError
from tasks.process import HANG_SECONDS, THIS_PROCESS, THREADS, result_of

P = ParamSpec("P")
T = TypeVar("T")


class Threads(Workers):
    """Threads of this process, which has one device."""

    def __init__(self, count: int = 1) -> None:
        """`count`: for how many processes a run that only looks counts shards."""
        super().__init__(ThreadPoolTaskRunner(max_workers=THREADS), count)
        self._started = False

    def start(self, run: RunToJoin) -> None:
        """Start the runner."""
        if not self._started:
            self._started = True
            self.runner.__enter__()

    def ask(self, function: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
        """Return what a function tells; this process has the engine anyway."""
        return function(*arguments, **named)

    def end(self) -> None:
        """End the runner once its tasks have ended.

        After a stop, once no shard runs: a task may wait for its next try.
        """
        started, self._started = self._started, False
        if started and THIS_PROCESS.stop.is_set():
            THIS_PROCESS.wait_until_idle(0 if THIS_PROCESS.gave_up else math.inf)
        elif started:
            self.runner.__exit__(None, None, None)

    def places(self) -> list[str]:
        """Return this process."""
        return ["here"]

    def submit(self, task: Task[..., Any], *arguments: Any, place: str) -> PrefectFuture[Any]:
        """Submit a task to one of the threads."""
        future: PrefectFuture[Any] = self.runner.submit(task, parameters=get_call_parameters(task.fn, arguments, {}))
        return future

    def call(self, task: Task[..., Any], *arguments: Any) -> Any:
        """Run a task in one of the threads.

        Raises:
            ConfigError: the device hangs.
        """
        future = self.submit(task, *arguments, place="here")
        result_of(future.wrapped_future, _give_up_what_hangs)  # type: ignore[attr-defined]
        return future.result()

    def abandon(self, future: PrefectFuture[Any]) -> None:
        """Do nothing: this process ends with its run."""


def find_workers(config: Config) -> Workers:
    """Return the processes that the configuration asks for; this one for a run that only looks.

    One device has a process of its own, unless the user wants it in this one, or none can be started here.

    Raises:
        ConfigError: this machine has not so many devices, or devices of several kinds; an existing scheduler does not
            answer or has no workers; or Dask is not installed.
    """
    if not config.needs_device:
        return Threads(config.workers if isinstance(config.workers, int) and config.workers else 1)
    if config.dask_scheduler:
        return _existing_dask(config.dask_scheduler)
    if config.has_one_device:
        return _one(config)
    check_workers(config)
    found, threads = ask_apart(devices_of, config.device)
    count = (len(found) or 1) if config.workers == "auto" else config.workers
    if count == 1:
        return _one(config)
    if found and count > len(found):
        raise ConfigError([f"workers: this machine has {len(found)} GPUs, and each process needs one (got {count})"])
    if len(kinds := set(found[:count])) > 1:
        raise ConfigError(
            [f"workers: {' and '.join(sorted(kinds))} make other pixels; choose one kind by CUDA_VISIBLE_DEVICES"]
        )
    check_dask("workers", count)
    environment = {"OMP_NUM_THREADS": str(max(1, threads // count)), "PREFECT_API_URL": api_url()}
    pinned = [_card(number) if found else {} for number in range(count)]
    return _own_dask([environment | device for device in pinned])


def _give_up_what_hangs() -> None:
    if THIS_PROCESS.hangs():
        THIS_PROCESS.give_up()
        raise ConfigError([f"device: it made no step for {HANG_SECONDS:.0f} s while it was measured: it hangs"])


def devices_of(device: str) -> tuple[list[str], int]:
    """Return the names of this machine's cards, and how many threads torch uses here on the CPU.

    Raises:
        ConfigError: for a device of which several processes cannot have one each.
    """
    from t2i_core.engine.device import cards, host_threads

    return cards(device), host_threads()


def api_url() -> str:
    """Return the address of Prefect's server for this run."""
    with get_client(sync_client=True) as client:
        return str(client.api_url)


def _one(config: Config) -> Workers:
    """Return a process for one device: one of its own, or this one."""
    return OwnProcess(api_url()) if OwnProcess.serves(config) else Threads()


def _own_dask(environments: Sequence[dict[str, str]]) -> Workers:
    """Return a Dask cluster of this run's own: a process on this machine for each environment."""
    from flows.dask_clusters import own_cluster
    from flows.dask_workers import DaskWorkers

    kind = "cuda" if any("CUDA_VISIBLE_DEVICES" in environment for environment in environments) else None
    return DaskWorkers(own_cluster(environments, THREADS), len(environments), api_url(), kind=kind)


def _existing_dask(address: str) -> Workers:
    """Return the workers of a Dask scheduler that is there already, on whatever machines they are."""
    check_dask("dask_scheduler", address)
    count = check_dask_scheduler(address)
    from flows.dask_clusters import existing_cluster
    from flows.dask_workers import DaskWorkers

    return DaskWorkers(existing_cluster(scheduler_address(address)), count, api_url(), scheduler=address)


def _card(number: int) -> dict[str, str]:
    """Return the environment of a process that sees only the card of this number, of those that this one sees."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return {"CUDA_VISIBLE_DEVICES": visible.split(",")[number].strip() if visible else str(number)}
