"""A stop: who passes on a cancel, and a signal that must not end what is being written."""

import logging
import os
import signal
import threading
import time
from contextlib import suppress
from types import SimpleNamespace
from uuid import uuid4

import pytest
from prefect.exceptions import CancelledRun, TerminationSignal
from prefect.states import Cancelled, Cancelling, Running

from t2i_core.config import Config
from tasks import stopping
from tasks.process import THIS_PROCESS
from tasks.stopping import Cancel, after_cancel, heeding_cancel, ignoring_sigterm, runner_process

SECONDS = 20


@pytest.mark.parametrize(
    ("parent", "deployed", "runner"),
    [(77, True, 77), (77, False, None), (1, True, None), (1, False, None)],
)
def test_the_runner_is_the_parent_of_a_deployed_run_that_still_has_one(monkeypatch, parent, deployed, runner):
    monkeypatch.setattr(os, "getppid", lambda: parent)
    monkeypatch.delenv("PREFECT__FLOW_RUN_ID", raising=False)
    if deployed:
        monkeypatch.setenv("PREFECT__FLOW_RUN_ID", "x")
    assert runner_process() == runner


class Prefect:
    """A server that answers with one state, or with an error; `asked` is set once it was asked."""

    def __init__(self, state):
        self.state, self.asked, self.answers = state, threading.Event(), 0

    def read_flow_run(self, run):
        self.answers += 1
        if self.answers >= 2:
            self.asked.set()
        if isinstance(self.state, Exception):
            raise self.state
        return SimpleNamespace(state=self.state)


@pytest.fixture
def prefect(monkeypatch):
    def make(state):
        client = Prefect(state)
        monkeypatch.setattr(stopping, "get_client", lambda sync_client: client)
        monkeypatch.setattr(stopping, "flow_run", SimpleNamespace(get_id=lambda: str(uuid4())))
        monkeypatch.setattr(stopping, "ASK_SECONDS", 0.05)
        return client

    yield make
    THIS_PROCESS.stop.clear()


@pytest.fixture
def raising():
    """SIGTERM raises, as in a flow."""

    def handler(number, frame):
        raise TerminationSignal(number)

    before = signal.signal(signal.SIGTERM, handler)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def cancel():
    return Cancel()


@pytest.mark.parametrize("state", [Cancelling(), Cancelled()])
def test_a_cancel_stops_the_shards_and_interrupts_whatever_waits(prefect, raising, cancel, state):
    prefect(state)
    reads, writes = os.pipe()
    try:
        with pytest.raises(TerminationSignal), heeding_cancel(cancel, None):
            os.read(reads, 1)  # nothing ever comes
    finally:
        os.close(reads), os.close(writes)
    assert cancel.pressed
    assert THIS_PROCESS.stop.is_set()


def test_an_interrupt_that_something_swallows_comes_again(prefect, raising, cancel):
    prefect(Cancelled())
    with pytest.raises(TerminationSignal), heeding_cancel(cancel, None):
        with suppress(TerminationSignal):
            time.sleep(SECONDS)
        time.sleep(SECONDS)


def test_what_looks_at_the_stop_itself_is_not_interrupted(prefect, raising, cancel):
    client, ended = prefect(Running()), []
    with pytest.raises(TerminationSignal), heeding_cancel(cancel, None), cancel.looked_at():
        client.state = Cancelled()
        client.asked.clear()
        client.answers = 0
        assert THIS_PROCESS.stop.wait(SECONDS)
        assert client.asked.wait(SECONDS)  # once more
        ended.append(True)
    assert ended


def test_a_run_that_stops_already_is_not_interrupted(prefect, raising, cancel):
    client = prefect(Running())
    with heeding_cancel(cancel, None):
        cancel.end()
        client.state = Cancelled()
        time.sleep(0.3)
    assert not cancel.pressed


def test_what_went_wrong_while_a_cancelled_run_stopped_is_said(caplog):
    assert after_cancel(TerminationSignal(15), "stopped: x") == "stopped: x"
    assert after_cancel(CancelledRun("of a task"), "stopped: x") == "stopped: x"
    assert after_cancel(OSError("disk full"), "stopped: x") == "stopped: x; disk full"
    assert "stopped   OSError: disk full" in caplog.text


def test_outside_of_the_main_thread_a_cancel_stops_the_shards_alone(prefect, raising):
    prefect(Cancelled())
    raised = []

    def flow():
        cancel = Cancel()
        with heeding_cancel(cancel, None):
            try:
                with cancel.looked_at():
                    assert THIS_PROCESS.stop.wait(SECONDS)
            except TerminationSignal:
                raised.append(cancel.pressed)

    thread = threading.Thread(target=flow)
    thread.start()
    thread.join(SECONDS)
    assert raised == [True]


def test_a_cancel_after_the_end_interrupts_nothing(prefect, raising, cancel):
    client = prefect(Running())
    with heeding_cancel(cancel, None):
        assert client.asked.wait(SECONDS)
    cancel.press()
    assert not cancel.pressed
    assert not THIS_PROCESS.stop.is_set()


@pytest.mark.parametrize("state", [Running(), None, ConnectionError("away")])
def test_a_run_that_is_not_cancelled_goes_on_and_is_asked_for_again(prefect, state):
    client = prefect(state)
    with heeding_cancel(Cancel(), None):
        assert client.asked.wait(SECONDS)
    assert not THIS_PROCESS.stop.is_set()


def test_while_the_runner_lives_nobody_asks(prefect, monkeypatch):
    client, looked, looks = prefect(Cancelled()), threading.Event(), []

    def getppid():
        looks.append(1)
        if len(looks) >= 3:
            looked.set()
        return 77

    monkeypatch.setattr(os, "getppid", getppid)
    with heeding_cancel(Cancel(), 77):
        assert looked.wait(SECONDS)
    assert client.answers == 0


def test_once_the_runner_is_gone_the_run_asks_for_itself(prefect, raising, monkeypatch):
    prefect(Cancelled())
    monkeypatch.setattr(os, "getppid", lambda: 1)
    with pytest.raises(TerminationSignal), heeding_cancel(Cancel(), 77):
        time.sleep(SECONDS)


def test_an_error_of_a_shard_is_raised_as_it_is(prefect):
    prefect(Running())
    with pytest.raises(ValueError, match="its own"), heeding_cancel(Cancel(), None):
        raise ValueError("its own")


@pytest.fixture
def terminated():
    """Whether this process was told to end: [signal number, ...]."""
    numbers = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: numbers.append(number))
    yield numbers
    signal.signal(signal.SIGTERM, before)


def test_a_second_sigterm_does_not_end_what_is_written(terminated):
    with ignoring_sigterm():
        signal.raise_signal(signal.SIGTERM)
    assert terminated == []
    signal.raise_signal(signal.SIGTERM)
    assert terminated == [signal.SIGTERM]


def test_after_an_error_sigterm_is_heeded_again(terminated):
    with pytest.raises(OSError, match="disk"), ignoring_sigterm():
        raise OSError("disk")
    signal.raise_signal(signal.SIGTERM)
    assert terminated == [signal.SIGTERM]


def test_in_another_thread_signals_stay_as_they_are(terminated):
    done = []

    def write():
        with ignoring_sigterm():
            done.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=write)
    thread.start()
    thread.join(SECONDS)
    assert done == [signal.getsignal(signal.SIGTERM)]


def test_a_second_ctrl_c_counts_while_the_line_is_said_that_offers_it(monkeypatch, tmp_path, caplog):
    left = []
    process = SimpleNamespace(stop=threading.Event(), give_up=lambda: left.append("device"))
    monkeypatch.setattr(stopping, "THIS_PROCESS", process)
    monkeypatch.setattr(stopping, "WAIT", SimpleNamespace(leave_now=lambda: left.append("server")))

    class Swallowing(logging.Handler):
        """As Prefect's does at times: what is raised while it works is lost."""

        def emit(self, record):
            if record.getMessage().startswith("stopping"):
                with suppress(KeyboardInterrupt):
                    signal.raise_signal(signal.SIGINT)

    handler = Swallowing()
    caplog.set_level(logging.INFO, "tasks.stopping")
    stopping.log.addHandler(handler)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in a shell's background
    try:
        with (
            pytest.raises(KeyboardInterrupt),
            stopping.second_means_now(Config.from_values({"dataset": "x.txt", "output": str(tmp_path)})),
        ):
            pytest.fail("the run went on")
    finally:
        signal.signal(signal.SIGINT, before)
        stopping.log.removeHandler(handler)
    assert left == ["device", "server"]
    assert process.stop.is_set()  # no shard begins any more, though the block did not get to ask for that
    assert "stopped   at once" in caplog.text
