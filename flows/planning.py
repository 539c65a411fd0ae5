"""The plan of a run, written in a thread: of a long data set, images are made while the rest of it is still read."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from threading import Event
from types import TracebackType
from typing import Any, Self, TypeVar

from flows.resolve import Resolved
from t2i_core.dataset.sources import Parts, fingerprint
from t2i_core.json_values import checked
from t2i_core.planning.growing import Growth
from t2i_core.planning.plan import Plan
from t2i_core.storage.workspace import Workspace
from tasks.caching import ResultCache, cache_key
from tasks.dataset import load_dataset_task
from tasks.process import THIS_PROCESS, result_of

T = TypeVar("T")


class Planning:
    """The plan of a run while it is written, or as an earlier run wrote it.

    A context manager: its thread ends with it, or soon after it where it ends with an error. `growth` tells which
    segments of the plan can be read by now.
    """

    def __init__(self, resolved: Resolved, found: Parts, workspace: Workspace, cache: ResultCache) -> None:
        """`found`: what the data set consists of, hashed."""
        self.digest = cache_key(fingerprint(found), resolved.plan_settings(), found.row_files)
        self.growth = Growth(lambda: self._left.is_set() or THIS_PROCESS.stop.is_set())
        self._left = Event()
        self._resolved, self._found, self._plans, self._cache = resolved, found, workspace.plans, cache
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="planning")

    def __enter__(self) -> Self:
        self._plan = self._in_thread(self._write)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._left.set()
        self._pool.shutdown(wait=error is None, cancel_futures=error is not None)

    def is_new(self) -> bool:
        """Return whether no earlier run wrote the plan."""
        return not self._cache.holds(load_dataset_task, self.digest, self._still_there)

    def plan(self) -> Plan:
        """Wait for the plan, and return it.

        Raises:
            DatasetError: of the data set, where it cannot be used.
        """
        return result_of(self._plan)

    def begun(self, seconds: float) -> Plan | None:
        """Return the plan; None where that takes longer than `seconds`, once its first images are known.

        Raises:
            DatasetError: of the data set, where it cannot be used.
        """
        try:
            return self._plan.result(seconds)
        except TimeoutError:
            self.growth.wait_for_images()
            return self._plan.result() if self._plan.done() else None

    def written(self) -> Plan | None:
        """Return the plan if it is there by now."""
        return self._plan.result() if self._plan.done() and not self._plan.exception() else None

    def then(self, call: Callable[[Plan], T]) -> "Future[T]":
        """Run `call` in the thread once the plan is there, while the caller goes on."""
        return self._in_thread(lambda: call(self._plan.result()))

    def _in_thread(self, call: Callable[[], T]) -> "Future[T]":
        # Its log lines and its task belong to the flow run of the caller.
        return self._pool.submit(copy_context().run, call)

    def _still_there(self, stored: dict[str, Any]) -> bool:
        return checked(Plan(**stored)).exists(self._plans)

    def _write(self) -> Plan:
        run = self._resolved
        arguments = (run.config, run.settings, run.preset, self._found, self.growth)
        try:
            plan = Plan(**self._cache.call(load_dataset_task, self.digest, *arguments, is_valid=self._still_there))
        except BaseException as error:
            self.growth.end(error)
            raise
        self.growth.note(plan.segments, plan.images)
        self.growth.end()
        return plan
