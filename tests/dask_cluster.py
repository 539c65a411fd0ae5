"""A Dask scheduler that is there already, with workers, as real processes."""

import os
import signal
import subprocess
import sys
import time

import psutil

from flows.dask_scheduler import check_dask_scheduler
from t2i_core.errors import ConfigError
from tests.conftest import ROOT


def until(condition, seconds=100):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


class Cluster:
    """A Dask scheduler, and workers that are started when a test says so. `folder`: for their logs and files."""

    def __init__(self, folder):
        self.folder, self.processes = folder, []
        file = folder / "scheduler.json"
        self.start("scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", file)
        until(file.exists)
        until(lambda: "address" in file.read_text())
        self.address = file.read_text().partition('"address": "')[2].partition('"')[0]

    def start(self, what, *arguments, **environment):
        with (self.folder / f"{what}-{len(self.processes)}.log").open("w") as log:
            self.processes.append(
                subprocess.Popen(
                    [sys.executable, "-m", f"distributed.cli.dask_{what}", *map(str, arguments)],
                    cwd=ROOT,
                    env=os.environ | environment,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                )
            )

    def start_worker(self, preload, **environment):
        """Start a worker that imports the module `preload` first."""
        options = ["--nthreads", "2", "--memory-limit", "0", "--no-dashboard", "--no-nanny", "--preload", preload]
        options += ["--local-directory", self.folder]
        self.start("worker", self.address, *options, **environment)

    def end(self):
        for process in self.processes:
            for one in [*psutil.Process(process.pid).children(recursive=True), process]:
                one.send_signal(signal.SIGKILL)
            process.wait()


def has_workers(address):
    try:
        return bool(check_dask_scheduler(address))
    except ConfigError:
        return False
