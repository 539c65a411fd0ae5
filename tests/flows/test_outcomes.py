"""How a run can end: its final state in Prefect, and what the shell is told."""

import pickle
from types import SimpleNamespace

import cloudpickle
import pytest
from prefect.exceptions import TerminationSignal
from prefect.states import Cancelled, Completed, Crashed, Failed

from flows.command import ExitCode
from flows.outcomes import REFUSED, TOO_MANY_FAILURES, ended, exit_code, finished, noting, refused
from t2i_core import errors
from tasks.server_wait import WAIT
from tasks.settings import ConfiguredFlow


def report(too_many_failures=False):
    return SimpleNamespace(too_many_failures=too_many_failures, message=lambda: "3 images made, 1 reused")


def test_a_run_within_what_is_tolerated_is_completed():
    state = finished(report())
    assert (state.type, state.name, state.message) == ("COMPLETED", "Completed", "3 images made, 1 reused")


def test_a_run_with_too_many_failures_has_failed_under_a_name_of_its_own():
    state = finished(report(too_many_failures=True))
    assert (state.type, state.name, state.message) == ("FAILED", TOO_MANY_FAILURES, "3 images made, 1 reused")


@pytest.mark.parametrize(("too_many", "name", "code"), [(False, "Completed", 0), (True, TOO_MANY_FAILURES, 3)])
def test_a_preview_ends_like_a_run(too_many, name, code):
    state = ended("preview: 3 of 4 images", too_many=too_many)
    assert (state.name, state.message, exit_code(state)) == (name, "preview: 3 of 4 images", code)


@pytest.mark.parametrize(
    "error",
    [
        errors.ConfigError(["steps: write a number", "height: write a number"]),
        errors.DatasetError("no usable row"),
        errors.ModelError("no model"),
        errors.HubUnavailable("no answer"),
        errors.OutputError("the disk is full"),
    ],
)
def test_wrong_use_is_refused_with_its_own_words(error):
    state = refused(error)
    assert (state.type, state.name, state.message) == ("FAILED", REFUSED, str(error))
    assert exit_code(state) == 2


@pytest.mark.parametrize(
    ("state", "code"),
    [
        (finished(report()), 0),
        (Completed(), 0),
        (finished(report(too_many_failures=True)), 3),
        (refused(errors.OutputError("x")), 2),
        (Cancelled(message="stopped"), 130),
        (Cancelled(name=REFUSED), 130),
        (Failed(message="a bug"), 1),
        (Failed(name="Another"), 1),
        (Crashed(message="killed"), 1),
    ],
)
def test_every_final_state_has_its_exit_code(state, code):
    assert exit_code(state) == code


def test_the_exit_codes_are_those_that_scripts_rely_on():
    assert {code.name: int(code) for code in ExitCode} == {
        "OK": 0,
        "BUG": 1,
        "WRONG_USE": 2,
        "MANY_FAILURES": 3,
        "DAMAGED": 4,
        "INTERRUPTED": 130,
    }


def a_flow(result):
    """A flow, as far as its function goes, that returns or raises `result`."""

    def function(**values):
        if isinstance(result, BaseException):
            raise result
        return result

    return SimpleNamespace(fn=function)


def test_what_a_flow_returned_is_known_whatever_prefect_makes_of_it():
    flow, state = a_flow(refused(errors.ConfigError(["x"]))), None
    before = flow.fn
    with noting(flow) as noted:
        assert not noted.began
        state = flow.fn(steps=3)
    assert flow.fn is before
    assert noted.began
    assert noted.final_state() is state
    assert noted.interrupted is None


@pytest.mark.parametrize(
    ("error", "interrupted", "code"),
    [
        (KeyboardInterrupt(), 130, ExitCode.BUG),
        (TerminationSignal(signal=15), 143, ExitCode.BUG),
        (RuntimeError("odd"), None, ExitCode.BUG),
    ],
)
def test_what_a_flow_raised_is_known_too(error, interrupted, code):
    flow = a_flow(error)
    with noting(flow) as noted, pytest.raises(type(error)):
        flow.fn()
    assert noted.interrupted == interrupted
    assert exit_code(noted.final_state()) == code
    assert type(error).__name__ in noted.final_state().message


def test_a_flow_whose_end_is_noted_can_go_to_other_processes():
    flow = ConfiguredFlow(a_function, name="noted")
    with noting(flow):
        noted = cloudpickle.loads(cloudpickle.dumps(flow))
    assert noted.name == "noted"
    assert pickle.loads(pickle.dumps(WAIT)) is WAIT


def a_function():
    """Do nothing."""
