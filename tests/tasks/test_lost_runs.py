"""Task runs whose process died end as `Crashed` in Prefect, also where the server knows of them only later."""

import time
from types import SimpleNamespace
from uuid import uuid4

import pytest
from prefect.exceptions import ObjectNotFound

from tasks import lost_runs
from tasks.lost_runs import LostRuns


class Server:
    """A client of a server that fails as often as `errors` says before it takes a state."""

    def __init__(self, *errors):
        self.errors, self.states = list(errors), {}

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def set_task_run_state(self, run, state, force):
        assert force
        if self.errors:
            raise self.errors.pop(0)
        self.states[run] = state.type


@pytest.fixture
def tell(monkeypatch):
    def tell(server, *runs):
        monkeypatch.setattr(lost_runs, "get_client", lambda sync_client: server)
        monkeypatch.setattr(lost_runs, "_RETRY_SECONDS", 0.05)
        lost = LostRuns()
        for run in runs:
            lost.note(run)
        lost.end()
        return server.states

    return tell


def test_each_lost_run_is_shown_as_crashed(tell):
    runs = [uuid4(), uuid4()]
    assert tell(Server(), *runs) == dict.fromkeys(runs, "CRASHED")


def test_a_run_that_the_server_does_not_know_yet_is_told_again(tell):
    run = uuid4()
    unknown = ObjectNotFound(SimpleNamespace())
    assert tell(Server(unknown, unknown), run) == {run: "CRASHED"}


def test_a_server_that_is_away_holds_nobody_up(tell):
    started = time.monotonic()
    assert tell(Server(OSError("away")), uuid4()) == {}
    assert time.monotonic() - started < lost_runs._END_SECONDS


def test_without_lost_runs_nothing_is_started():
    lost = LostRuns()
    lost.end()
    assert lost._thread is None
