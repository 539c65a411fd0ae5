"""A Prefect server with a home of its own, for tests and benchmarks."""

import os
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager

import httpx

START_SECONDS = 180


class _Client(httpx.HTTPTransport):
    """A connection that tries again what the server answers with 503, as Prefect's own clients do.

    The server gives this answer at once where a transaction on SQLite has read before another one wrote.
    """

    def handle_request(self, request):
        deadline = time.monotonic() + 60
        while (answer := super().handle_request(request)).status_code == 503 and time.monotonic() < deadline:
            answer.close()
            time.sleep(0.2)
        return answer


def client_of(url):
    """A client for the REST API of a server."""
    return httpx.Client(base_url=url, timeout=60, transport=_Client())


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@contextmanager
def serve(home, port=None):
    """A `prefect server` with a home of its own; in the environment of this process and its children while it runs."""
    home.mkdir(parents=True, exist_ok=True)
    port = port or free_port()
    ours = {"PREFECT_HOME": str(home), "PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "1"}
    ours["PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS"] = "3"  # 60 would be a long wait for a schedule that fires
    environment = {name: value for name, value in os.environ.items() if name != "PREFECT_API_URL"} | ours
    with (home / "server.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "prefect", "server", "start", "--port", str(port), "--no-ui"],
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    url = f"http://127.0.0.1:{port}/api"
    ours["PREFECT_API_URL"] = url
    before = {name: os.environ.get(name) for name in ours}
    try:
        _wait_for(f"{url}/health", process)
        os.environ |= ours
        _refresh_prefect()
        yield url
        _drain_prefect()
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        _refresh_prefect()
        process.terminate()
        process.wait(30)


def _refresh_prefect():
    """What Prefect in this process has read of the environment, if it is here already."""
    if "prefect.context" in sys.modules:
        sys.modules["prefect.context"].refresh_global_settings_context()


def _drain_prefect():
    """What Prefect still wants to tell the server: at exit, with the server gone, it would wait for a minute."""
    if "prefect.events.worker" not in sys.modules:
        return
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker

    APILogWorker.instance().drain()
    EventsWorker.drain_all()


def _wait_for(url, process):
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        assert process.poll() is None, "the Prefect server ended while starting"
        try:
            with urllib.request.urlopen(url, timeout=2) as answer:
                if answer.status == 200:
                    return
        except OSError:
            time.sleep(0.3)
    raise AssertionError("the Prefect server did not start in time")
