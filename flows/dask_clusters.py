"""Dask clusters: one of a run's own, a process for each device of this machine; and one that is there already."""

import logging
from collections.abc import Sequence
from typing import Any

import dask
from distributed import Nanny, Scheduler, SpecCluster
from prefect_dask import DaskTaskRunner

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
# How long a scheduler that is gone may take to come back.
RECONNECT_SECONDS = 600.0


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
