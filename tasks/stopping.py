"""Stopping: a cancel in Prefect that no worker passes on, and signals that must not end the writing of the manifest."""

import contextvars
import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID

from prefect import get_client
from prefect.exceptions import CancelledRun, TerminationSignal
from prefect.runtime import flow_run

from t2i_core.config import Config
from t2i_core.errors import Stopped
from tasks.process import THIS_PROCESS
from tasks.server_wait import WAIT

log = logging.getLogger(__name__)

ASK_SECONDS = 5


class Cancel:
    """Whether the run of this thread was cancelled in Prefect; `press` interrupts the thread, if it is the main one."""

    def __init__(self) -> None:
        self._thread = threading.current_thread()
        self._lock = threading.Lock()
        self._pressed, self._ended = threading.Event(), threading.Event()
        self._is_looked_at = False

    @property
    def pressed(self) -> bool:
        """Whether the run was cancelled."""
        return self._pressed.is_set()

    def press(self) -> None:
        """Stop the run, as SIGTERM does, also in the midst of a call that waits; not once it has ended or stops."""
        with self._lock:
            if self._ended.is_set():
                return
            self._pressed.set()
            THIS_PROCESS.stop.set()
            main = threading.main_thread()
            interrupts = self._thread is main and not self._is_looked_at
            # A signal is heeded by Prefect's handler in a flow; it is ignored while a stopped run writes its files.
            if interrupts and main.ident and callable(signal.getsignal(signal.SIGTERM)):
                signal.pthread_kill(main.ident, signal.SIGTERM)

    @contextmanager
    def looked_at(self) -> Iterator[None]:
        """Do not interrupt the block, which ends by itself when this process is to stop.

        Raises:
            TerminationSignal: after the block, where the run was cancelled.
        """
        with self._lock:
            self._is_looked_at = True
        try:
            yield
        finally:
            with self._lock:
                self._is_looked_at = False
        if self.pressed:
            raise TerminationSignal(signal.SIGTERM)

    def wait_for_end(self, seconds: float) -> bool:
        """Wait so long for `end`; return whether it came."""
        return self._ended.wait(seconds)

    def end(self) -> None:
        """Interrupt nothing from now on: the run has ended, or stops already."""
        while not self._ended.is_set():
            try:
                with self._lock:
                    self._ended.set()
            except TerminationSignal:  # an interrupt that was on its way
                if not self.pressed:
                    self._ended.set()
                    raise


def runner_process() -> int | None:
    """Return the process that ends this one with a signal when its run is cancelled: the worker or runner, its parent.

    None for a run from the command line, and where the worker was killed before this run started: a process that lost
    its parent belongs to process 1. To ask Prefect without need, where process 1 is the worker, does no harm.
    """
    parent = os.getppid()
    return parent if "PREFECT__FLOW_RUN_ID" in os.environ and parent != 1 else None


@contextmanager
def heeding_cancel(cancel: Cancel, runner: int | None) -> Iterator[None]:
    """Stop what this thread does when the flow run is cancelled in Prefect and no worker passes that on.

    That is so for a run from the command line, and where the worker was killed. `runner`: what `runner_process`
    returned when the run started. Outside of the main thread, which alone gets signals, only the shards are stopped.

    Raises:
        TerminationSignal: in the block, as on SIGTERM.
    """
    in_this_run = contextvars.copy_context().run
    arguments = (_watch, UUID(flow_run.get_id()), runner, cancel)
    try:
        threading.Thread(target=in_this_run, args=arguments, name="cancel", daemon=True).start()
        yield
    finally:
        cancel.end()


def after_cancel(error: BaseException, said: str) -> str:
    """Return what a cancelled run says at its end: `said`, and what else went wrong while it stopped."""
    if isinstance(error, TerminationSignal | CancelledRun | Stopped):
        return said
    log.error("stopped   %s: %s", type(error).__name__, error)
    return f"{said}; {error}"


@contextmanager
def ignoring_sigterm() -> Iterator[None]:
    """Ignore SIGTERM for the block: a second one (a terminal and a worker at once) must not stop what it writes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _ctrl_c_waits() -> Iterator[None]:
    """Let a Ctrl-C wait for the end of the block, where libraries could swallow it: those that pass on log lines do.

    Raises:
        KeyboardInterrupt: after the block, if Ctrl-C was pressed within it.
    """
    here = threading.current_thread() is threading.main_thread()
    if not here or not callable(signal.getsignal(signal.SIGINT)):  # it is ignored, as by `nohup ... &`
        yield
        return
    pressed: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: pressed.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if pressed:
        raise KeyboardInterrupt


@contextmanager
def second_means_now(config: Config) -> Iterator[None]:
    """Say how to leave at once while the block stops a run and writes its files; on another Ctrl-C do so.

    Raises:
        KeyboardInterrupt: on another Ctrl-C; neither the device nor Prefect's server is waited for.
    """
    try:
        with _ctrl_c_waits():  # who reads the line on a terminal may answer before the next handler has it
            log.info("stopping  and writing what there is; Ctrl-C once more leaves at once, without that")
        yield
    except KeyboardInterrupt:
        THIS_PROCESS.stop.set()  # it may come before the block has asked for that
        THIS_PROCESS.give_up()
        WAIT.leave_now()
        log.warning("stopped   at once: %s; run the same command again to go on", _missing(config))
        raise


def _missing(config: Config) -> str:
    """Return what a run that left while it was stopping did not write."""
    kept = "images that were made are kept"
    if config.preview or config.part:
        return kept
    manifest = Path(config.output) / config.manifest_name
    return f"{manifest} is that of an earlier run; {kept}" if manifest.exists() else f"there is no {manifest}; {kept}"


def _watch(run: UUID, runner: int | None, cancel: Cancel) -> None:
    """Ask Prefect every few seconds whether the run was cancelled, unless the runner lives and would say so."""
    while not cancel.wait_for_end(ASK_SECONDS):
        if runner is not None and os.getppid() == runner:
            continue
        try:
            with WAIT.not_waiting():
                state = get_client(sync_client=True).read_flow_run(run).state
        except Exception as error:  # the server may be back the next time
            log.debug("whether the run is cancelled is not known: %s", error)
            continue
        if state is not None and (state.is_cancelling() or state.is_cancelled()):
            cancel.press()  # once more each time: whatever the main thread is in may swallow an interrupt
