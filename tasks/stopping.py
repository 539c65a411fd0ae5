"""How a run is told to stop, besides Ctrl-C and the signal of a worker."""

import contextvars
import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

from prefect import get_client
from prefect.runtime import flow_run

from tasks.generation import THIS_PROCESS

log = logging.getLogger(__name__)

ASK_SECONDS = 5
# Where a worker or runner started this process, it is the parent, and ends it with a signal.
_PARENT = os.getppid()
_HAS_RUNNER = "PREFECT__FLOW_RUN_ID" in os.environ


class CancelledInPrefect(Exception):
    """Somebody cancelled the run; it stops as on a signal."""


@contextmanager
def heeding_cancel() -> Iterator[None]:
    """Stop the shards of this process when the flow run is cancelled in Prefect and no worker passes that on.

    That is so for a run from the command line, and where the worker was killed.

    Raises:
        CancelledInPrefect: after the body, whose shards ended at their next denoising step.
    """
    ended, cancelled = threading.Event(), threading.Event()
    watch = contextvars.copy_context().run
    run = UUID(flow_run.get_id())
    threading.Thread(target=watch, args=(_watch, run, ended, cancelled), name="cancel", daemon=True).start()
    try:
        yield
    finally:
        ended.set()
    if cancelled.is_set():
        raise CancelledInPrefect


@contextmanager
def ignoring_sigterm() -> Iterator[None]:
    """Somebody who asks again (a terminal and a worker at once) must not stop the writing of the manifest."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _watch(run: UUID, ended: threading.Event, cancelled: threading.Event) -> None:
    while not ended.wait(ASK_SECONDS):
        if _HAS_RUNNER and os.getppid() == _PARENT:
            continue
        try:
            state = get_client(sync_client=True).read_flow_run(run).state
        except Exception as error:  # the server may be back the next time
            log.debug("whether the run is cancelled is not known: %s", error)
            continue
        if state is not None and (state.is_cancelling() or state.is_cancelled()):
            cancelled.set()
            THIS_PROCESS.stop.set()
            return
