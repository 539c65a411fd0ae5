"""Leases: a living run keeps what it reads, a dead one keeps nothing."""

import errno
import fcntl
import json
import os
import subprocess
import sys
import time

import pytest

from t2i_core.storage import promises
from t2i_core.storage.files import STALE_SECONDS
from t2i_core.storage.holders import Holder
from t2i_core.storage.leases import Lease, in_use


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "in-use"


def write_lease(folder, run="gone", **values):
    """Write a lease that nobody holds locked."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / run
    path.write_text(json.dumps({"plan": "abc", **Holder.this_process().to_json(), **values}))
    return path


def test_a_run_is_known_by_its_lease_until_it_ends(folder):
    with Lease(folder, "one") as lease:
        assert in_use(folder) == []
        lease.begin("abc")
        lease.begin("abc")
        (found,) = in_use(folder)
        assert (found.run, found.plan, found.holder.pid) == ("one", "abc", os.getpid())
        assert lease.others() == []
        assert [run.run for run in Lease(folder, "other").others()] == ["one"]
    assert in_use(folder) == []
    assert list(folder.iterdir()) == []


def test_a_lease_tells_what_its_run_makes(folder):
    with Lease(folder, "one") as one, Lease(folder, "two") as two:
        one.begin("abc", "3/8")
        two.begin("abc")
        write_lease(folder, "of an earlier release")
        assert {run.run: run.makes for run in Lease(folder, "other").others()} == {"one": "3/8", "two": ""}


def test_a_lease_ends_with_its_block_after_an_error_too(folder):
    with pytest.raises(ValueError, match="its own"), Lease(folder, "one") as lease:
        lease.begin("abc")
        raise ValueError("its own")
    assert in_use(folder) == []


def test_a_killed_process_keeps_no_lease(folder):
    code = (
        "import sys, time; from pathlib import Path; from t2i_core.storage.leases import Lease;"
        "Lease(Path(sys.argv[1]), 'killed').begin('abc'); print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(folder)], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.readline() == "held\n"
            assert [run.holder.pid for run in in_use(folder)] == [process.pid]
        finally:
            process.kill()
    assert in_use(folder) == []
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(("seconds", "lives"), [(0, True), (STALE_SECONDS + 60, False)])
def test_a_lease_of_another_machine_counts_for_an_hour_where_its_lock_is_not_known_here(folder, seconds, lives):
    path = write_lease(folder, host="another.example", pid=os.getpid())
    then = time.time() - seconds
    os.utime(path, (then, then))
    assert [run.run for run in in_use(folder)] == ["gone"] * lives
    assert path.exists() == lives


@pytest.mark.parametrize("lives", [True, False])
def test_without_locks_it_is_asked_whether_the_process_lives(folder, monkeypatch, lives):
    def flock(file, kind):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    monkeypatch.setattr(promises, "_said", set())
    with subprocess.Popen(["sleep", "0" if not lives else "60"]) as other:
        if not lives:
            other.wait()
        write_lease(folder, pid=other.pid)
        assert [run.run for run in in_use(folder)] == ["gone"] * lives
        other.kill()
    with Lease(folder, "mine") as mine:
        mine.begin("def")
        assert "mine" in {run.run for run in in_use(folder)}


@pytest.mark.parametrize("text", ["", "null", "[1]", '{"plan": 3}', '{"plan": "x", "host": 1}', "[" * 99_999, "\x00"])
def test_what_is_no_lease_counts_for_nothing_and_stays(folder, text):
    folder.mkdir()
    (folder / "odd").write_text(text)
    assert in_use(folder) == []
    assert (folder / "odd").exists()


def test_a_link_a_pipe_and_a_folder_are_no_leases(folder, tmp_path):
    folder.mkdir()
    target = write_lease(tmp_path / "elsewhere")
    (folder / "link").symlink_to(target)
    os.mkfifo(folder / "pipe")
    (folder / "folder").mkdir()
    assert in_use(folder) == []
    assert target.exists()


def test_a_holder_is_a_host_a_process_and_a_time():
    text = str(Holder("node7", 4711, 0.0))
    assert text.startswith("process 4711 on node7, since 19")
    assert "\x1b" not in str(Holder("\x1b[2J", 1, 1e300))
