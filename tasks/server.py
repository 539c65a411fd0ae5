"""Prefect's server: whether the named one answers, and that the one which a run starts for itself ends with it."""

import atexit
import os
import shutil
import tempfile

import httpx
import psutil
from prefect import get_client
from prefect.context import refresh_global_settings_context
from prefect.settings import get_current_settings

# A variable in the environment of the server, which it gets from the run: the process that started it.
OWNER = "TEXT2IMAGE_SERVER_OF"
_SERVER = "prefect.server.api.server:create_app"
_END_SECONDS = 5
_ANSWER_SECONDS = 10


def needs_own_server() -> bool:
    """Return whether Prefect will start a server for this process."""
    settings = get_current_settings()
    return settings.api.url is None and settings.server.ephemeral.enabled


def why_silent() -> str:
    """Return why the named server does not answer, and what to do; empty if it answers."""
    with get_client(sync_client=True) as client:
        error = client.api_healthcheck()
        if error is None:
            return ""
        return (
            f"Prefect's server at {client.api_url} does not answer ({error}); start it with `prefect server start`, or "
            "let each run start one for itself with `prefect config unset PREFECT_API_URL`"
        )


def why_unreachable(api_url: str) -> str:
    """Return why this machine does not reach Prefect's server; empty if it does."""
    try:
        httpx.get(f"{api_url.rstrip('/')}/health", timeout=_ANSWER_SECONDS)
    except httpx.HTTPError as error:
        return (
            f"does not reach Prefect's server at {api_url} ({error}): start it with --host 0.0.0.0, and name it in "
            "PREFECT_API_URL by an address that all machines reach"
        )
    return ""


def claim_own_server() -> None:
    """Mark the server that Prefect is about to start as this process's own."""
    os.environ[OWNER] = _signature(psutil.Process())


def give_own_database() -> None:
    """Give the server that Prefect is about to start a database of its own, which is deleted with this process.

    Several processes that each start a server on one SQLite file would lock each other out.
    """
    if get_current_settings().server.database.connection_url is None:
        folder = tempfile.mkdtemp(prefix="text2image-prefect-")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        os.environ["PREFECT_SERVER_DATABASE_CONNECTION_URL"] = f"sqlite+aiosqlite:///{folder}/prefect.db"
        refresh_global_settings_context()


def end_orphans() -> int:
    """End the servers whose run is dead, which a killed run could not do itself; return how many."""
    orphans = [process for process in psutil.process_iter() if _is_orphan(process)]
    for process in orphans:
        process.terminate()
    _, alive = psutil.wait_procs(orphans, timeout=_END_SECONDS)
    for process in alive:
        process.kill()
    return len(orphans)


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
