"""What a process shares between the flow and the shards that run in it: the device's thread, a stop, news of images.

A shard in another process has a `ThisProcess` of its own: it stops with its process, and the flow counts whole shards.
"""

import contextvars
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

T = TypeVar("T")


@dataclass(slots=True)
class ThisProcess:
    """The shards that run in this process. `on_images` is told how many images were made, by whoever shows progress."""

    stop: threading.Event = field(default_factory=threading.Event)
    on_images: Callable[[int], None] = lambda count: None
    # One shard uses the device at a time, and always in this thread: on the CPU every thread that calls torch has
    # helpers of its own, and two sets of them cost a third of the speed (measured on two cores).
    _device: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, thread_name_prefix="device"))
    _running: int = 0
    _changed: threading.Condition = field(default_factory=threading.Condition)

    def on_device(self, call: Callable[[], T]) -> T:
        """Run `call` in the device's thread; its log lines belong to the task run of the calling thread."""
        return self._device.submit(contextvars.copy_context().run, call).result()

    @contextmanager
    def counting(self) -> Iterator[Callable[[int], None]]:
        """Give a shard a counter of its images. If the shard fails, its images are taken back: it is tried again."""
        counted, lock = 0, threading.Lock()

        def count(images: int) -> None:
            nonlocal counted
            with lock:  # several threads write images
                counted += images
            self.on_images(images)

        try:
            yield count
        except Exception:
            self.on_images(-counted)
            raise

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

    def wait_until_idle(self, seconds: float) -> None:
        """Wait until no shard runs, or for `seconds`."""
        with self._changed:
            self._changed.wait_for(lambda: not self._running, seconds)


THIS_PROCESS = ThisProcess()
