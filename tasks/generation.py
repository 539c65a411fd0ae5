"""A shard of images: the one task that needs a GPU."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from prefect import task

from t2i_core.generate import LoadedModel, Making, Weights, generate_shard
from t2i_core.shards import Shard
from t2i_core.store import Store
from tasks.caching import TASK_OPTIONS, RecipeKey

SHARD_RECIPE = "shard-v1"


@dataclass(slots=True)
class ThisProcess:
    """How the flow and the shards that run in its own process talk: a stop for them, news of images from them."""

    stop: threading.Event
    idle: threading.Event
    on_images: Callable[[int], None]


# A shard on another machine has one of its own: it stops with its process, and the flow counts whole shards.
THIS_PROCESS = ThisProcess(threading.Event(), threading.Event(), lambda count: None)
THIS_PROCESS.idle.set()


@task(
    name="generate",
    task_run_name="generate {shard.number}/{shard.total}",
    cache_policy=RecipeKey(recipe=SHARD_RECIPE),
    **TASK_OPTIONS,
)
def generate_shard_task(
    cache_key: str, shard: Shard, output: str, weights: Weights, making: Making
) -> list[dict[str, Any]]:
    """Make what of the shard is not on disk; return the records of its images."""

    def model() -> LoadedModel:
        # torch and diffusers take seconds to import: only where something is made.
        from t2i_core.engine.load import load_model

        return load_model(weights)

    THIS_PROCESS.idle.clear()
    try:
        records = generate_shard(
            shard,
            Store(output),
            making,
            model,
            on_images=THIS_PROCESS.on_images,
            should_stop=THIS_PROCESS.stop.is_set,
        )
    finally:
        THIS_PROCESS.idle.set()
    return [asdict(record) for record in records]


def in_window(shards: Iterator[Shard], submit: Callable[[Shard], Any], window: int) -> Iterator[tuple[Shard, Any]]:
    """(shard, its finished future) in order, with at most `window` shards submitted and unfinished."""
    waiting: list[tuple[Shard, Any]] = []
    for shard in shards:
        waiting.append((shard, submit(shard)))
        if len(waiting) == window:
            yield waiting.pop(0)
    yield from waiting
