"""The tasks that need the model: a shard of images, and the measuring of its speed."""

import logging
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefect import task
from prefect.client.schemas.objects import State
from prefect.context import TaskRunContext
from prefect.states import Cancelled

from t2i_core.errors import DeviceLost, Stopped, UserError
from t2i_core.generation.image_writer import RunContext, failure_record
from t2i_core.generation.interface import LoadConfig, Speed
from t2i_core.generation.shard import Hooks, ShardResult, generate_shard
from t2i_core.planning.shards import Shard
from t2i_core.spec import ImageSpec
from t2i_core.storage.image_store import ImageStore
from tasks.caching import TASK_OPTIONS, VersionedKey
from tasks.elsewhere import LOST, here, join_run, leave
from tasks.process import THIS_PROCESS, import_engine

if TYPE_CHECKING:  # torch and diffusers take seconds to import: they are, only where something is made
    from t2i_core.engine.batch_generator import BatchGenerator

log = logging.getLogger(__name__)

SHARD_KEY = "shard-v2"
SPEED_KEY = "speed-v1"

# What went wrong when this process loaded the model of a run: no other shard of the run loads it again in vain.
_FAILED_LOADS: dict[tuple[str | None, LoadConfig], UserError] = {}


class ShardIncomplete(Exception):
    """Some images of a shard could not be made, for a reason that may be transient; the others are stored."""


@task(
    name="generate",
    task_run_name="generate {shard.place}",
    cache_policy=VersionedKey(version=SHARD_KEY),
    **TASK_OPTIONS,
)
def generate_shard_task(
    cache_key: str, shard: Shard, images: ImageStore, load_config: LoadConfig, context: RunContext
) -> Any:
    """Make what of the shard is not stored; return the records of its images and where the time went.

    Where images failed for a reason that may be transient, the task fails and is tried again. The last try returns what
    there is, so that the records of permanent failures are stored all the same.

    Raises:
        ShardIncomplete: while there are retries left.
    """
    return _generate(shard, images, load_config, context)


@task(
    name="record failures",
    task_run_name="record failures",
    cache_policy=VersionedKey(version=SHARD_KEY),
    **TASK_OPTIONS,
)
def record_failures_task(
    cache_key: str, shard: Shard, error: str, context: RunContext, device: str, versions: dict[str, str]
) -> dict[str, Any]:
    """Return the result of a shard whose images cannot be made, and which no process could return itself."""
    records = [failure_record(request, error, context, device, versions) for request in shard.requests]
    return asdict(ShardResult(records, {}, {}))


@task(name="measure speed", task_run_name="measure speed", cache_policy=VersionedKey(version=SPEED_KEY), **TASK_OPTIONS)
def measure_speed_task(
    cache_key: str, load_config: LoadConfig, spec: ImageSpec, batch_size: int | None, run: str, output: Path
) -> dict[str, Any]:
    """Return what an image like `spec` costs in batches of `batch_size`; None: in the batches that are fastest.

    `run` and `output` tell a process that is not the flow's whose stop it heeds.
    """
    return _measure(load_config, spec, batch_size, run, join_run(run, output))


def load_generator(load_config: LoadConfig, run: str | None = None) -> "BatchGenerator":
    """Return the model on its device, loaded once a process.

    Raises:
        UserError: what is wrong with the model; at once for a `run` that has met it before in this process.
    """
    import_engine()
    from t2i_core.engine import load

    if (run, load_config) in _FAILED_LOADS:
        raise _FAILED_LOADS[run, load_config].with_traceback(None)
    THIS_PROCESS.note_model(load_config)
    try:
        generator = load.load_model(here(load_config))
    except UserError as error:
        if run is not None:
            _FAILED_LOADS.clear()  # of earlier runs: files or memory may be others by now
            _FAILED_LOADS[run, load_config] = error
        raise
    THIS_PROCESS.may_hang = generator.torch_device.type != "cpu"
    return generator


# Apart from their tasks: the function of a task goes to another process by value, with the locks that it names; what it
# calls is found there by name. Nor can a `State[Any]` in its signature be found there.


def _generate(
    shard: Shard, images: ImageStore, load_config: LoadConfig, context: RunContext
) -> dict[str, Any] | State[Any]:
    should_stop = join_run(context.run, images.root)
    with THIS_PROCESS.running(), THIS_PROCESS.counting(shard.digest) as count:
        hooks = Hooks(THIS_PROCESS.on_device, count, THIS_PROCESS.note_step, should_stop)
        try:
            result = generate_shard(shard, images, context, lambda: load_generator(load_config, context.run), hooks)
        except Stopped:
            return Cancelled(message="stopped; the next run goes on")
        except Exception:
            _end_if_lost(load_config, context.run)
            raise
        if result.failures:
            _end_if_lost(load_config, context.run)
        task_run = TaskRunContext.get()
        assert task_run is not None, "a task runs in its context"
        if result.failures and task_run.task_run.run_count <= task_run.task.retries:
            raise ShardIncomplete(f"{len(result.failures)} images not made: {next(iter(result.failures.values()))}")
    return asdict(result)


def _measure(
    load_config: LoadConfig, spec: ImageSpec, batch_size: int | None, run: str, should_stop: Callable[[], bool]
) -> dict[str, Any]:
    def measured() -> Speed:
        generator = load_generator(load_config)
        from t2i_core.engine.calibrate import best_batch_size, measure

        if batch_size is None:
            return best_batch_size(generator, spec, should_stop, THIS_PROCESS.note_step)
        return measure(generator, spec, batch_size, should_stop, THIS_PROCESS.note_step)

    with THIS_PROCESS.running():
        try:
            return asdict(THIS_PROCESS.on_device(measured))
        except Stopped:
            raise
        except Exception:
            _end_if_lost(load_config, run)
            raise


def _end_if_lost(load_config: LoadConfig, run: str) -> None:
    """End this process if its device is lost to it: all further images would fail, too, and another process may do.

    Raises:
        DeviceLost: this is the flow's own process.
    """
    import_engine()
    from t2i_core.engine.device import why_lost

    # Not in the device's thread, where it would wait for the next shard.
    if not (why := why_lost(load_config.device)):
        return
    if THIS_PROCESS.run == run:
        raise DeviceLost(
            f"device: {load_config.device} is lost to this process ({why}); --workers 1 goes on in another"
        )
    log.error("worker    its device is lost to it, and it ends: %s", why)
    leave(LOST)
