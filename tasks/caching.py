"""The task result cache: readable versioned keys, results beside the output, and the one reader of stored results.

What was tried with Prefect 3.8.8 and explains this module:
- `result_storage` takes a plain Path through `with_options`; an unsaved block raises TypeError.
- A stored result's *presence* is a hit. A truncated one counts as a miss. A task that healed something is `Cached` the
  next time and heals nothing: so each hit is checked here, and the task submitted with `refresh_cache` if it is stale.
- A stored result that names the pickle serializer runs its code as soon as Prefect looks at it, whatever serializer the
  task has; the JSON decoder imports any `__class__`. So every result is read here first, and one that is not plain JSON
  is removed before Prefect sees it.
- An input that cannot be hashed switches Prefect's own policies off silently: here the caller names the key.
"""

import json
import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefect import Task
from prefect.cache_policies import CachePolicy
from prefect.client.schemas.objects import State, TaskRun
from prefect.context import TaskRunContext
from prefect.utilities.annotations import quote

from t2i_core.errors import HubUnavailable, MeasureFailed, Stopped, UserError
from t2i_core.spec import digest

log = logging.getLogger(__name__)

# Names by which JSON results would make Prefect import or raise something.
_FORBIDDEN = ("__class__", "__exc_type__")


@dataclass
class RecipeKey(CachePolicy):
    """`<recipe>/<digest>`: the recipe names the step and its version, the task's `cache_key` argument the rest."""

    recipe: str = ""

    def compute_key(
        self, task_ctx: TaskRunContext, inputs: dict[str, Any], flow_parameters: dict[str, Any], **kwargs: Any
    ) -> str | None:
        """The key under which the result is stored, a path below the result storage."""
        return f"{self.recipe}/{inputs['cache_key']}"


def is_passing(task: Task[Any, Any], task_run: TaskRun, state: State[Any]) -> bool:
    """Whether a failed task may succeed when run again: not for wrong use, not after a stop."""
    error = state.data
    return isinstance(error, HubUnavailable) or not isinstance(error, UserError | Stopped | MeasureFailed)


# Before the first, second, ... retry; the last one repeats.
RETRY_SECONDS: list[float] = [2, 10, 30, 60]

# What every task of this project has in common: JSON results on disk, not in memory (measured: 10 KB a task run).
TASK_OPTIONS: dict[str, Any] = {
    "persist_result": True,
    "result_serializer": "json",
    "cache_result_in_memory": False,
    "retry_condition_fn": is_passing,
}


def cache_key(*parts: object) -> str:
    """A digest of what a result depends on."""
    return digest(list(parts))


def data(*values: object) -> list[Any]:
    """Arguments of tasks that Prefect need not search for results of other tasks.

    It would walk through every prompt of a shard, and draw arrows between tasks that have nothing in common.
    """
    return [quote(value) for value in values]


class ResultCache:
    """The stored results of one output folder."""

    def __init__(self, folder: Path, retries: int) -> None:
        self.folder = folder.absolute()
        self.retries = retries

    def call(self, task: Task[..., Any], key: str, still_true: Callable[[Any], bool], *arguments: Any) -> Any:
        """The task's stored result if it is there and `still_true`, else that of running it now."""
        return self.bind(task, key, still_true)(key, *data(*arguments))

    def bind(self, task: Task[..., Any], key: str, still_true: Callable[[Any], bool]) -> Task[..., Any]:
        """`task`, storing its result here, and run afresh unless its stored result is there and `still_true`."""
        policy = task.cache_policy
        assert isinstance(policy, RecipeKey)
        stored = self.read(f"{policy.recipe}/{key}")
        hit = stored is not None and still_true(stored)
        return task.with_options(
            result_storage=self.folder,
            refresh_cache=not hit,
            retries=self.retries,
            retry_delay_seconds=RETRY_SECONDS,  # here: Prefect works delays out for the retries of the same call
            retry_jitter_factor=0.5,
        )

    def read(self, name: str) -> Any | None:
        """The stored result `name`, or None where there is none, or none that is whole and plain JSON.

        A result that names another serializer or carries type names is removed: Prefect would run what it names.
        """
        path = self.folder / name
        try:
            stored = json.loads(path.read_bytes())
            serializer = stored["metadata"]["serializer"]["type"]
            if serializer != "json":
                raise _Refused(f"it names the serializer {serializer!r}")
            return json.loads(stored["result"], object_hook=_plain)
        except FileNotFoundError:
            return None
        except _Refused as refusal:
            log.warning("stored result %s removed: %s; only plain JSON is read", path, refusal)
            path.unlink(missing_ok=True)
        except (ValueError, KeyError, TypeError, RecursionError):
            # Left where it is: another run may be writing it just now, and to Prefect, too, it counts as missing.
            log.info("stored result %s is torn; it counts as missing", path)
        return None

    def listing(self, recipe: str) -> list[tuple[str, int, int]]:
        """(name, size, mtime_ns) of every stored result of `recipe`, sorted; one directory scan."""
        try:
            entries: Iterator[os.DirEntry[str]] = os.scandir(self.folder / recipe)
        except FileNotFoundError:
            return []
        return sorted((f"{recipe}/{e.name}", e.stat().st_size, e.stat().st_mtime_ns) for e in entries if e.is_file())


class _Refused(Exception):
    pass


def _plain(value: dict[str, Any]) -> dict[str, Any]:
    for name in _FORBIDDEN:
        if name in value:
            raise _Refused(f"it carries {name}")
    return value
