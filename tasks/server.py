"""Prefect's server: whether the named one answers, and the one that a run starts for itself, which ends with it."""

import atexit
import os
import re
import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

import httpx
import prefect
import psutil
from prefect import get_client
from prefect.client.base import ServerType
from prefect.context import refresh_global_settings_context
from prefect.settings import PREFECT_API_URL, get_current_settings, temporary_settings

from t2i_core.errors import UserError
from t2i_core.local_paths import check_writable
from tasks.server_wait import WAIT, is_silence, on_one_line, reason

# A variable in the environment of the server, which it gets from the run: the process that started it.
OWNER = "TEXT2IMAGE_SERVER_OF"
_HOST = "127.0.0.1"
_SERVER = "prefect.server.api.server:create_app"
_END_SECONDS = 5
# What the database needs for a run, more or less; a full disk has less.
_ROOM_BYTES = 1_000_000
# Between two looks at whether the server answers; and after these it is said that it does not yet.
_LOOK_SECONDS, _SAY_SECONDS = 0.1, 20.0
# Another process may take the port that was free a moment ago.
_TRIES = 3


def needs_own_server() -> bool:
    """Return whether this process needs a server of its own: none is named, and Prefect may start one."""
    settings = get_current_settings()
    return settings.api.url is None and settings.server.ephemeral.enabled


def why_unusable() -> str:
    """Return why the named server cannot be used, and what to do; empty if it can.

    It takes ten seconds at most; longer, and says so, where a server lets this process in and is silent.
    """
    url = get_current_settings().api.url
    if url is None:
        return (
            "Prefect's profile names no server and lets a run start none: set PREFECT_API_URL to a server that runs, "
            "or let each run start one for itself with `prefect profile use ephemeral`"
        )
    otherwise = "let each run start one for itself with `prefect config unset PREFECT_API_URL`"
    try:
        with WAIT.not_waiting(), get_client(sync_client=True) as client:

            def ask() -> None:
                if (error := client.api_healthcheck()) is not None:
                    raise error
                # Another program may answer anything it is asked; Prefect Cloud tells no version.
                if client.server_type != ServerType.CLOUD and not _is_version(client.api_version()):
                    raise ValueError("it tells no version of Prefect")

            _patiently(ask, f"server    {url} says nothing; it is waited for, up to {WAIT.seconds:.0f} s")
    except Exception as error:
        if is_silence(error):
            why = f"Prefect's server at {url} does not answer ({reason(error)}); start it with `prefect server start`"
        elif isinstance(error, httpx.HTTPStatusError) and error.response.status_code in (401, 403):
            why = f"Prefect's server at {url} refuses this run ({reason(error)}); set PREFECT_API_AUTH_STRING"
        else:
            why = f"PREFECT_API_URL: what answers at {url} is no Prefect server ({reason(error)}); name http://HOST:4200/api"
        return f"{why}{_about_proxy(url)}, or {otherwise}"
    return ""


def why_unreachable(api_url: str) -> str:
    """Return why this machine does not reach Prefect's server; empty if it does.

    It is asked as Prefect asks it, with its certificates. What it needs to let a run in comes with the tasks.
    """
    try:
        named = temporary_settings({PREFECT_API_URL: api_url})
        with named, WAIT.not_waiting(), get_client(sync_client=True) as client:

            def ask() -> None:
                error = client.api_healthcheck()
                if error is not None and not (isinstance(error, httpx.HTTPStatusError) and _asks_who(error)):
                    raise error

            _patiently(ask)
    except Exception as error:
        return (
            f"does not reach Prefect's server at {api_url} ({reason(error)}){_about_proxy(api_url)}: start it with "
            "--host 0.0.0.0, and name it in PREFECT_API_URL by an address that all machines reach"
        )
    return ""


def _asks_who(error: httpx.HTTPStatusError) -> bool:
    return error.response.status_code == 401


def _about_proxy(url: str) -> str:
    """Return what to do about a proxy between this machine and a server, to be added to a message; empty for none."""
    parts = urllib.parse.urlsplit(url)
    proxy = urllib.request.getproxies().get(parts.scheme)
    if not proxy or not parts.hostname or urllib.request.proxy_bypass(parts.hostname):
        return ""
    return f" (asked by way of {parts.scheme}_proxy; where no proxy is needed, add {parts.hostname} to NO_PROXY)"


def _leave_proxies_out(host: str) -> None:
    """Let this process, and those that it starts, reach a host without a proxy, where the environment names one."""
    proxies = urllib.request.getproxies_environment()
    if proxies.keys() - {"no"} and "*" not in [item.strip() for item in proxies.get("no", "").split(",")]:
        os.environ["NO_PROXY"] = os.environ["no_proxy"] = ",".join(filter(None, (proxies.get("no"), host)))


def _patiently(ask: Callable[[], object], line: str = "") -> None:
    """Ask a server again that took the question and is silent, for as long as a run waits for one.

    `line` is printed once, after the first silence. A server on SQLite can be silent for a minute
    (`t2i_core/options/server.py`).
    """
    deadline, said = time.monotonic() + WAIT.seconds, not line
    while True:
        try:
            ask()
            return
        except httpx.ReadTimeout:
            if time.monotonic() >= deadline:
                raise
        if not said:
            said = True
            print(line, flush=True)


def give_own_database() -> None:
    """Give the server that is about to start a database of its own, which is deleted with this process.

    Several processes that each start a server on one SQLite file would lock each other out.
    """
    if not _database_is_chosen():
        folder = tempfile.mkdtemp(prefix="text2image-prefect-")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        os.environ["PREFECT_SERVER_DATABASE_CONNECTION_URL"] = f"sqlite+aiosqlite:///{folder}/prefect.db"
        refresh_global_settings_context()


def check_home() -> None:
    """Refuse a PREFECT_HOME in which no server can work; quick, for a server would need minutes to fail.

    Raises:
        UserError: in one line, with what to do.
    """
    home = get_current_settings().home
    instead = "set PREFECT_HOME to a folder with room for a database, or PREFECT_API_URL to a server that runs"
    try:
        check_writable(home)
        home.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=home) as file:
            file.write(bytes(_ROOM_BYTES))
            file.flush()
            os.fsync(file.fileno())
    except (OSError, ValueError) as error:
        why = f"cannot be written: {error.strerror}" if isinstance(error, OSError) else str(error).partition(";")[0]
        raise UserError(f"PREFECT_HOME: {home} {why}; {instead}") from None
    database = home / "prefect.db"
    if _database_is_chosen() or not database.exists():
        return
    try:
        with closing(sqlite3.connect(f"file:{database.absolute()}?mode=rw", uri=True, timeout=1)) as connection:
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.OperationalError as error:
        if "locked" not in str(error):
            raise UserError(f"PREFECT_HOME: {database} cannot be opened ({error}); {instead}") from None
    except sqlite3.DatabaseError as error:
        raise UserError(
            f"PREFECT_HOME: {database} is broken ({error}); move it away (Prefect begins a new one), or {instead}"
        ) from None


class OwnServer:
    """A server of this process's own, which ends with it. It begins to start when it is made."""

    def __init__(self) -> None:
        claim_own_server()
        _leave_proxies_out(_HOST)
        self._log = tempfile.TemporaryFile("a+b")  # noqa: SIM115 - as long as the server
        self._tries = 0
        self._start()
        atexit.register(self.end)

    def wait_until_it_answers(self) -> None:
        """Wait until the server answers; from then on it is the server of this process and of those that it starts.

        Raises:
            UserError: it ended instead, or did not answer in time.
        """
        begun, said = time.monotonic(), 0.0
        limit = get_current_settings().server.ephemeral.startup_timeout_seconds
        while not self._answers():
            waited = time.monotonic() - begun
            if self._process.poll() is not None and not self._port_was_taken():
                raise UserError(f"Prefect's server for this run ended with {self._last_words()}; {_INSTEAD}")
            if waited > limit:
                self.end()
                raise UserError(
                    f"Prefect's server for this run did not answer within {limit} s ({self._last_words()}); {_INSTEAD}"
                )
            if waited - said > _SAY_SECONDS:
                said = waited
                print(f"server    starts since {waited:.0f} s, {limit} s at most", flush=True)
            time.sleep(_LOOK_SECONDS)
        os.environ["PREFECT_API_URL"] = f"{self._address}/api"
        refresh_global_settings_context()
        WAIT.is_gone = self.is_gone

    def is_gone(self) -> bool:
        """Return whether the server has ended."""
        return self._process.poll() is not None

    def end(self) -> None:
        """End the server."""
        self._process.terminate()
        try:
            self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _start(self) -> None:
        """Start the server as Prefect itself does it, on a port that is free; in a session of its own.

        Ctrl-C in a terminal reaches the processes of a session: the server is still to be told how the run ended.
        """
        self._tries += 1
        with closing(socket.socket()) as free:
            free.bind((_HOST, 0))
            port = free.getsockname()[1]
        self._address = f"http://{_HOST}:{port}"
        program = ["-m", "uvicorn", "--app-dir", str(Path(prefect.__file__).parent), "--factory", _SERVER]
        flags = ["--host", _HOST, "--port", str(port), "--log-level", "error", "--lifespan", "on"]
        ours = {"PREFECT_UI_ENABLED": "0", "PREFECT__SERVER_EPHEMERAL": "1", "PREFECT__SERVER_FINAL": "1"}
        chosen = get_current_settings().to_environment_variables(exclude_unset=True)
        self._process = subprocess.Popen(
            [sys.executable, *program, *flags],
            env={**os.environ, **ours, **chosen},
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            start_new_session=True,
        )

    def _answers(self) -> bool:
        try:
            return httpx.get(f"{self._address}/api/health", timeout=_END_SECONDS).is_success
        except httpx.HTTPError:
            return False

    def _port_was_taken(self) -> bool:
        """Start the server anew where another process took its port; return whether that was so."""
        if "address already in use" not in self._written().lower() or self._tries == _TRIES:
            return False
        self._log.truncate(0)
        self._start()
        return True

    def _written(self) -> str:
        self._log.seek(0)
        return self._log.read().decode("utf-8", "replace")

    def _last_words(self) -> str:
        """Return the last line that the server wrote, which in Python is the error."""
        lines = [
            line.strip() for line in self._written().splitlines() if line.strip() and "Application startup" not in line
        ]
        return on_one_line(lines[-1]) if lines else "no message"


_INSTEAD = "start one with `prefect server start` to see all of it, or set PREFECT_HOME to another folder"


def claim_own_server() -> None:
    """Mark the server that is about to start as this process's own."""
    os.environ[OWNER] = _signature(psutil.Process())


def end_orphans() -> int:
    """End the servers whose run is dead, which a killed run could not do itself; return how many."""
    orphans = [process for process in psutil.process_iter() if _is_orphan(process)]
    for process in orphans:
        with suppress(psutil.NoSuchProcess):
            process.terminate()
    _, alive = psutil.wait_procs(orphans, timeout=_END_SECONDS)
    for process in alive:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    return len(orphans)


def _is_version(answer: object) -> bool:
    return isinstance(answer, str) and re.match(r"\d+\.\d+", answer) is not None


def _database_is_chosen() -> bool:
    """Return whether the user named a database; Prefect fills in the one in its home where not."""
    return "connection_url" in get_current_settings().server.database.model_fields_set


def _is_orphan(process: psutil.Process) -> bool:
    try:
        owner = process.environ().get(OWNER) if _SERVER in process.cmdline() else None
        return owner is not None and not _lives(owner)
    except psutil.Error:  # ended just now, or another user's
        return False


def _lives(signature: str) -> bool:
    try:
        return _signature(psutil.Process(int(signature.partition(" ")[0]))) == signature
    except psutil.NoSuchProcess:
        return False


def _signature(process: psutil.Process) -> str:
    """Return what identifies a process, and no later one of the same number."""
    return f"{process.pid} {process.create_time()}"
