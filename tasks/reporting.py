"""What people see while a run goes on, and after it."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from tqdm import tqdm

from t2i_core.manifest import Outcome
from t2i_core.report import Report, write_report
from t2i_core.store import Store
from tasks.generation import THIS_PROCESS

# Between two lines of the bar where it cannot redraw itself: in a log file.
LOG_INTERVAL_SECONDS = 30


@task(name="report", cache_policy=NO_CACHE, persist_result=False)
def report_task(report: Report, outcome: Outcome) -> None:
    """run.json and the contact sheet."""
    write_report(report, outcome, Store(report.config.output))


@contextmanager
def progress(total: int) -> Iterator["tqdm[Any]"]:
    """A bar of images made, fed by the shards that run in this process."""
    terminal = sys.stderr.isatty()
    with tqdm(
        total=total, unit="image", disable=not total, mininterval=0.5 if terminal else LOG_INTERVAL_SECONDS
    ) as bar:
        lock = Lock()

        def advance(count: int) -> None:
            with lock:  # several threads write images
                bar.update(count)

        THIS_PROCESS.on_images = advance
        try:
            yield bar
        finally:
            THIS_PROCESS.on_images = lambda count: None
