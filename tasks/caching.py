"""The task result cache: readable versioned keys, results beside the output, and the one reader of stored results.

What was tried with Prefect 3.8.8 and explains this module:
- `result_storage` takes a plain Path through `with_options`; an unsaved block raises TypeError.
- To Prefect a result that is there is a hit, even if the files that it names are gone; only a truncated one is a miss.
  A task that healed something would be `Cached` the next time, and heal nothing. So `ResultCache` checks each hit with
  `is_valid`, and runs the task again with `refresh_cache` if that fails.
- A stored result that names the pickle serializer runs its code as soon as Prefect looks at it, whatever serializer the
  task has; the JSON decoder imports any `__class__`. So every result is read here first, and one that is not plain JSON
  is removed before Prefect sees it.
- An input that cannot be hashed switches Prefect's own policies off silently: here the caller names the key.
"""

import json
import logging
import os
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from prefect import Task
from prefect.cache_policies import CachePolicy
from prefect.client.schemas.objects import State, TaskRun
from prefect.context import TaskRunContext
from prefect.utilities.annotations import quote

from t2i_core.errors import HubUnavailable, MeasureFailed, Stopped, UserError
from t2i_core.hashing import digest
from t2i_core.json_values import checked
from t2i_core.storage.files import entries, in_threads, portions_of, read_regular, remove_if_stale
from t2i_core.system_errors import is_lasting

log = logging.getLogger(__name__)

# Names in a JSON result by which Prefect would import or raise something.
_FORBIDDEN = ("__class__", "__exc_type__")


@dataclass
class VersionedKey(CachePolicy):
    """Stores a task's result under `<version>/<cache_key>`, a path below the result storage.

    `version` names the task and the version of what it stores; the task's argument `cache_key` is a digest of
    everything that the result depends on.
    """

    version: str = ""

    def compute_key(
        self, task_ctx: TaskRunContext, inputs: dict[str, Any], flow_parameters: dict[str, Any], **kwargs: Any
    ) -> str | None:
        """Return the key under which Prefect stores the result."""
        return f"{self.version}/{inputs['cache_key']}"


def is_transient(task: Task[Any, Any], task_run: TaskRun, state: State[Any]) -> bool:
    """Return whether a failed task may succeed when it is run again: not after wrong use, a stop, or on a full disk."""
    error = state.data
    if isinstance(error, OSError):
        return not is_lasting(error)
    return isinstance(error, HubUnavailable) or not isinstance(error, UserError | Stopped | MeasureFailed)


# Before the first, second, ... retry; the last one repeats.
RETRY_SECONDS: list[float] = [2, 10, 30, 60]

# What every task of this project has in common: JSON results on disk, not in memory (measured: 10 KB a task run).
TASK_OPTIONS: dict[str, Any] = {
    "persist_result": True,
    "result_serializer": "json",
    "cache_result_in_memory": False,
    "retry_condition_fn": is_transient,
}


def cache_key(*parts: object) -> str:
    """Return a digest of what a result depends on."""
    return digest(list(parts))


def data(*values: object) -> list[Any]:
    """Wrap arguments of a task in `quote`, so that Prefect does not search them for results of other tasks.

    It would walk through every prompt of a shard, and draw arrows between tasks that have nothing in common.
    """
    return [quote(value) for value in values]


def _always_valid(stored: Any) -> bool:
    return True


def read_by(read: Callable[[Any], Any]) -> Callable[[Any], bool]:
    """Return a test whether `read` makes of a stored result a dataclass with fields of the declared types."""
    return lambda stored: bool(checked(read(stored)))


class ResultCache:
    """The stored results of one output folder."""

    def __init__(self, folder: Path, retries: int) -> None:
        self.folder = folder.absolute()
        self.retries = retries

    def call(
        self,
        task: Task[..., Any],
        key: str,
        *arguments: Any,
        is_valid: Callable[[Any], bool] = _always_valid,
        elsewhere: Callable[..., Any] | None = None,
    ) -> Any:
        """Return the task's stored result if there is one and it `is_valid`, else that of running it now.

        `elsewhere(task, *arguments)`: runs it, where that is not here.
        """
        bound = self.bind(task, refresh=not self.holds(task, key, is_valid))
        if elsewhere is not None:
            return elsewhere(bound, key, *data(*arguments))
        return bound(key, *data(*arguments))

    def holds(self, task: Task[..., Any], key: str, is_valid: Callable[[Any], bool] = _always_valid) -> bool:
        """Return whether `call` would find a result that is valid, and not run the task."""
        stored = self.read(result_name(task, key))
        try:
            return stored is not None and is_valid(stored)
        except (LookupError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
            log.info("stored result %s is of another form (%s); it counts as missing", result_name(task, key), error)
            return False

    def call_afresh(self, task: Task[..., Any], key: str, *arguments: Any) -> Any:
        """Run the task now, whatever is stored, and store its result."""
        return self.bind(task, refresh=True)(key, *data(*arguments))

    def bind(self, task: Task[..., Any], *, refresh: bool) -> Task[..., Any]:
        """Return `task`, storing its result here. `refresh`: it runs even if a result is stored."""
        return task.with_options(
            result_storage=self.folder,
            refresh_cache=refresh,
            retries=self.retries,
            retry_delay_seconds=RETRY_SECONDS,  # here: Prefect works delays out for the retries of the same call
            retry_jitter_factor=0.5,
        )

    def read(self, name: str) -> Any | None:
        """Return the stored result `name`; None where there is none, or none that is whole and plain JSON.

        A result that names another serializer or carries type names is removed: Prefect would run what it names.
        """
        path = self.folder / name
        try:
            stored = json.loads(read_regular(path))
            serializer = stored["metadata"]["serializer"]["type"]
            if serializer != "json":
                raise _Refused(f"it names the serializer {serializer!r}")
            return json.loads(stored["result"], object_hook=_plain)
        except FileNotFoundError:
            return None
        except _Refused as refusal:
            log.warning("stored result %s removed: %s; only plain JSON is read", path, refusal)
            path.unlink(missing_ok=True)
        except (ValueError, LookupError, TypeError, RecursionError):
            # Left where it is: another run may be writing it just now, and to Prefect, too, it counts as missing.
            log.info("stored result %s is torn; it counts as missing", path)
        return None

    def forget(self, name: str) -> None:
        """Remove the stored result `name`, if it is there and may be removed."""
        with suppress(OSError):
            (self.folder / name).unlink()

    def forget_others(self, names: Collection[str]) -> None:
        """Remove the results stored beside those of `names`, of the same tasks, that no run can still be reading."""
        for version in {name.partition("/")[0] for name in names}:
            for name, *_ in self.listing(version):
                if name not in names:
                    remove_if_stale(self.folder / name)

    def listing(self, version: str) -> list[tuple[str, int, int]]:
        """Return (name, size, mtime_ns) of every stored result of `version`, sorted; one directory scan."""

        def listed(files: list[os.DirEntry[str]]) -> list[tuple[str, int, int]]:
            result = []
            for file in files:
                with suppress(FileNotFoundError):  # another run has compacted it
                    if file.is_file():
                        result.append((f"{version}/{file.name}", file.stat().st_size, file.stat().st_mtime_ns))
            return result

        found = in_threads(listed, portions_of(entries(self.folder / version)))
        return sorted(chain.from_iterable(found))


class _Refused(Exception):
    """A stored result that Prefect must not see."""


def result_name(task: Task[..., Any], key: str) -> str:
    """Return under which name the result of a task is stored."""
    policy = task.cache_policy
    assert isinstance(policy, VersionedKey)
    return f"{policy.version}/{key}"


def _plain(value: dict[str, Any]) -> dict[str, Any]:
    for name in _FORBIDDEN:
        if name in value:
            raise _Refused(f"it carries {name}")
    return value
