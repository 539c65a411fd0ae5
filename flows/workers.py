"""`Workers`: what the flow asks of the processes that generate, whatever engine runs them."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from prefect import Task
from prefect.futures import PrefectFuture
from prefect.task_runners import TaskRunner
from prefect.utilities.annotations import quote

from flows.apart import ask_apart
from t2i_core.models.local_files import ModelSource

P = ParamSpec("P")
T = TypeVar("T")


def without_marks(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return parameters of a task without the marks of `data`: on their way to another process these become tuples."""
    return {name: value.unwrap() if isinstance(value, quote) else value for name, value in parameters.items()}


@dataclass(frozen=True, slots=True)
class RunToJoin:
    """What processes have to know of a run to take part in it.

    output: an absolute path. device: as configured. packages: whose versions decide the pixels.
    source: the model, where each machine fetches it for itself.
    """

    run: str
    output: Path
    device: str
    packages: tuple[str, ...]
    source: ModelSource | None


class Workers(ABC):
    """The processes that generate, behind a Prefect task runner. A *place* is one of them, by its address.

    Attributes:
        count: how many there are to be.
        apart: whether they are other processes than this one.
        several: whether there may be more than one.
        deaths: what the engine raises in place of the result of a task whose process died.
        losses: what it raises where a result is lost for a reason that says nothing of the task.
    """

    apart = several = False
    deaths: tuple[type[Exception], ...] = ()
    losses: tuple[type[Exception], ...] = ()

    def __init__(self, runner: TaskRunner[Any], count: int) -> None:
        self.runner = runner
        self.count = count

    @abstractmethod
    def start(self, run: RunToJoin) -> None:
        """Start what takes time, beside whatever comes next; do nothing the second time."""

    @abstractmethod
    def end(self) -> None:
        """End what was started."""

    @abstractmethod
    def places(self) -> list[str]:
        """Return the processes that take shards at the moment.

        Raises:
            UserError: none of those that were there can be used.
        """

    @abstractmethod
    def submit(self, task: Task[..., Any], *arguments: Any, place: str) -> PrefectFuture[Any]:
        """Submit a task to a process."""

    @abstractmethod
    def call(self, task: Task[..., Any], *arguments: Any) -> Any:
        """Run a task in one of the processes; return its result.

        Raises:
            MeasureFailed: its process died each time.
        """

    def ask(self, function: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
        """Return what a function of the engine tells of this machine, without the engine in this process.

        Raises:
            Exception: what the function raises.
        """
        return ask_apart(function, *arguments, **named)

    def lost(self, places: set[str]) -> set[str]:
        """Return those of `places` whose process is gone for certain."""
        return set()

    def hopeful(self) -> bool:
        """Return whether a process may take shards soon."""
        return False

    def troubles(self) -> str:
        """Return what befell processes that were refused or died, to be added to a message; empty for nothing."""
        return ""

    def fetching(self) -> bool:
        """Return whether a process fetches the model, which may take hours."""
        return False

    def seat(self, place: str) -> str:
        """Return the name that a process keeps when it is started anew."""
        return place

    def title(self, place: str) -> str:
        """Return what messages call a process."""
        return place

    def device(self) -> str | None:
        """Return the name in records of the device that all processes have; None as long as it is not known."""
        return None

    def versions(self) -> dict[str, str]:
        """Return the versions of the packages that decide the pixels, as processes told them."""
        return {}

    @abstractmethod
    def abandon(self, future: PrefectFuture[Any]) -> None:
        """Wait for a task no longer: its process is gone or does not answer."""
