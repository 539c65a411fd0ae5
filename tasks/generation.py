"""A shard of images: the one task that needs a GPU."""

import contextvars
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any, TypeVar

from prefect import task
from prefect.client.schemas.objects import State
from prefect.context import TaskRunContext
from prefect.states import Cancelled

from t2i_core.drawing import Model, Speed, Weights
from t2i_core.errors import Stopped
from t2i_core.generate import Making, generate_shard
from t2i_core.shards import Shard
from t2i_core.spec import ImageSpec
from t2i_core.store import Store
from tasks.caching import TASK_OPTIONS, RecipeKey

T = TypeVar("T")


class ShardIncomplete(Exception):
    """Some images of a shard could not be made for a reason that may pass; those that could are on disk."""


SHARD_RECIPE = "shard-v2"
SPEED_RECIPE = "speed-v1"


@dataclass(slots=True)
class ThisProcess:
    """How the flow and the shards that run in its own process talk: a stop for them, news of images from them."""

    stop: threading.Event = field(default_factory=threading.Event)
    on_images: Callable[[int], None] = lambda count: None
    # One shard uses the device at a time, and always in this thread: on the CPU every thread that calls torch has
    # helpers of its own, and two sets of them make a third of the speed go (measured on two cores).
    device: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, thread_name_prefix="device"))
    _running: int = 0
    _changed: threading.Condition = field(default_factory=threading.Condition)

    def on_device(self, call: Callable[[], T]) -> T:
        """Run `call` in the device's thread; what it logs belongs to the run of this thread."""
        return self.device.submit(contextvars.copy_context().run, call).result()

    @contextmanager
    def counting(self) -> Iterator[Callable[[int], None]]:
        """News of a shard's images. Taken back if the shard fails: it counts them again when it is tried again."""
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
        """Around the work of a shard."""
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


# A shard on another machine has one of its own: it stops with its process, and the flow counts whole shards.
THIS_PROCESS = ThisProcess()


@task(
    name="generate",
    task_run_name="generate {shard.number}/{shard.total}",
    cache_policy=RecipeKey(recipe=SHARD_RECIPE),
    **TASK_OPTIONS,
)
def generate_shard_task(
    cache_key: str, shard: Shard, output: str, weights: Weights, making: Making
) -> dict[str, Any] | State[Any]:
    """Make what of the shard is not on disk; return the records of its images and where the time went.

    Where images failed for a reason that may pass, the task fails and is tried again; the last try returns what there
    is, so that the records of what failed for good are stored all the same.

    Raises:
        ShardIncomplete: while there are retries left.
    """

    def model() -> Model:
        # torch and diffusers take seconds to import: only where something is made.
        from t2i_core.engine.load import load_model

        return load_model(weights)

    with THIS_PROCESS.running(), THIS_PROCESS.counting() as count:
        try:
            result = generate_shard(
                shard,
                Store(output),
                making,
                model,
                on_device=THIS_PROCESS.on_device,
                on_images=count,
                should_stop=THIS_PROCESS.stop.is_set,
            )
        except Stopped:
            return Cancelled(message="stopped; the next run goes on")
        context = TaskRunContext.get()
        assert context is not None, "a task runs in its context"
        if result.failures and context.task_run.run_count <= context.task.retries:
            raise ShardIncomplete(f"{len(result.failures)} images not made: {next(iter(result.failures.values()))}")
    return asdict(result)


@task(name="measure speed", task_run_name="measure speed", cache_policy=RecipeKey(recipe=SPEED_RECIPE), **TASK_OPTIONS)
def measure_speed_task(cache_key: str, weights: Weights, spec: ImageSpec, batch_size: int | None) -> dict[str, Any]:
    """What an image like `spec` costs in batches of `batch_size`; None: in those that are best."""
    from t2i_core.engine.calibrate import best_batch_size, measure
    from t2i_core.engine.load import load_model

    def measured() -> Speed:
        drawer, should_stop = load_model(weights), THIS_PROCESS.stop.is_set
        if batch_size is None:
            return best_batch_size(drawer, spec, should_stop)
        return measure(drawer, spec, batch_size, should_stop)

    with THIS_PROCESS.running():
        return asdict(THIS_PROCESS.on_device(measured))


def in_window(shards: Iterator[Shard], submit: Callable[[Shard], Any], window: int) -> Iterator[tuple[Shard, Any]]:
    """(shard, its finished future) in order, with at most `window` shards submitted and unfinished."""
    waiting: list[tuple[Shard, Any]] = []
    for shard in shards:
        waiting.append((shard, submit(shard)))
        if len(waiting) == window:
            yield waiting.pop(0)
    yield from waiting
