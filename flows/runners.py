"""Who runs tasks that need the device: threads of this process, or several processes with a device each.

Each engine is one function that returns a Prefect `TaskRunner`; all else in the flow is the same with all of them.
"""

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from prefect import Task, get_client
from prefect.futures import PrefectFuture
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner
from prefect.utilities.annotations import quote
from prefect.utilities.callables import get_call_parameters

from flows.preflight import check_dask, check_workers
from t2i_core.config import Config
from t2i_core.errors import ConfigError

# Shards that a process has in hand: one generates, while the last images of the other are being written.
THREADS = 2

DASK_SETTINGS: dict[str, Any] = {
    # Whatever was on a process that died is given back, and `flows/generating.py` says what becomes of it.
    "distributed.scheduler.allowed-failures": 0,
    # A process gets no shard beyond those that it works on: one that kills it would take that along.
    "distributed.scheduler.worker-saturation": 1.0,
    "distributed.scheduler.work-stealing": False,
    # A process that says nothing for so long is started anew. Longer than any call that keeps Python's lock.
    "distributed.scheduler.worker-ttl": "10 minutes",
    # In place of OMP_NUM_THREADS=1. What matters is said by the flow.
    "distributed.nanny.pre-spawn-environ": {"DASK_DISTRIBUTED__LOGGING__DISTRIBUTED": "critical"},
}


@dataclass(frozen=True, slots=True)
class Workers:
    """The processes that generate, behind a Prefect task runner.

    count: how many they should be; 1 is this process.
    alive: says how many there are at the moment.
    losses: what the engine raises in place of the result of a task whose process died.
    """

    runner: TaskRunner[Any]
    count: int
    alive: Callable[[], int]
    losses: tuple[type[Exception], ...]

    def submit(self, task: Task[..., Any], *arguments: Any) -> PrefectFuture[Any]:
        """Submit a task, for another process without the marks of `data`: Dask takes them for tuples.

        The server of this run is that of other processes, too: none starts one of its own.
        """
        settings = {}
        if self.count > 1:
            arguments = tuple(value.unwrap() if isinstance(value, quote) else value for value in arguments)
            settings = {PREFECT_API_URL: _api_url()}
        parameters = get_call_parameters(task.fn, arguments, {})
        with temporary_settings(settings):
            future: PrefectFuture[Any] = self.runner.submit(task, parameters=parameters)
        return future


def find_workers(config: Config) -> Workers:
    """Return the processes that `workers` asks for; they are started when the first task is submitted.

    Raises:
        ConfigError: this machine has not so many devices, or devices of several kinds, or Dask is not installed.
    """
    if config.workers == 1:
        return _threads()
    check_workers(config)
    from t2i_core.engine.device import cards, host_threads

    found = cards(config.device)
    count = (len(found) or 1) if config.workers == "auto" else config.workers
    if count == 1:
        return _threads()
    if found and count > len(found):
        raise ConfigError([f"workers: this machine has {len(found)} GPUs, and each process needs one (got {count})"])
    if len(kinds := set(found[:count])) > 1:
        raise ConfigError(
            [f"workers: {' and '.join(sorted(kinds))} make other pixels; choose one kind by CUDA_VISIBLE_DEVICES"]
        )
    check_dask(count)
    environment = {"OMP_NUM_THREADS": str(max(1, host_threads() // count)), "PREFECT_API_URL": _api_url()}
    pinned = [_card(number) if found else {} for number in range(count)]
    return _dask([environment | device for device in pinned])


def _threads() -> Workers:
    """Return threads of this process, which has one device."""
    return Workers(ThreadPoolTaskRunner(max_workers=THREADS), 1, lambda: 1, ())


def _dask(environments: list[dict[str, str]]) -> Workers:
    """Return a Dask cluster of this run's own: a process for each environment, started anew if it dies."""
    import dask
    from distributed import CancelledError, KilledWorker, Nanny, Scheduler, SpecCluster
    from prefect_dask import DaskTaskRunner

    dask.config.set(DASK_SETTINGS)
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    common = {"host": "127.0.0.1", "dashboard": False}
    worker = {"nthreads": THREADS, "memory_limit": 0, "preload": ["tasks.elsewhere"]}
    spec = {
        number: {"cls": Nanny, "options": common | worker | {"env": environment}}
        for number, environment in enumerate(environments)
    }
    scheduler = {"cls": Scheduler, "options": common | {"port": 0}}
    runner = DaskTaskRunner(cluster_class=SpecCluster, cluster_kwargs={"workers": spec, "scheduler": scheduler})

    def alive() -> int:
        return len(runner.client.nthreads())

    return Workers(runner, len(environments), alive, (KilledWorker, CancelledError))


def _card(number: int) -> dict[str, str]:
    """Return the environment of a process that sees only the card of this number, of those that this one sees."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return {"CUDA_VISIBLE_DEVICES": visible.split(",")[number].strip() if visible else str(number)}


def _api_url() -> str:
    with get_client(sync_client=True) as client:
        return str(client.api_url)
