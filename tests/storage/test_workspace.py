"""The folders of an output: one lock, and no temporary files left for ever."""

import os
import subprocess
import sys
import time

import pytest
from filelock import Timeout

from t2i_core.storage.files import STALE_SECONDS
from t2i_core.storage.workspace import Workspace


def test_an_output_is_laid_out_as_it_always_was(tmp_path):
    workspace = Workspace(str(tmp_path / "out"))
    assert workspace.root == tmp_path / "out"
    assert workspace.hidden == tmp_path / "out/.t2i"
    for name in ("results", "plans", "records", "manifests"):
        assert getattr(workspace, name) == workspace.hidden / name
    workspace.images.write("0" * 64, b"x")
    assert (workspace.hidden / "images/00/00" / f"{'0' * 64}.png").exists()


def test_looking_at_an_output_makes_no_folder(tmp_path):
    workspace = Workspace(tmp_path / "none")
    workspace.remove_stale_files()
    workspace.images.scan()
    assert not workspace.root.exists()


def test_two_runs_do_not_hold_the_lock_at_once(tmp_path):
    one, other = Workspace(tmp_path / "out"), Workspace(tmp_path / "out")
    with one.lock(), pytest.raises(Timeout):
        other.lock().acquire(timeout=0)
    with other.lock().acquire(timeout=0):
        assert (tmp_path / "out/.t2i/lock").exists()


def test_a_killed_process_does_not_keep_the_lock(tmp_path):
    code = (
        "import sys, time; from t2i_core.storage.workspace import Workspace; lock = Workspace(sys.argv[1]).lock();"
        "lock.acquire(); print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.readline() == "held\n"
            with pytest.raises(Timeout):
                Workspace(tmp_path).lock().acquire(timeout=0)
        finally:
            process.kill()
    with Workspace(tmp_path).lock().acquire(timeout=0):
        pass


def test_temporary_files_are_removed_once_stale(tmp_path):
    workspace = Workspace(tmp_path)
    folders = (workspace.root, workspace.hidden, workspace.plans, workspace.records, workspace.manifests)
    for folder in (*folders, workspace.written):
        folder.mkdir(parents=True, exist_ok=True)
    (workspace.written / "manifest.jsonl").write_text("its size and digest")
    theirs = workspace.root / ".report.2024-01.tmp"
    stale = [folder / ".manifest.jsonl.1-1.tmp" for folder in folders]
    fresh = [folder / ".images.parquet.1-1.tmp" for folder in folders]
    others = [folder / "manifest.jsonl.tmp" for folder in folders]
    for path in (*stale, *fresh, *others, theirs):
        path.write_text("half")
    hour_ago = time.time() - STALE_SECONDS - 1
    for path in (*stale, *others, theirs):
        os.utime(path, (hour_ago, hour_ago))
    workspace.remove_stale_files()
    assert [path.exists() for path in (*stale, *fresh, *others)] == [False] * 5 + [True] * 10
    assert theirs.exists()
