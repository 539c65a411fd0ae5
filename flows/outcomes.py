"""How a run can end: its final state in Prefect, and the exit code of the command line."""

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from prefect import Flow
from prefect.client.schemas.objects import State
from prefect.exceptions import TerminationSignal
from prefect.states import Completed, Failed

from flows.command import ExitCode
from t2i_core.errors import UserError
from t2i_core.reports.report import Report
from tasks.server_wait import WAIT

# Names of final states that are Failed, but are not failures of this tool.
REFUSED = "Refused"
TOO_MANY_FAILURES = "TooManyFailures"
DAMAGED = "Damaged"


def refused(error: UserError) -> State[Any]:
    """Return the state of a run that was used wrongly."""
    return Failed(name=REFUSED, message=str(error))


def finished(report: Report) -> State[Any]:
    """Return the state of a run that came to its end: Failed with more failures than `max_failures`."""
    return ended(report.message(), too_many=report.too_many_failures)


def ended(message: str, *, too_many: bool) -> State[Any]:
    """Return the state of a run at its end: Failed where more images failed than `max_failures`."""
    return Failed(name=TOO_MANY_FAILURES, message=message) if too_many else Completed(message=message)


@dataclass
class Noted:
    """How a flow's function ended, whatever became of that in Prefect. `state`: what it returned."""

    began: bool = False
    state: State[Any] | None = None
    error: BaseException | None = None

    @property
    def interrupted(self) -> int | None:
        """The exit code where a signal ended the function; None where it ended by itself."""
        if isinstance(self.error, TerminationSignal):
            return 128 + self.error.signal
        return ExitCode.INTERRUPTED if isinstance(self.error, KeyboardInterrupt) else None

    def final_state(self) -> State[Any]:
        """Return the state in which the function ended."""
        return self.state or Failed(message=f"{type(self.error).__name__}: {self.error}")


@contextmanager
def noting(flow: Flow[..., Any]) -> Iterator[Noted]:
    """Note for the block how the flow's function ends; with its end, all that the run leaves is written."""
    noted, function = Noted(), flow.fn

    @functools.wraps(function)
    def note(*arguments: Any, **values: Any) -> Any:
        noted.began = True
        try:
            noted.state = function(*arguments, **values)
        except BaseException as error:
            noted.error = error
            raise
        finally:
            WAIT.run_ends()
        return noted.state

    flow.fn = note
    try:
        yield noted
    finally:
        flow.fn = function


def damaged(message: str) -> State[Any]:
    """Return the state of a run that looked whether an output is right, and found that it is not."""
    return Failed(name=DAMAGED, message=message)


def exit_code(state: State[Any]) -> ExitCode:
    """Return what a final state means to the shell."""
    if state.is_cancelled():
        return ExitCode.INTERRUPTED
    if state.name == REFUSED:
        return ExitCode.WRONG_USE
    if state.name == TOO_MANY_FAILURES:
        return ExitCode.MANY_FAILURES
    if state.name == DAMAGED:
        return ExitCode.DAMAGED
    return ExitCode.OK if state.is_completed() else ExitCode.BUG
