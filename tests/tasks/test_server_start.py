"""The server that is named is Prefect's, or one line says what it is; a home in which none can work is one line."""

import http.server
import os
import socket
import sqlite3
import threading

import httpx
import pytest
from prefect.client.base import PrefectHttpxSyncClient

from t2i_core.errors import UserError
from tasks import server
from tasks.server import OwnServer, check_home, give_own_database, needs_own_server, why_unreachable, why_unusable
from tasks.server_wait import WAIT
from tasks.settings import apply_settings
from tests.prefect_server import free_port


@pytest.fixture
def prefect(monkeypatch, tmp_path):
    """Set variables of Prefect for this process: `prefect(PREFECT_HOME=...)`."""
    from prefect.context import refresh_global_settings_context

    apply_settings()
    for name in ("PREFECT_API_URL", "PREFECT_SERVER_DATABASE_CONNECTION_URL"):
        monkeypatch.delenv(name, raising=False)

    def set_variables(**values):
        for name, value in values.items():
            monkeypatch.setenv(name, str(value))
        refresh_global_settings_context()

    set_variables(PREFECT_HOME=tmp_path / "home")
    yield set_variables
    monkeypatch.undo()
    refresh_global_settings_context()
    WAIT.is_gone = lambda: False
    WAIT.begin(60)


@pytest.fixture
def answering():
    """A program that answers every request in the same way, whatever it is asked: `answering(200, b"x")` -> its URL."""
    servers = []

    def start(status, body, kind="text/html"):
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *arguments):
                pass

        found = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        servers.append(found)
        threading.Thread(target=found.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{found.server_port}/api"

    yield start
    for found in servers:
        found.shutdown()
        found.server_close()


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (404, b"none", "is no Prefect server (404 Not Found)"),
        (200, b"<html>hello</html>", "is no Prefect server ("),
        (200, b"{}", "is no Prefect server (it tells no version of Prefect)"),
        (200, b'"hello"', "is no Prefect server (it tells no version of Prefect)"),
        (500, b"", "is no Prefect server (500 Internal Server Error)"),
        (401, b"", "refuses this run (401 Unauthorized); set PREFECT_API_AUTH_STRING"),
    ],
)
def test_a_port_that_answers_but_is_no_prefect_is_one_line(prefect, answering, status, body, said, capsys):
    prefect(PREFECT_API_URL=answering(status, body))
    why = why_unusable()
    assert said in why
    assert "prefect config unset PREFECT_API_URL" in why
    assert len(why.splitlines()) == 1
    assert capsys.readouterr().out == ""


@pytest.fixture
def silent(monkeypatch):
    """The address of a server that lets one in and says nothing; a question takes a fifth of a second."""
    monkeypatch.setattr("tasks.server_wait.UNIMPORTANT_SECONDS", 0.2)
    monkeypatch.setattr(WAIT, "_quiet", True)  # as before a run begins
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/api"


def test_a_port_that_says_nothing_is_one_line(prefect, monkeypatch, silent, capsys):
    monkeypatch.setattr(WAIT, "seconds", 1.0)
    prefect(PREFECT_API_URL=silent)
    assert "does not answer (timed out)" in why_unusable()
    assert capsys.readouterr().out == f"server    {silent} says nothing; it is waited for, up to 1 s\n"
    assert why_unreachable(silent).startswith(f"does not reach Prefect's server at {silent} (timed out)")


def test_a_server_that_is_silent_for_a_while_is_waited_for(prefect, monkeypatch, silent, capsys):
    prefect(PREFECT_API_URL=silent)
    ask, asked = PrefectHttpxSyncClient.send, []

    def send(client, request, *arguments, **options):
        asked.append(request.url.path)
        if len(asked) < 3:
            return ask(client, request, *arguments, **options)
        body = b'"3.8.8"' if request.url.path.endswith("version") else b"true"
        return httpx.Response(200, content=body, request=request)

    monkeypatch.setattr(PrefectHttpxSyncClient, "send", send)
    assert why_unusable() == ""
    assert capsys.readouterr().out.count("says nothing; it is waited for") == 1


def test_a_profile_that_names_no_server_and_lets_none_start_is_one_line(prefect):
    prefect(PREFECT_SERVER_ALLOW_EPHEMERAL_MODE="false")
    assert not needs_own_server()
    assert why_unusable() == (
        "Prefect's profile names no server and lets a run start none: set PREFECT_API_URL to a server that runs, or "
        "let each run start one for itself with `prefect profile use ephemeral`"
    )


def test_a_server_behind_a_proxy_is_told_with_what_to_do_unless_the_proxy_is_left_out(prefect, answering, monkeypatch):
    monkeypatch.delenv("NO_PROXY", raising=False)
    refusing = answering(403, b"")  # as proxies do
    monkeypatch.setenv("http_proxy", refusing.removesuffix("/api"))
    prefect(PREFECT_API_URL="http://10.0.0.1:4200/api")
    hint = " (asked by way of http_proxy; where no proxy is needed, add 10.0.0.1 to NO_PROXY)"
    assert f"set PREFECT_API_AUTH_STRING{hint}" in why_unusable()
    assert f"(403 Forbidden){hint}: start it with" in why_unreachable("http://10.0.0.1:4200/api")
    there = answering(200, b'"3.8.8"', "application/json")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    prefect(PREFECT_API_URL=there)
    assert (why_unusable(), why_unreachable(there)) == ("", "")
    assert "asked by way of" not in why_unreachable(refusing)


@pytest.mark.parametrize(
    ("proxies", "expected"),
    [({}, None), ({"https_proxy": "p"}, "127.0.0.1"), ({"http_proxy": "p", "NO_PROXY": "a,*.b"}, "a,*.b,127.0.0.1")],
)
def test_a_run_reaches_its_own_server_without_the_proxy_of_the_environment(monkeypatch, proxies, expected):
    monkeypatch.setattr(server.os, "environ", dict(proxies))
    server._leave_proxies_out("127.0.0.1")
    assert (os.environ.get("NO_PROXY"), os.environ.get("no_proxy")) == (expected, expected)


def test_a_worker_asks_for_a_server_with_prefect_s_certificates(prefect, answering, monkeypatch):
    monkeypatch.setattr(
        server, "get_client", lambda **_: (_ for _ in ()).throw(OSError("the certificate is not known"))
    )
    assert "(the certificate is not known): start it" in why_unreachable("https://prefect.example/api")
    monkeypatch.undo()
    assert why_unreachable(answering(401, b"")) == ""  # what it needs to be let in comes with the tasks


@pytest.mark.parametrize("url", ["localhost:4200/api", "http://"])
def test_a_url_that_is_none_is_one_line(prefect, url):
    prefect(PREFECT_API_URL=url)
    assert len(why_unusable().splitlines()) == 1


def test_a_server_is_prefects(prefect, answering):
    prefect(PREFECT_API_URL=answering(200, b'"3.8.8"', "application/json"))
    assert why_unusable() == ""
    assert not needs_own_server()
    prefect(PREFECT_API_URL=f"http://127.0.0.1:{free_port()}/api")
    assert "does not answer" in why_unusable()


def test_a_home_that_works_is_made_and_stays_as_it_is(prefect, tmp_path):
    assert needs_own_server()
    check_home()
    assert list((tmp_path / "home").iterdir()) == []
    sqlite3.connect(tmp_path / "home/prefect.db").execute("CREATE TABLE a (b)").connection.close()
    check_home()


@pytest.mark.filterwarnings("ignore:Failed to create the Prefect home")
def test_a_home_that_is_a_file_or_lies_below_one_is_one_line(prefect, tmp_path):
    (tmp_path / "file").write_text("x")
    for home in (tmp_path / "file", tmp_path / "file/below"):
        prefect(PREFECT_HOME=home)
        with pytest.raises(
            UserError, match=rf"^PREFECT_HOME: {home} .*is a file; set PREFECT_HOME to a folder"
        ) as error:
            check_home()
        assert len(str(error.value).splitlines()) == 1


def test_a_full_disk_is_one_line(prefect, monkeypatch):
    def fsync(file):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(UserError, match="cannot be written: No space left on device; set PREFECT_HOME"):
        check_home()


@pytest.mark.parametrize("content", [b"\x07" * 9000, b"SQLite format 3\x00" + b"\x99" * 9000])
def test_a_broken_database_is_one_line_unless_another_one_is_named(prefect, tmp_path, content):
    (tmp_path / "home").mkdir(exist_ok=True)
    (tmp_path / "home/prefect.db").write_bytes(content)
    with pytest.raises(UserError, match=r"prefect\.db (is broken|cannot be opened) \(.*\); ") as error:
        check_home()
    assert len(str(error.value).splitlines()) == 1
    give_own_database()
    try:
        check_home()
    finally:
        del os.environ["PREFECT_SERVER_DATABASE_CONNECTION_URL"]


def test_a_server_that_ends_while_it_starts_is_told_with_its_last_words(prefect, monkeypatch):
    monkeypatch.setattr(server, "_SERVER", "no_such_module_anywhere:create_app")
    started = OwnServer()
    with pytest.raises(UserError, match=r"server for this run ended with .*no_such_module_anywhere") as error:
        started.wait_until_it_answers()
    assert len(str(error.value).splitlines()) == 1
    assert started.is_gone()
    started.end()


def test_no_proxy_for_anything_stays_no_proxy_for_anything(monkeypatch):
    monkeypatch.setattr(server.os, "environ", {"http_proxy": "p", "no_proxy": "*"})
    server._leave_proxies_out("127.0.0.1")
    assert server.os.environ == {"http_proxy": "p", "no_proxy": "*"}
