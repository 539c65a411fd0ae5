"""Images are bytes by key: written whole, found by one scan, linked under names."""

import hashlib
import os
import time

import pytest

from t2i_core.storage import image_store
from t2i_core.storage.files import STALE_SECONDS
from t2i_core.storage.image_store import ImageStore

KEY = "ab" + "cd" + "0" * 60


@pytest.fixture
def store(tmp_path):
    (tmp_path / "run-10:00").mkdir()
    return ImageStore(tmp_path / "run-10:00")


@pytest.fixture
def path(tmp_path):
    """Key -> where its image lies."""
    return lambda key: tmp_path / "run-10:00" / ".t2i" / "images" / key[:2] / key[2:4] / f"{key}.png"


def keys(count):
    """Keys whose order is not the order in which they are made."""
    return [hashlib.sha256(str(number).encode()).hexdigest() for number in range(count)]


def test_where_an_image_lies_is_a_promise_of_every_manifest(store, path):
    assert store.location(KEY) == f".t2i/images/ab/cd/{KEY}.png"
    store.write(KEY, b"12345")
    assert path(KEY).read_bytes() == b"12345"


def test_an_image_is_read_back_and_its_file_is_as_told(store, path):
    file = store.write(KEY, b"12345")
    status = path(KEY).stat()
    assert (file.size, file.mtime_ns, file.inode) == (5, status.st_mtime_ns, status.st_ino)
    assert store.stat(KEY) == file
    assert store.read(KEY) == b"12345"


def test_an_image_is_read_only_and_can_be_written_again(store, path):
    store.write(KEY, b"old")
    assert path(KEY).stat().st_mode & 0o777 == 0o444
    store.write(KEY, b"new")
    assert store.read(KEY) == b"new"
    assert [p.name for p in path(KEY).parent.iterdir()] == [f"{KEY}.png"]


def test_an_image_that_is_not_there_is_none(store):
    assert store.read(KEY) is None
    assert store.stat(KEY) is None
    store.delete(KEY)  # no error
    store.write(KEY, b"12345")
    store.delete(KEY)
    assert store.read(KEY) is None


@pytest.fixture(params=["links work", "links do not work"])
def links_work(request, monkeypatch):
    def link(source, target):
        raise OSError("this file system has no hard links")

    if request.param == "links do not work":
        monkeypatch.setattr(image_store.os, "link", link)
    return request.param == "links work"


def test_a_name_is_a_link_or_else_a_copy_with_the_time_of_its_image(store, path, tmp_path, links_work):
    file = store.write(KEY, b"12345")
    os.utime(path(KEY), ns=(1, 10**18))
    target = tmp_path / "sample0_condition0" / "sample0_condition0_0.png"
    store.link(KEY, target)
    assert target.read_bytes() == b"12345"
    assert target.stat().st_mtime_ns == 10**18
    assert (target.stat().st_ino == file.inode) == links_work
    assert [p.name for p in target.parent.iterdir()] == [target.name]


def test_a_link_takes_the_place_of_what_is_there(store, tmp_path, links_work):
    store.write(KEY, b"12345")
    target = tmp_path / "name.png"
    target.write_bytes(b"another image")
    for _ in range(2):  # the second time it links a file to itself
        store.link(KEY, target)
        assert target.read_bytes() == b"12345"
        assert sorted(p.name for p in tmp_path.iterdir()) == ["name.png", "run-10:00"]


def test_a_name_keeps_its_old_file_until_the_new_one_is_whole(store, tmp_path, links_work, monkeypatch):
    store.write(KEY, b"12345")
    target = tmp_path / "name.png"
    target.write_bytes(b"old")
    replace = os.replace

    def watched(source, destination):
        assert target.read_bytes() == b"old"
        assert source.read_bytes() == b"12345"
        replace(source, destination)

    monkeypatch.setattr(image_store.os, "replace", watched)
    store.link(KEY, target)
    assert target.read_bytes() == b"12345"


def test_a_scan_finds_every_image_sorted_by_key(store, path):
    for number, key in enumerate(keys(40)):
        store.write(key, b"x" * (number + 1))
    scan = store.scan()
    assert scan.keys.tolist() == [key.encode() for key in sorted(keys(40))]
    files = [store.stat(key) for key in sorted(keys(40))]
    assert scan.sizes.tolist() == [file.size for file in files]
    assert scan.mtimes_ns.tolist() == [file.mtime_ns for file in files]
    assert scan.inodes.tolist() == [file.inode for file in files]


def test_a_scan_passes_over_what_is_no_image_and_removes_only_stale_temporary_files(store, path):
    store.write(KEY, b"12345")
    others = [
        path(KEY).with_name(name) for name in ("notes.png", f"{KEY}.png.bak", f"{KEY.upper()}.png", f"x{KEY}.png")
    ]
    fresh, stale = (path(KEY).with_name(f".{name}.png.1-1.tmp") for name in ("fresh", "stale"))
    for other in (*others, fresh, stale):
        other.write_text("half")
    hour_ago = time.time() - STALE_SECONDS - 1
    for other in (*others, stale):
        os.utime(other, (hour_ago, hour_ago))
    (path(KEY).parent.parent.parent / "notes.txt").write_text("a file where folders are")
    assert store.scan().keys.tolist() == [KEY.encode()]
    assert fresh.exists()
    assert not stale.exists()
    assert all(other.exists() for other in others)


def test_an_output_that_does_not_exist_has_no_images(tmp_path):
    scan = ImageStore(tmp_path / "none").scan()
    assert [len(column) for column in (scan.keys, scan.sizes, scan.mtimes_ns, scan.inodes)] == [0, 0, 0, 0]


def test_the_digest_of_a_scan_is_about_keys_sizes_and_times_not_inodes(tmp_path):
    one, other = ImageStore(tmp_path / "one"), ImageStore(tmp_path / "other")
    for store, root in ((one, tmp_path / "one"), (other, tmp_path / "other")):
        for key in keys(50):
            store.write(key, b"x")
            os.utime(root / store.location(key), (1, 1))
    assert one.scan().inodes.tolist() != other.scan().inodes.tolist()
    assert one.scan().digest() == other.scan().digest()
    digests = {one.scan().digest()}
    path = tmp_path / "other" / other.location(keys(50)[7])
    os.utime(path, (2, 2))
    digests.add(other.scan().digest())
    path.chmod(0o644)
    path.write_bytes(b"xy")
    os.utime(path, (2, 2))
    digests.add(other.scan().digest())
    path.unlink()
    digests.add(other.scan().digest())
    assert len(digests) == 4


@pytest.mark.parametrize(("form", "suffix"), [("png", ".png"), ("webp", ".webp"), ("jpeg", ".jpg")])
def test_an_image_is_found_by_its_key_whatever_its_format(store, path, tmp_path, form, suffix):
    file = store.write(KEY, b"12345", form)
    assert file == store.stat(KEY)
    assert file.format == form
    assert store.location(KEY) == store.location(KEY, form) == f".t2i/images/ab/cd/{KEY}{suffix}"
    assert store.read(KEY) == path(KEY).with_suffix(suffix).read_bytes() == b"12345"
    assert store.scan().keys.tolist() == [KEY.encode()]
    store.link(KEY, tmp_path / "name")
    assert (tmp_path / "name").read_bytes() == b"12345"
    store.delete(KEY)
    assert store.stat(KEY) is None
    assert len(store.scan().keys) == 0


def test_an_image_that_is_written_in_another_format_takes_the_place_of_the_first(store, path):
    store.write(KEY, b"png")
    store.write(KEY, b"webp", "webp")
    assert [p.name for p in path(KEY).parent.iterdir()] == [f"{KEY}.webp"]
    assert store.read(KEY) == b"webp"


def test_of_two_files_of_a_key_scan_stat_and_read_take_the_same(store, path):
    """A process that is killed between writing one format and deleting the other leaves both."""
    for key in (KEY, "ab" + "cd" + "1" * 60):
        store.write(key, b"1", "jpeg")
    for suffix, content in ((".png", b"333"), (".webp", b"22")):
        path(KEY).with_suffix(suffix).write_bytes(content)
    scan = store.scan()
    assert [key.decode()[4] for key in scan.keys] == ["0", "1"]
    assert store.read(KEY) == b"333"
    file = store.stat(KEY)
    assert (scan.sizes[0], scan.mtimes_ns[0], scan.inodes[0]) == (file.size, file.mtime_ns, file.inode)
    assert scan.sizes.tolist() == [3, 1]
