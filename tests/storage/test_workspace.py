"""Files appear whole or not at all."""

import os
import time

import pytest

from t2i_core.storage.workspace import STALE_SECONDS, Workspace, atomic_write


def test_a_failed_write_leaves_the_old_file_and_no_temporary_one(tmp_path):
    path = tmp_path / "x"
    path.write_text("old")
    with pytest.raises(RuntimeError), atomic_write(path) as file:
        file.write(b"new")
        raise RuntimeError
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


def test_scan_finds_images_and_removes_only_stale_temporary_files(tmp_path):
    store = Workspace(tmp_path)
    key = "ab" + "cd" + "0" * 60
    path = store.image_path(key)
    with atomic_write(path) as file:
        file.write(b"12345")
    fresh, stale = (path.with_name(f".{name}.png.1-1.tmp") for name in ("fresh", "stale"))
    for temporary in (fresh, stale):
        temporary.write_text("half")
    hour_ago = time.time() - STALE_SECONDS - 1
    os.utime(stale, (hour_ago, hour_ago))
    path.with_name("notes.png").write_text("not an image by key")
    scan = store.scan()
    assert scan.keys.tolist() == [key.encode()]
    assert scan.sizes.tolist() == [5]
    assert scan.mtimes_ns.tolist() == [path.stat().st_mtime_ns]
    assert scan.inodes.tolist() == [path.stat().st_ino]
    assert fresh.exists()
    assert not stale.exists()


def test_temporary_files_elsewhere_are_removed_once_stale(tmp_path):
    store = Workspace(tmp_path)
    store.plans.mkdir(parents=True)
    old = [tmp_path / ".manifest.jsonl.1-1.tmp", store.plans / ".x.1-1.tmp"]
    fresh = tmp_path / ".images.parquet.1-1.tmp"
    for path in (*old, fresh):
        path.write_text("half")
    hour_ago = time.time() - STALE_SECONDS - 1
    for path in old:
        os.utime(path, (hour_ago, hour_ago))
    store.remove_stale()
    assert [path.exists() for path in (*old, fresh)] == [False, False, True]


def test_an_output_that_does_not_exist_has_no_images(tmp_path):
    assert len(Workspace(tmp_path / "none").scan().keys) == 0


def test_a_scan_is_sorted_by_key_and_its_digest_is_about_content_not_inodes(tmp_path):
    one, other = Workspace(tmp_path / "one"), Workspace(tmp_path / "other")
    keys = sorted(f"{number * 0x9E3779B97F4A7C15 % 2**64:064x}"[::-1] for number in range(50))
    for store in (one, other):
        for key in reversed(keys):
            path = store.image_path(key)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("x")
            os.utime(path, (1, 1))
    assert one.scan().keys.tolist() == [key.encode() for key in keys]
    assert one.scan().inodes.tolist() != other.scan().inodes.tolist()
    assert one.scan().digest() == other.scan().digest()
    os.utime(other.image_path(keys[7]), (2, 2))
    assert one.scan().digest() != other.scan().digest()
