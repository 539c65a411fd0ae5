"""How a run can end: its final state in Prefect, and the exit code of the command line."""

from typing import Any

from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

from flows.command import ExitCode
from t2i_core.errors import UserError
from t2i_core.reports.report import Report

# Names of final states that are Failed, but are not failures of this tool.
REFUSED = "Refused"
TOO_MANY_FAILURES = "TooManyFailures"


def refused(error: UserError) -> State[Any]:
    """Return the state of a run that was used wrongly."""
    return Failed(name=REFUSED, message=str(error))


def finished(report: Report) -> State[Any]:
    """Return the state of a run that came to its end: Failed with more failures than `max_failures`."""
    return ended(report.message(), too_many=report.too_many_failures)


def ended(message: str, *, too_many: bool) -> State[Any]:
    """Return the state of a run at its end: Failed where more images failed than `max_failures`."""
    return Failed(name=TOO_MANY_FAILURES, message=message) if too_many else Completed(message=message)


def exit_code(state: State[Any]) -> ExitCode:
    """Return what a final state means to the shell."""
    if state.is_cancelled():
        return ExitCode.INTERRUPTED
    if state.name == REFUSED:
        return ExitCode.WRONG_USE
    if state.name == TOO_MANY_FAILURES:
        return ExitCode.MANY_FAILURES
    return ExitCode.OK if state.is_completed() else ExitCode.BUG
