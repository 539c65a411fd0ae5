"""A small Hugging Face hub on loopback, for tests: it answers the requests of huggingface_hub from memory.

Repositories have commits; safetensors (and the other files that `LFS` names) are in LFS. Every request is recorded.
Faults are switched on for a repository or for the next few requests.
"""

import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import huggingface_hub
import pytest
from huggingface_hub import constants

SECRET = "hf_secretsecretsecret"
LFS = (".safetensors", "tokenizer.json")


@dataclass
class FakeRepository:
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    licence: str = "apache-2.0"
    private: bool = False
    gated_files: bool = False  # as on the hub: everyone may list a gated repository, not everyone may download
    gated_listing: bool = False

    def commit(self, files: Mapping[str, bytes], ref: str = "main") -> str:
        sha = hashlib.sha1(json.dumps([len(self.commits), sorted(files)]).encode()).hexdigest()
        self.commits[sha] = dict(files)
        self.refs[ref] = sha
        return sha


@dataclass
class FakeHub:
    """A hub that runs inside `with FakeHub() as hub:`; HF_ENDPOINT must be `hub.url`."""

    repositories: dict[str, FakeRepository] = field(default_factory=dict)
    requests: list[tuple[str, str]] = field(default_factory=list)
    ranges: list[tuple[str, str]] = field(default_factory=list)  # (file, Range) of resumed downloads
    tokens: set[str] = field(default_factory=set)
    fail_next: int = 0
    fail_status: int = 503
    cut_next: dict[str, int] = field(default_factory=dict)  # file -> bytes after which the connection breaks, once
    refused: set[str] = field(default_factory=set)  # files whose download fails with 503
    html: bool = False  # answer like the login page of a guest network
    silent: threading.Event | None = None  # do not answer before this is set
    slow: str = ""  # files with this suffix take for ever: after their first half, a byte comes now and then
    slow_began: threading.Event = field(default_factory=threading.Event)
    ended: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> "FakeHub":
        hub = self

        class Handler(_Handler):
            pass

        Handler.hub = hub
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        if self.silent:
            self.silent.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join(5)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    def repository(self, name: str) -> FakeRepository:
        return self.repositories.setdefault(name, FakeRepository())

    def downloaded(self) -> list[str]:
        """Return the files whose content was sent, of all repositories."""
        return sorted(
            path.split("/resolve/")[1].partition("/")[2]
            for method, path in self.requests
            if method == "GET" and "/resolve/" in path
        )


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: FakeHub

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def answer(self) -> None:
        hub, path = self.hub, unquote(urlsplit(self.path).path)
        hub.requests.append((self.command, path))
        if token := self.headers.get("Authorization"):
            hub.tokens.add(token)
        if hub.silent:
            hub.silent.wait(5)
        if hub.html:
            return self.send(200, b"<html>please log in</html>")
        if hub.fail_next > 0:
            hub.fail_next -= 1
            return self.send(hub.fail_status, b"no")
        if path.startswith("/api/models/"):
            return self.api(path.removeprefix("/api/models/"))
        name, _, rest = path.lstrip("/").partition("/resolve/")
        revision, _, file = rest.partition("/")
        return self.file(name, revision, file)

    def api(self, path: str) -> None:
        name = "/".join(path.split("/")[:2])
        kind, _, revision = path[len(name) + 1 :].partition("/")
        repository = self.find(name, gate="listing")
        if repository is None:
            return None
        sha = repository.refs.get(revision or "main", revision)
        if sha not in repository.commits:
            return self.refuse(404, "RevisionNotFound")
        files = repository.commits[sha]
        if kind == "tree":
            return self.send(
                200, json.dumps([_tree_entry(path, data) for path, data in sorted(files.items())]).encode()
            )
        siblings = [_sibling(path, data) for path, data in sorted(files.items())]
        info = {"id": name, "modelId": name, "sha": sha, "siblings": siblings}
        return self.send(200, json.dumps({**info, "cardData": {"license": repository.licence}}).encode())

    def file(self, name: str, revision: str, path: str) -> None:
        repository = self.find(name, gate="files")
        if repository is None:
            return None
        sha = repository.refs.get(revision, revision)
        files = repository.commits.get(sha)
        if files is None:
            return self.refuse(404, "RevisionNotFound")
        if path not in files:
            return self.refuse(404, "EntryNotFound")
        if path in self.hub.refused:
            return self.send(503, b"no")
        data = files[path]
        headers = {"X-Repo-Commit": sha, "ETag": f'"{_git_hash(data)}"', "Accept-Ranges": "bytes"}
        if path.endswith(LFS):
            headers |= {"X-Linked-Etag": f'"{hashlib.sha256(data).hexdigest()}"', "X-Linked-Size": str(len(data))}
        asked = self.headers.get("Range")
        if asked:
            self.hub.ranges.append((path, asked))
        start = int(asked.removeprefix("bytes=").partition("-")[0]) if asked else 0
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        return self.send(206 if start else 200, data[start:], headers, cut=self.cut(path))

    def cut(self, path: str) -> int | None:
        return self.hub.cut_next.pop(path, None) if self.command == "GET" else None

    def find(self, name: str, gate: str) -> FakeRepository | None:
        repository = self.hub.repositories.get(name)
        if repository is None or repository.private:
            return self.refuse(401, "RepoNotFound")
        if repository.gated_listing or (repository.gated_files and gate == "files"):
            return self.refuse(403, "GatedRepo")
        return repository

    def refuse(self, status: int, code: str) -> None:
        self.send(status, b"{}", {"X-Error-Code": code, "X-Error-Message": "no"})

    def send(self, status: int, body: bytes, headers: Mapping[str, str] | None = None, cut: int | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET" and self.hub.slow and unquote(self.path).endswith(self.hub.slow):
            self.send_slowly(body)
            return
        if self.command == "GET":
            self.wfile.write(body[:cut])
        if cut is not None:
            self.close_connection = True

    def send_slowly(self, body: bytes) -> None:
        half = len(body) // 2
        self.wfile.write(body[:half])
        self.hub.slow_began.set()
        with suppress(ConnectionError):
            while not self.hub.ended.wait(0.2) and half < len(body):
                self.wfile.write(body[half : half + 1])
                half += 1
        self.close_connection = True


def _git_hash(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def _sibling(path: str, data: bytes) -> dict[str, object]:
    entry: dict[str, object] = {"rfilename": path, "size": len(data), "blobId": _git_hash(data)}
    if path.endswith(LFS):
        entry["lfs"] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 130}
    return entry


def _tree_entry(path: str, data: bytes) -> dict[str, object]:
    entry: dict[str, object] = {"type": "file", "path": path, "size": len(data), "oid": _git_hash(data)}
    if path.endswith(LFS):
        entry["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 130}
    return entry


@contextmanager
def connected_hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """Yield a hub that huggingface_hub uses, with a token, and without waits between the library's own attempts."""
    with FakeHub() as fake:
        monkeypatch.setenv("HF_ENDPOINT", fake.url)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        monkeypatch.setenv("HF_TOKEN", SECRET)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda _: None)
        yield fake
        huggingface_hub.close_session()


def go_offline(monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    """Cut the hub off; `how` is "HF_HUB_OFFLINE" or "no network"."""
    if how == "HF_HUB_OFFLINE":
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    else:
        monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")


def message_of(error: pytest.ExceptionInfo[Exception]) -> str:
    """Return the message, after a check that it is one line without the token."""
    message = str(error.value)
    assert "\n" not in message
    assert SECRET not in message
    return message


def read_tree(folder: Path) -> dict[str, bytes]:
    """Return a folder's files, {relative path: content}, ready to be committed."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def write_tree(folder: Path, files: Mapping[str, bytes]) -> Path:
    """Write files, {relative path: content}, into a folder, and return it."""
    for path, data in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    return folder
