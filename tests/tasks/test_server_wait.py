"""One bound for all requests to Prefect's server, said while it is silent."""

import os
import threading

import anyio
import httpx
import pytest
from prefect.client.base import PrefectHttpxAsyncClient, PrefectHttpxSyncClient
from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, get_current_settings, temporary_settings

from tasks import server_wait, settings
from tasks.server_wait import WAIT, bound_all_requests, everything_sent, is_silence, on_one_line, reason
from tasks.settings import apply_settings

HEALTH = "http://prefect.test/api/health"


class Server:
    """A server that fails as often as it is told, each time with the next of `failures`, then answers."""

    def __init__(self, failures):
        self.failures, self.asked, self.timeouts = list(failures), 0, []

    def __call__(self, request):
        self.asked += 1
        self.timeouts.append(request.extensions["timeout"]["read"])
        if self.failures:
            failure = self.failures.pop(0) if len(self.failures) > 1 else self.failures[0]
            if isinstance(failure, Exception):
                raise failure
            if failure:
                return httpx.Response(failure)
            self.failures = []
        return httpx.Response(200)

    def get(self):
        with PrefectHttpxSyncClient(transport=httpx.MockTransport(self), timeout=60) as client:
            return client.get(HEALTH)

    def get_async(self):
        async def ask():
            async with PrefectHttpxAsyncClient(transport=httpx.MockTransport(self), timeout=60) as client:
                return await client.get(HEALTH)

        return anyio.run(ask)


AWAY = httpx.ConnectError("All connection attempts failed")


@pytest.fixture(autouse=True)
def wait(monkeypatch):
    """The bound of this process, with quick tries; forgotten afterwards."""
    apply_settings()
    bound_all_requests()
    monkeypatch.delenv("PREFECT__FLOW_RUN_ID", raising=False)
    monkeypatch.setattr(server_wait, "PAUSE_SECONDS", 0.01)
    WAIT.begin(30)
    yield WAIT
    WAIT.is_gone = lambda: False
    WAIT.begin(60)


@pytest.fixture(params=["get", "get_async"])
def ask(request):
    """Ask a server by a client of either kind."""
    return lambda server: getattr(server, request.param)()


@pytest.mark.parametrize("failure", [AWAY, httpx.ReadTimeout("slow"), httpx.RemoteProtocolError("x"), 503, 429])
def test_a_request_is_tried_again_until_the_server_answers(ask, capsys, failure):
    server = Server([failure, failure, failure, None])
    if isinstance(failure, int):
        server.failures = [failure, None]  # Prefect itself pauses after these
    assert ask(server).status_code == 200
    assert server.asked == (2 if isinstance(failure, int) else 4)
    said = capsys.readouterr().out.splitlines()
    assert [line[:36] for line in said] == [
        "prefect   the server does not answer",
        "prefect   the server answers again",
    ]
    assert not WAIT.given_up


def test_prefect_tries_once_whatever_the_user_set_and_other_programs_as_before(ask, wait, monkeypatch):
    monkeypatch.setenv("PREFECT_CLIENT_MAX_RETRIES", "7")
    wait.begin(0)
    with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 6}):
        settings._set_defaults()
        server = Server([httpx.ReadTimeout("slow")])
        with pytest.raises(httpx.ReadTimeout):
            ask(server)
        assert server.asked == 1
        assert get_current_settings().client.max_retries == 6
    assert os.environ["PREFECT_CLIENT_MAX_RETRIES"] == "7"


def test_a_silent_server_is_given_up_after_the_bound_by_all_requests_together(ask, capsys, wait):
    wait.begin(0.2)
    server = Server([AWAY])
    with pytest.raises(httpx.ConnectError):
        ask(server)
    assert wait.given_up
    assert wait.why_unknown() == "its server did not answer for 0 s"
    asked = server.asked
    assert asked > 2
    with pytest.raises(httpx.ConnectError):
        ask(server)
    assert server.asked == asked + 1  # the next request is tried once, and not for long
    assert server.timeouts[-1] == server_wait.LEAST_SECONDS
    assert capsys.readouterr().out.count("does not answer") == 1


def test_at_the_end_of_a_run_the_bound_counts_anew_and_once(wait, capsys):
    wait.begin(0.05)
    server = Server([AWAY])
    with pytest.raises(httpx.ConnectError):
        server.get()
    for tries in (True, False):
        wait.run_ends()
        asked = server.asked
        with pytest.raises(httpx.ConnectError):
            server.get()
        assert (server.asked > asked + 1) == tries
    assert "all is written, the run waits 0 s for it" in capsys.readouterr().out


def test_a_server_of_the_run_that_has_ended_is_not_waited_for(ask, wait, capsys):
    wait.is_gone = lambda: True
    server = Server([AWAY])
    with pytest.raises(httpx.ConnectError):
        ask(server)
    assert server.asked == 1
    assert wait.why_unknown() == "the server of this run is gone"
    wait.run_ends()
    with pytest.raises(httpx.ConnectError):
        ask(server)
    assert capsys.readouterr().out.count("the server of this run is gone") == 1


def test_what_is_only_shown_is_not_waited_for(wait):
    server = Server([AWAY])
    with wait.not_waiting(), pytest.raises(httpx.ConnectError):
        server.get()
    assert server.asked == 1
    assert server.timeouts == [server_wait.UNIMPORTANT_SECONDS]
    assert not wait.given_up


def test_what_is_only_shown_reaches_a_server_that_is_busy_for_a_moment(wait, monkeypatch):
    server = Server([503, None])
    with wait.not_waiting():
        assert server.get().status_code == 200
    assert server.asked == 2
    monkeypatch.setattr(server_wait, "UNIMPORTANT_SECONDS", 0.1)
    server = Server([503])
    with wait.not_waiting(), pytest.raises(httpx.HTTPStatusError):
        server.get()
    assert server.asked == 1
    assert not wait.given_up


def test_a_server_that_takes_long_is_named_while_the_run_waits(ask, wait, capsys, monkeypatch):
    monkeypatch.setattr(server_wait, "SLOW_SECONDS", 0.01)
    said = threading.Event()
    monkeypatch.setattr(wait, "_say", lambda text: (print(text), said.set()))

    class Slow(Server):
        def __call__(self, request):
            assert said.wait(30)
            return httpx.Response(200)

    wait.run_ends()
    assert ask(Slow([])).status_code == 200
    lines = capsys.readouterr().out.splitlines()
    assert "all is written, the run waits 30 s for it" in lines[0]
    assert lines[-1] == "the server answers again"


def test_after_leave_now_nothing_is_waited_for(wait):
    wait.leave_now()
    server = Server([AWAY])
    with pytest.raises(httpx.ConnectError):
        server.get()
    assert server.asked == 1


@pytest.mark.parametrize("status", [400, 404, 409, 500])
def test_an_answer_that_something_is_wrong_is_no_silence(ask, status, capsys):
    server = Server([status])
    with pytest.raises(httpx.HTTPStatusError):
        ask(server)
    assert server.asked == 1
    assert capsys.readouterr().out == ""


def test_a_bound_of_an_hour_does_not_make_a_request_longer_than_prefect_allows(wait):
    wait.begin(3600)
    server = Server([None])
    server.get()
    assert server.timeouts == [60]


def test_nothing_is_sent_twice_for_want_of_a_token(ask, monkeypatch):
    class Refusing(Server):
        def __call__(self, request):
            self.asked += 1
            return httpx.Response(403, text="Invalid CSRF token") if self.asked == 1 else httpx.Response(200)

    monkeypatch.setattr("prefect.client.base.time.sleep", lambda seconds: None)
    server = Refusing([])
    assert ask(server).status_code == 200
    assert server.asked == 2


def test_reasons_are_on_one_line():
    assert reason(httpx.ReadTimeout("")) == "ReadTimeout"
    assert on_one_line("a\x1b[2J\nb" + "x" * 500) == "a[2J b" + "x" * 194
    assert not is_silence(httpx.UnsupportedProtocol("x"))


class Service:
    """What Prefect still has to send: `drain_all` as its services have it."""

    def __init__(self, left):
        self.left = left

    def drain_all(self, timeout):
        return set(), self.left


class Health:
    def __init__(self, answer):
        self.answer = answer

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def api_healthcheck(self):
        self.answer()


def test_what_is_left_to_send_is_waited_for_as_long_as_the_server_answers(monkeypatch, wait):
    import concurrent.futures

    future, asked = concurrent.futures.Future(), threading.Event()

    def answer():
        if asked.is_set():
            future.set_result(True)
        asked.set()

    monkeypatch.setattr(server_wait, "DRAIN_SECONDS", 0.01)
    monkeypatch.setattr(server_wait, "APILogWorker", Service({future}))
    monkeypatch.setattr(server_wait, "get_client", lambda sync_client: Health(answer))
    assert everything_sent()
    assert asked.is_set()

    def give_up():
        wait.given_up = True

    monkeypatch.setattr(server_wait, "APILogWorker", Service({concurrent.futures.Future()}))
    monkeypatch.setattr(server_wait, "get_client", lambda sync_client: Health(give_up))
    assert not everything_sent()
