"""How a command ends whose flow Prefect cannot bring to its end."""

from types import SimpleNamespace

import httpx
import pytest
from prefect.exceptions import TerminationSignal
from prefect.states import Completed, Failed

from flows import running
from flows.command import ExitCode
from flows.outcomes import TOO_MANY_FAILURES
from flows.running import _run_to_its_end
from t2i_core.errors import UserError
from tasks.process import THIS_PROCESS
from tasks.server_wait import WAIT

AWAY = httpx.ConnectError("All connection attempts failed")


class Flow:
    """A flow whose function gives `result`, and whose end Prefect's server does not take."""

    def __init__(self, result=None, error=AWAY, *, begins=True):
        self.fn = lambda **values: result() if callable(result) else result
        self.error, self.begins = error, begins

    def __call__(self, return_state, **values):
        if self.begins:
            self.fn(**values)
        raise self.error


def raising(error):
    def call():
        raise error

    return call


@pytest.fixture(autouse=True)
def wait():
    yield WAIT
    WAIT.begin(60)


MANY = Failed(name=TOO_MANY_FAILURES, message="3 failures")


@pytest.mark.parametrize(
    ("result", "code"),
    [
        (Completed(message="50 images made"), ExitCode.OK),
        (MANY, ExitCode.MANY_FAILURES),
        (Failed(name="Refused", message="dataset: no such file"), ExitCode.WRONG_USE),
        (raising(RuntimeError("odd")), ExitCode.BUG),
        (raising(KeyboardInterrupt()), ExitCode.INTERRUPTED),
        (raising(TerminationSignal(signal=15)), 143),
    ],
)
def test_the_exit_code_is_that_of_the_run_though_prefect_does_not_know_it(capsys, result, code):
    class Away(Flow):
        def __call__(self, return_state, **values):
            try:
                self.fn(**values)
            except BaseException:
                raise AWAY from None
            raise AWAY

    assert _run_to_its_end(Away(result), {"max_failures": 0}) == code
    said = capsys.readouterr()
    line = "prefect   does not know how this run ended: All connection attempts failed\n"
    assert said.out == line


def test_an_answer_with_an_error_is_told_as_the_reason(capsys):
    response = httpx.Response(500, request=httpx.Request("POST", "http://x/api"))
    broken = httpx.HTTPStatusError("broken", request=response.request, response=response)
    assert _run_to_its_end(Flow(Completed(), broken), {}) == ExitCode.OK
    assert capsys.readouterr().out == "prefect   does not know how this run ended: 500 Internal Server Error\n"


def test_ctrl_c_while_prefect_is_waited_for_ends_the_run_as_it_had_ended(capsys):
    assert _run_to_its_end(Flow(Completed(), KeyboardInterrupt()), {}) == ExitCode.OK
    assert capsys.readouterr().out == "prefect   does not know how this run ended: it was not waited for\n"
    assert _run_to_its_end(Flow(raising(KeyboardInterrupt())), {}) == ExitCode.INTERRUPTED
    assert capsys.readouterr().out == ""


def test_a_server_that_does_not_let_a_run_begin_is_one_line(capsys):
    assert _run_to_its_end(Flow(begins=False), {}) == ExitCode.WRONG_USE
    said = capsys.readouterr()
    assert said.err.startswith("error: Prefect's server cannot run the flow (All connection attempts failed)")
    assert len(said.err.splitlines()) == 1


def test_a_server_that_is_silent_while_a_run_begins_may_be_given_longer(capsys, monkeypatch):
    monkeypatch.setattr(WAIT, "given_up", True)
    monkeypatch.setattr(WAIT, "seconds", 60.0)
    assert _run_to_its_end(Flow(begins=False), {}) == ExitCode.WRONG_USE
    assert capsys.readouterr().err.endswith("or its log; --server-wait 600 waits longer for it\n")


@pytest.mark.parametrize(("values", "seconds"), [({"server_wait": 7.0}, 7), ({}, 60)])
def test_a_server_is_waited_for_as_long_as_asked_before_the_flow_begins_too(monkeypatch, capsys, values, seconds):
    waited = []

    def prepare(before):
        waited.append(WAIT.seconds)
        raise UserError("it is silent")

    WAIT.begin(60)
    monkeypatch.setattr(running, "_prepare_server", prepare)
    monkeypatch.setattr("tasks.settings.apply_settings", lambda: None)  # what they set would outlive this test
    monkeypatch.setattr("tasks.settings.show_lines_in_terminal", lambda verbose: None)
    monkeypatch.setattr(THIS_PROCESS, "started_for_run", False)
    assert running._run("flows.show:show", values, verbose=False, before=lambda own: None) == ExitCode.WRONG_USE
    assert waited == [seconds]
    assert capsys.readouterr().err == "error: it is silent\n"


def test_another_error_before_the_flow_began_is_not_hidden():
    with pytest.raises(ValueError, match="a bug"):
        _run_to_its_end(Flow(error=ValueError("a bug"), begins=False), {})


def test_a_run_whose_end_prefect_takes_ends_without_a_word(capsys):
    flow = SimpleNamespace(fn=lambda **values: Completed())

    class Fine(Flow):
        def __call__(self, return_state, **values):
            return self.fn(**values)

    assert _run_to_its_end(Fine(flow.fn()), {}) == ExitCode.OK
    assert capsys.readouterr().out == ""
