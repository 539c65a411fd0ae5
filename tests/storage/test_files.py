"""Files appear whole or not at all; what a killed process leaves is removed once it is an hour old."""

import os
import threading
import time
from types import SimpleNamespace

import pytest

from t2i_core.storage import files
from t2i_core.storage.files import (
    STALE_SECONDS,
    atomic_write,
    entries,
    in_threads,
    is_stale,
    is_temporary,
    portions_of,
    remove_if_stale,
    temporary_beside,
    write_text,
)


def age(path, seconds):
    then = time.time() - seconds
    os.utime(path, (then, then))


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_failed_write_leaves_the_old_file_and_no_temporary_one(tmp_path, error):
    path = tmp_path / "x"
    path.write_text("old")
    with pytest.raises(error), atomic_write(path) as file:
        file.write(b"new")
        raise error
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


def test_until_the_block_ends_a_reader_sees_the_old_file(tmp_path):
    path = tmp_path / "x"
    path.write_text("old")
    with atomic_write(path) as file:
        file.write(b"new")
        file.flush()
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


def test_all_content_is_on_disk_before_the_name_changes(tmp_path, monkeypatch):
    """A power cut after the rename must not leave an empty file under the name of an image."""
    events = []
    fsync, replace = os.fsync, os.replace

    def recording_fsync(descriptor):
        events.append(("fsync", os.fstat(descriptor).st_ino, os.fstat(descriptor).st_size))
        fsync(descriptor)

    def recording_replace(source, target):
        events.append(("replace", os.stat(source).st_ino, os.stat(source).st_size))
        replace(source, target)

    monkeypatch.setattr(files.os, "fsync", recording_fsync)
    monkeypatch.setattr(files.os, "replace", recording_replace)
    with atomic_write(tmp_path / "x") as file:
        file.write(b"12345")
    inode = (tmp_path / "x").stat().st_ino
    assert events == [("fsync", inode, 5), ("replace", inode, 5)]


def test_a_file_of_equal_content_stays_for_those_who_read_it_and_any_other_is_replaced(tmp_path):
    def write(content):
        with atomic_write(tmp_path / "a", keep_equal=True) as file:
            file.write(content)
        assert os.listdir(tmp_path) == ["a"]
        return (tmp_path / "a").stat().st_ino

    first = write(b"one")
    assert write(b"one") == first
    assert write(b"two") != first
    assert (tmp_path / "a").read_bytes() == b"two"
    (tmp_path / "a").unlink()
    (tmp_path / "a").symlink_to(tmp_path.parent / "elsewhere")
    (tmp_path.parent / "elsewhere").write_bytes(b"two")
    write(b"two")
    assert not (tmp_path / "a").is_symlink()
    (tmp_path / "a").unlink()
    os.mkfifo(tmp_path / "a")
    write(b"two")
    assert (tmp_path / "a").read_bytes() == b"two"


def test_folders_on_the_way_are_made(tmp_path):
    path = tmp_path / "a" / "b" / "x"
    for content in (b"1", b"2"):
        with atomic_write(path) as file:
            file.write(content)
    assert path.read_bytes() == b"2"


def test_a_file_is_writable_unless_it_is_to_be_read_only(tmp_path):
    for options, mode in (({}, 0o644), ({"read_only": True}, 0o444)):
        old = os.umask(0o022)
        try:
            with atomic_write(tmp_path / "x", **options):
                pass
        finally:
            os.umask(old)
        assert (tmp_path / "x").stat().st_mode & 0o777 == mode


def test_text_is_written_as_utf8_with_its_line_ends(tmp_path):
    write_text(tmp_path / "x", "狐狸\r\n\n")
    assert (tmp_path / "x").read_bytes() == "狐狸\r\n\n".encode()


def test_temporary_names_are_hidden_distinct_and_recognised(tmp_path):
    path = tmp_path / "sample0_condition0_0.png"
    names = {temporary_beside(path) for _ in range(20)}
    assert len(names) == 20
    for name in names:
        assert name.parent == tmp_path
        assert name.name.startswith(".")
        assert path.name in name.name
        assert is_temporary(name.name)


def test_a_name_that_another_process_uses_is_not_written_to(tmp_path, monkeypatch):
    """Names end in process and time; on two machines that share a disk both may be equal."""
    monkeypatch.setattr(files, "temporary_beside", lambda path: tmp_path / ".x.1-1.tmp")
    (tmp_path / ".x.1-1.tmp").write_text("of another writer")
    with pytest.raises(FileExistsError), atomic_write(tmp_path / "x"):
        pass
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("name", ["x.png", ".x.png", "x.1-1.tmp", ".x.1-1.tmp.png", ".x.tmp", "..1-1", ".x.a-1.tmp"])
def test_files_of_others_are_not_taken_for_temporary_ones(name):
    assert not is_temporary(name)


def test_only_a_file_that_is_an_hour_old_is_stale(tmp_path):
    old, fresh = tmp_path / "old", tmp_path / "fresh"
    for path, seconds in ((old, STALE_SECONDS + 5), (fresh, STALE_SECONDS - 60)):
        path.touch()
        age(path, seconds)
        remove_if_stale(path)
    assert not old.exists()
    assert fresh.exists()
    remove_if_stale(old)  # gone in the meantime: no error


def test_a_machine_whose_clock_is_hours_ahead_takes_no_file_of_a_living_run_for_old(tmp_path, monkeypatch):
    now = time.time
    monkeypatch.setattr(files, "_AHEAD", {})
    monkeypatch.setattr(time, "time", lambda: now() + 3 * STALE_SECONDS)
    old, fresh = tmp_path / "old", tmp_path / "fresh"
    for path, seconds in ((old, STALE_SECONDS + 60), (fresh, STALE_SECONDS - 60)):
        path.touch()
        os.utime(path, (now() - seconds,) * 2)
    assert (is_stale(old), is_stale(fresh)) == (True, False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fresh", "old"]


def test_entries_are_sorted_and_a_folder_that_is_not_there_has_none(tmp_path):
    names = [f"{number:03}" for number in range(40)]
    for name in reversed(names):
        (tmp_path / name).touch()
    assert [entry.name for entry in entries(tmp_path)] == names
    assert entries(tmp_path / "none") == []
    assert entries(tmp_path / "000") == []


def test_calls_that_wait_do_so_together_and_come_back_in_order():
    together = threading.Barrier(3)

    def call(portion):
        if portion[0] == 0:
            time.sleep(0.05)
        elif portion[0] < 8:
            together.wait(30)
        return sum(portion)

    found = in_threads(call, portions_of(range(1000), 2))
    assert list(found) == [sum(range(start, start + 2)) for start in range(0, 1000, 2)]


def test_calls_that_do_not_wait_pass_no_lock_from_thread_to_thread(monkeypatch):
    monkeypatch.setattr("t2i_core.storage.files._WAITS", float("inf"))  # however busy the machine is
    threads = list(in_threads(lambda _: threading.current_thread(), range(1000)))
    assert set(threads) == {threading.current_thread()}


def test_after_calls_that_waited_those_that_do_not_are_alone_again(monkeypatch):
    wall = [0.0]
    clock = SimpleNamespace(perf_counter=lambda: wall[0], thread_time=lambda: 0.0)
    monkeypatch.setattr("t2i_core.storage.files.time", clock)
    monkeypatch.setattr("t2i_core.storage.files.WAITING", 2)

    def call(number):
        wall[0] += number == 0
        return threading.current_thread() is threading.main_thread()

    assert list(in_threads(call, range(12))) == [True, *[False] * 8, True, True, True]


def test_an_error_in_a_thread_is_raised():
    with pytest.raises(ZeroDivisionError):
        list(in_threads(lambda number: 1 // number, [1, 0]))
    assert list(in_threads(len, portions_of([], 2))) == []
