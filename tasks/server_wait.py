"""How long a process waits for Prefect's server: one bound for all of its requests, and a line while it waits.

Prefect tries each request again by itself, for minutes, and a run that ends makes several, one after the other. So that
is switched off while a request is sent, and every request of every client is tried again here, as long as the server
has not been silent for longer than the bound. The environment says nothing of it: other programs that this process
starts, such as `prefect deploy`, try again as Prefect does.
"""

import concurrent.futures
import functools
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Any, TypeVar

import anyio
import httpx
from prefect import get_client
from prefect.client.base import PrefectHttpxAsyncClient, PrefectHttpxSyncClient
from prefect.context import SettingsContext, get_settings_context
from prefect.exceptions import PrefectHTTPStatusError
from prefect.logging.handlers import APILogWorker

from t2i_core.options.server import SERVER_WAIT, ServerOptions

# Between two tries of a request.
PAUSE_SECONDS = 1.0
# What a request may take, once the server was given up, and where nobody waits for its answer.
LEAST_SECONDS, UNIMPORTANT_SECONDS = 2.0, 10.0
# After so long without an answer it is said.
SLOW_SECONDS = 10.0
# Between two looks at whether all is sent.
DRAIN_SECONDS = 2.0

# Answers by which a server, or a proxy in front of it, says that it cannot answer at the moment.
_BUSY = {408, 429, 502, 503, 504}

AnyOptions = TypeVar("AnyOptions", bound=ServerOptions)

_WAITS = ContextVar("waits", default=True)


class ServerWait:
    """What this process knows of its server.

    given_up: it was silent for longer than the bound, and has not answered since.
    why: why it does not answer; empty while it does.
    is_gone: says whether it will never answer again: a server of the run's own that has ended.
    """

    def __init__(self) -> None:
        self.seconds = SERVER_WAIT
        self.is_gone: Callable[[], bool] = lambda: False
        self.begin(SERVER_WAIT, quiet=True)  # before a run begins

    def __reduce__(self) -> str:
        """Go to another process by name: there it is that process's own. A flow's context names it (`noting`)."""
        return "WAIT"

    def begin(self, seconds: float, *, quiet: bool = False) -> None:
        """Wait for the server up to `seconds` in the run that begins now, each time that it is silent.

        `quiet`: another process says that it is.
        """
        self.seconds = seconds
        self.given_up, self.why = False, ""
        self._since: float | None = None
        self._ends = self._said = False
        self._quiet = quiet
        self._lock = threading.Lock()

    def run_ends(self) -> None:
        """Count the bound anew, once: all that the run leaves is written, and Prefect alone is left to be told."""
        with self._lock:
            if not self._ends:
                self._ends, self._since, self.given_up = True, None, False
                self._said = self._said and self.is_gone()
        if "PREFECT__FLOW_RUN_ID" in os.environ:  # a worker started this process for the run
            _leave_in_time()

    def leave_now(self) -> None:
        """Wait no more: each request is tried once."""
        self.seconds = 0.0

    def was_waited_for(self) -> bool:
        """Return whether the server was silent for all of the bound, and may answer to one who waits longer."""
        return self.given_up and self.seconds >= 1 and not self.is_gone()

    def why_unknown(self) -> str:
        """Return why the server does not know how the run ended; empty where it is not known to be silent."""
        if self.is_gone():
            return "the server of this run is gone"
        if self.given_up and self.seconds:
            return f"its server did not answer for {self.seconds:.0f} s"
        return self.why

    @contextmanager
    def not_waiting(self) -> Iterator[None]:
        """Try requests of the block once, for some seconds if the server is busy: nothing waits for what they show.

        Prefect's server on SQLite is busy, and says so at once, whenever it writes for another run at the same moment.
        """
        token = _WAITS.set(False)
        try:
            yield
        finally:
            _WAITS.reset(token)

    def timeout(self) -> float:
        """Return how many seconds a request may take that is sent now."""
        if not _WAITS.get():
            return UNIMPORTANT_SECONDS
        if self._since is None:
            return max(UNIMPORTANT_SECONDS, self.seconds)
        return max(LEAST_SECONDS, self._since + self.seconds - time.monotonic())

    def failed(self, error: Exception, asked: float) -> float | None:
        """Return after how many seconds a request should be tried again; None where not. `asked`: when it began."""
        if not is_silence(error):
            self.answered()
            return None
        with self._lock:
            if self._since is None:
                self._since = asked
            self.why = reason(error)
            gone = self.is_gone()
            left = 0.0 if gone else self._since + self.seconds - time.monotonic()
            self._say_silent(gone=gone)
            if left <= 0 and not self.given_up:
                self.given_up = True
                if not self._ends and not gone and self.seconds:
                    self._say(f"the server did not answer for {self.seconds:.0f} s; the run goes on without it")
            if not _WAITS.get():
                left = min(left, asked + UNIMPORTANT_SECONDS - time.monotonic()) if _is_busy(error) else 0.0
            return min(PAUSE_SECONDS, left) if left > 0 else None

    def answered(self) -> None:
        """Note that the server answered."""
        if self._since is None and not self._said:
            return
        with self._lock:
            self._since, self.given_up, self.why = None, False, ""
            if self._said:
                self._said = False
                self._say("the server answers again")

    def is_slow(self) -> None:
        """Say that the server has not answered for some seconds; the request goes on."""
        with self._lock:
            self.why = self.why or f"no answer within {SLOW_SECONDS:.0f} s"
            self._say_silent(gone=False)

    def _say_silent(self, *, gone: bool) -> None:
        """Say once in a silence that the server does not answer."""
        if self._said:
            return
        self._said = True
        if gone:
            self._say("the server of this run is gone; the run goes on without it")
        elif self._ends:
            self._say(
                f"the server does not answer ({self.why}); all is written, the run waits {self.seconds:.0f} s for it"
            )
        else:
            self._say(f"the server does not answer ({self.why}); the run goes on, and waits for it where it must")

    def _say(self, text: str) -> None:
        if not self._quiet:
            with suppress(OSError, ValueError):  # whoever read the lines is gone
                print(f"prefect   {text}", flush=True)


WAIT = ServerWait()


def waiting_as_asked(options: AnyOptions) -> AnyOptions:
    """Wait for the server as `options` say, in the run that begins now; return them."""
    WAIT.begin(options.server_wait)
    return options


def is_silence(error: BaseException) -> bool:
    """Return whether an error of a request says that there is no server, or none that can answer at the moment."""
    if isinstance(error, httpx.HTTPStatusError):
        return error.response.status_code in _BUSY
    return isinstance(error, httpx.TransportError) and not isinstance(error, httpx.UnsupportedProtocol)


def _is_busy(error: BaseException) -> bool:
    """Return whether the server itself says that it cannot answer at the moment."""
    return isinstance(error, httpx.HTTPStatusError) and error.response.status_code == httpx.codes.SERVICE_UNAVAILABLE


def is_of_server(error: BaseException) -> bool:
    """Return whether an error is one of a request: there was no answer, or one that says what is wrong."""
    return isinstance(error, httpx.HTTPError)


def reason(error: BaseException) -> str:
    """Return why a request failed, in a few words on one line."""
    if isinstance(error, httpx.HTTPStatusError):
        return f"{error.response.status_code} {error.response.reason_phrase}".strip()
    return on_one_line(str(error)) or type(error).__name__


def on_one_line(text: str) -> str:
    """Return a text of somebody else's for a message: on one line, cut, without control characters."""
    words = " ".join(text.split())
    return "".join(character for character in words if character.isprintable())[:200]


@functools.cache
def bound_all_requests() -> None:
    """Bound the requests of all clients of Prefect in this process; once."""
    PrefectHttpxSyncClient.send = _bound(PrefectHttpxSyncClient.send)  # type: ignore[method-assign]
    PrefectHttpxAsyncClient.send = _bound_async(PrefectHttpxAsyncClient.send)  # type: ignore[method-assign]
    APILogWorker._handle_batch = _send_log_lines  # type: ignore[method-assign, assignment]


def everything_sent() -> bool:
    """Send what Prefect still keeps for its server, log lines and events, and wait for it; return whether it is sent.

    It is waited for as long as the server answers.
    """
    _, left = APILogWorker.drain_all(timeout=DRAIN_SECONDS)  # type: ignore[misc] # of all services, not of this one
    while left and not WAIT.given_up:
        with get_client(sync_client=True) as client:
            client.api_healthcheck()
        if not WAIT.given_up:
            _, left = concurrent.futures.wait(left, timeout=DRAIN_SECONDS)
    return not left


def _bound(send: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(send)
    def ask(client: httpx.Client, request: httpx.Request, *arguments: Any, **options: Any) -> Any:
        tries = _Tries(request)
        while True:
            try:
                with tries.one():
                    answer = send(client, request, *arguments, **options)
            except Exception as error:
                if (pause := tries.pause_after(error)) is None:
                    raise
                time.sleep(pause)
            else:
                WAIT.answered()
                return answer

    return ask


def _bound_async(send: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(send)
    async def ask(client: httpx.AsyncClient, request: httpx.Request, *arguments: Any, **options: Any) -> Any:
        tries = _Tries(request)
        while True:
            try:
                with tries.one():
                    answer = await send(client, request, *arguments, **options)
            except Exception as error:
                if (pause := tries.pause_after(error)) is None:
                    raise
                await anyio.sleep(pause)
            else:
                WAIT.answered()
                return answer

    return ask


async def _send_log_lines(worker: APILogWorker, lines: list[dict[str, Any]]) -> None:
    """Send log lines as Prefect's worker does it, but say nothing of each batch while the server is silent."""
    try:
        await worker._client.create_logs(lines)
    except Exception as error:
        if not is_silence(error):
            print(f"prefect   {len(lines)} log lines could not be sent: {reason(error)}", file=sys.stderr)


class _Tries:
    """The tries of one request."""

    def __init__(self, request: httpx.Request) -> None:
        self._request, self._token_renewed = request, False
        self._asked = time.monotonic()
        self._own: dict[str, float | None] = dict(request.extensions.get("timeout") or {})

    @contextmanager
    def one(self) -> Iterator[None]:
        """Give a try as long as there is, and say so when it takes long."""
        most = WAIT.timeout()
        self._request.extensions["timeout"] = {
            kind: most if seconds is None else min(seconds, most) for kind, seconds in self._own.items()
        }
        timer = threading.Timer(SLOW_SECONDS, WAIT.is_slow)
        timer.daemon = True
        if _WAITS.get():
            timer.start()
        try:
            with _without_own_retries():
                yield
        finally:
            timer.cancel()

    def pause_after(self, error: Exception) -> float | None:
        """Return after how many seconds the request is tried again after `error`; None where not."""
        if _is_old_token(error) and not self._token_renewed:
            self._token_renewed = True  # Prefect got a new one, and leaves the second try to its own retries
            return 0.0
        return WAIT.failed(error, self._asked)


def _without_own_retries() -> SettingsContext:
    """Return a context in which Prefect tries a request once, whatever the user set."""
    now = get_settings_context()
    client = now.settings.client.model_copy(update={"max_retries": 0})
    return SettingsContext(profile=now.profile, settings=now.settings.model_copy(update={"client": client}))


def _is_old_token(error: Exception) -> bool:
    return (
        isinstance(error, PrefectHTTPStatusError)
        and error.response.status_code == httpx.codes.FORBIDDEN
        and "Invalid CSRF token" in error.response.text
    )


def _leave_in_time() -> None:
    """Let this process end, however much Prefect still keeps for a server that does not answer."""

    def leave() -> None:
        if not everything_sent():
            os._exit(1)  # as after the error by which Prefect's engine ends then

    # Before Prefect's own waiting, which has no bound: the last one that is registered is the first to be called.
    with suppress(RuntimeError):  # the interpreter is ending already
        threading._register_atexit(leave)  # type: ignore[attr-defined]
