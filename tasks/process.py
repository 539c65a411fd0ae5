"""What a process shares between the flow and the shards that run in it: the device's thread, a stop, news of images.

It also knows how long it took until the flow began.

A shard in another process has a `ThisProcess` of its own, which `tasks/elsewhere.py` connects with the flow's.
"""

import contextvars
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

import psutil

from t2i_core.errors import Stopped
from t2i_core.generation.interface import OnStep

T = TypeVar("T")

LOOK_SECONDS = 0.5
# Shards that a process has in hand: one generates, while the last images of the other are being written.
THREADS = 2
# How long a device may work without a step or an image.
HANG_SECONDS = 1800.0


@dataclass(slots=True)
class ThisProcess:
    """The shards that run in this process.

    `on_images` and `on_step` are those of whoever shows progress: they are told how many images were made, and which
    denoising step of how many is done.
    """

    run: str = ""  # the run whose shards this process makes
    stop: threading.Event = field(default_factory=threading.Event)
    on_images: Callable[[int], None] = lambda count: None
    on_step: OnStep = lambda step, steps: None
    # Digest of a shard that this process has in hand -> how many of its images are done.
    images: dict[str, int] = field(default_factory=dict)
    # Denoising steps that were made so far.
    steps: int = 0
    # Whether the device may be found hanging: not a CPU, on which a single step may take hours.
    may_hang: bool = False
    # When the device's thread last began something, or told of a step or an image.
    _sign_of_life: float = field(default_factory=time.monotonic)
    # Whether this process was started for the run that comes next: by a worker; the command line says so itself.
    started_for_run: bool = field(default_factory=lambda: "PREFECT__FLOW_RUN_ID" in os.environ)
    # One shard uses the device at a time, and always in this thread: on the CPU every thread that calls torch has
    # helpers of its own, and two sets of them cost a third of the speed (measured on two cores).
    _device: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, thread_name_prefix="device"))
    # Done once nobody waits for the device any more.
    _given_up: "Future[None]" = field(default_factory=Future)
    # Threads whose caller waits for them no more.
    _abandoned: list[threading.Thread] = field(default_factory=list)
    _in_use: bool = False
    # Which model was asked for last, and whether it has made a step: until then it may load from a slow disk, and
    # compile. Some tell of no steps.
    _model: object = None
    _stepped: bool = False
    _running: int = 0
    _changed: threading.Condition = field(default_factory=threading.Condition)

    def start_run(self, run: str) -> None:
        """Make shards of `run` from now on, and forget the stop of an earlier run in this process."""
        self.run = run
        self.stop.clear()
        self._given_up = Future()

    def startup_seconds(self) -> float:
        """Return how long ago this process was started, where that was for the run that begins now; else 0."""
        seconds = _age() if self.started_for_run else 0.0
        self.started_for_run = False
        return seconds

    def on_device(self, call: Callable[[], T]) -> T:
        """Run `call` in the device's thread; its log lines belong to the task run of the calling thread.

        Raises:
            Stopped: after `give_up`; the device goes on by itself until `call` ends.
        """

        def run() -> T:
            self._in_use = True
            self._sign_of_life = time.monotonic()
            try:
                return call()
            finally:
                self._in_use = False

        future = self._device.submit(contextvars.copy_context().run, run)
        either: list[Future[Any]] = [future, self._given_up]
        wait(either, return_when=FIRST_COMPLETED)
        if not future.done():
            future.cancel()
            raise Stopped
        return future.result()

    def give_up(self) -> None:
        """Wait for the device no longer: a single denoising step may take minutes, and cannot be interrupted."""
        if not self.gave_up:
            self._given_up.set_result(None)
            self._leave_at_the_end()

    def abandon(self, thread: threading.Thread) -> None:
        """Wait for a thread no longer, which may go on for hours."""
        self._abandoned.append(thread)
        self._leave_at_the_end()

    def forgive(self, seconds: float) -> None:
        """Take this process for so much less silent: it was itself stopped for a while."""
        self._sign_of_life += seconds

    @property
    def gave_up(self) -> bool:
        """Whether nobody waits for the device any more."""
        return self._given_up.done()

    @property
    def is_busy(self) -> bool:
        """Whether the device works, or a thread that was abandoned: Python would wait for them at its end."""
        return self._in_use or any(thread.is_alive() for thread in self._abandoned)

    def _leave_at_the_end(self) -> None:
        """Let Python end all the same, where a worker of Prefect started this process for a run.

        `flows/running.py` does so for the command line. Of another program that calls flows the end is its own affair.
        """
        if "PREFECT__FLOW_RUN_ID" not in os.environ:
            return
        from tasks.server_wait import everything_sent  # which a flow has imported already

        def leave() -> None:
            if self.is_busy:
                everything_sent()
                os._exit(0)  # the state is told

        # Before Python waits for its threads: the last one that is registered is the first to be called.
        with suppress(RuntimeError):  # the interpreter is ending already
            threading._register_atexit(leave)  # type: ignore[attr-defined]

    def silent_seconds(self) -> float:
        """Return for how long the device has been busy without a step or an image; 0 where it is idle."""
        return time.monotonic() - self._sign_of_life if self._in_use else 0.0

    def hangs(self) -> bool:
        """Return whether the device makes no step and no image for longer than it may, after the model's first step.

        Of a model that tells of no steps it is not known.
        """
        return self.may_hang and self._stepped and self.silent_seconds() > HANG_SECONDS

    def note_model(self, model: object) -> None:
        """Note which model is used from now on, whether it is loaded already or not."""
        if model != self._model:
            self._model, self._stepped = model, False

    def note_step(self, step: int, steps: int) -> None:
        """Note that a denoising step is done."""
        self._sign_of_life, self._stepped = time.monotonic(), True
        self.steps += 1
        self.on_step(step, steps)

    @contextmanager
    def counting(self, shard: str) -> Iterator[Callable[[int], None]]:
        """Give a shard a counter of its images. If the shard fails, its images are taken back: it is tried again.

        A flow that lost its connection may submit a shard again that this process still has in hand: it waits here.
        `shard`: its digest.
        """
        lock = threading.Lock()
        with self._changed:
            self._changed.wait_for(lambda: shard not in self.images)
            self.images[shard] = 0

        def count(images: int) -> None:
            with lock:  # several threads write images
                self.images[shard] += images
            self._sign_of_life = time.monotonic()
            self.on_images(images)

        try:
            yield count
        except Exception:
            self.on_images(-self.images[shard])
            raise
        finally:
            with self._changed:
                del self.images[shard]
                self._changed.notify_all()

    @contextmanager
    def running(self) -> Iterator[None]:
        """Mark a shard as running for the block."""
        with self._changed:
            self._running += 1
        try:
            yield
        finally:
            with self._changed:
                self._running -= 1
                self._changed.notify_all()

    def wait_until_idle(self, seconds: float) -> bool:
        """Wait until no shard runs, or for `seconds`; return whether none runs."""
        deadline = time.monotonic() + seconds
        with self._changed:
            while self._running and (left := deadline - time.monotonic()) > 0:
                # A Ctrl-C that comes just before Python waits is heeded only after that wait.
                self._changed.wait(min(left, LOOK_SECONDS))
            return not self._running


def result_of(future: "Future[T]", look: Callable[[], None] = lambda: None) -> T:
    """Wait for a future, and return its result; call `look` now and then, which may raise.

    Python heeds a Ctrl-C that comes just before a wait only after it, so the waits are short.
    """
    while not future.done():
        wait([future], LOOK_SECONDS)
        look()
    return future.result()


def interruptible(call: Callable[[], T]) -> T:
    """Run `call` in a thread and return its result: a stop need not wait for it.

    huggingface_hub, once interrupted, waits for the files that are half downloaded. Here the thread goes on alone,
    until the process ends.
    """
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(call())
        except BaseException as error:  # raised in the caller's thread
            future.set_exception(error)

    thread = threading.Thread(target=contextvars.copy_context().run, args=(run,), name="fetch", daemon=True)
    thread.start()
    try:
        return result_of(future)
    except BaseException:
        if not future.done():
            THIS_PROCESS.abandon(thread)
        raise


def import_engine() -> None:
    """Import the engine, and with it torch and diffusers: some seconds."""
    from t2i_core.engine.quiet import silence_libraries

    silence_libraries()  # before diffusers is imported
    import t2i_core.engine.load  # noqa: F401


def _age() -> float:
    """Return the seconds since this process was started."""
    created = psutil.Process().create_time()
    if sys.platform == "linux":
        # Linux counts a process's start from its boot, and gives the time of the boot in whole seconds.
        seconds = time.clock_gettime(time.CLOCK_BOOTTIME) - (created - psutil.boot_time())
    else:
        seconds = time.time() - created
    return max(0.0, seconds)


THIS_PROCESS = ThisProcess()
