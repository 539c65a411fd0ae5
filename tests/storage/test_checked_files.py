"""What is known of a file while it is unchanged: neither its size nor its time says so."""

import os
import shutil
import time
from dataclasses import replace

import numpy as np
import pytest

from t2i_core.storage.checked_files import CheckedFiles, mixed, own_change_times, shows_changes
from t2i_core.storage.workspace import Workspace
from tests.builders import image_spec, merged, picture, store_image


@pytest.fixture
def workspace(tmp_path):
    return Workspace(tmp_path / "out")


def settle():
    time.sleep(0.05)


def look(workspace):
    """Look at all images, as a run does; return the keys of those that were not known."""
    checked = Workspace(workspace.root).checked_images
    scan = checked.marked(workspace.images.scan())
    checked.note(scan, np.ones(len(scan.keys), bool))
    return {key.decode() for key in scan.keys[scan.unchecked]}


def test_an_image_is_looked_at_once(workspace):
    keys = {store_image(workspace, image_spec(i)).key for i in range(3)}
    settle()
    assert look(workspace) == keys
    assert look(workspace) == set()
    new = store_image(workspace, image_spec(3)).key
    settle()
    assert look(workspace) == {new}
    assert look(workspace) == set()


@pytest.mark.parametrize("how", ["written in place", "replaced", "renamed", "touched", "linked"])
def test_an_image_that_may_have_changed_is_looked_at_again(workspace, how):
    keys = [store_image(workspace, image_spec(i)).key for i in range(3)]
    settle()
    assert len(look(workspace)) == 3
    path, other = (workspace.images.path(key) for key in keys[:2])
    status = path.stat()
    if how == "written in place":
        path.chmod(0o644)
        path.write_bytes(path.read_bytes()[:-1] + b"\0")
    elif how == "replaced":
        shutil.copy(path, path.with_suffix(".new"))
        path.with_suffix(".new").replace(path)
    elif how == "renamed":
        path.rename(path.with_suffix(".new"))
        path.with_suffix(".new").rename(path)
    elif how == "linked":
        os.link(path, other.with_suffix(".link"))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert path.stat().st_mtime_ns == status.st_mtime_ns
    settle()
    assert look(workspace) == {keys[0]}
    assert look(workspace) == set()


def test_what_is_known_survives_the_linking_of_names_and_nothing_else(workspace):
    keys = [store_image(workspace, image_spec(i)).key for i in range(3)]
    checked = Workspace(workspace.root).checked_images
    scan = workspace.images.scan()
    before = checked.note(scan, np.ones(3, bool))  # within the tick in which they were written
    for key in keys:
        workspace.images.link(key, workspace.root / "names" / f"{key}.png")
    workspace.images.delete(keys[2])
    store_image(workspace, image_spec(2))
    settle()
    checked.carry_over(before, workspace.images.scan())
    assert look(workspace) == {keys[2]}


def test_the_removal_of_names_is_noticed(workspace):
    assert not workspace.checked_images.touched(workspace.images.scan())
    key = store_image(workspace, image_spec(0)).key
    workspace.images.link(key, workspace.root / "names" / f"{key}.png")
    scan = workspace.images.scan()
    settle()
    assert not workspace.checked_images.touched(scan)
    (workspace.root / "names" / f"{key}.png").unlink()
    assert workspace.checked_images.touched(scan)


def test_what_nobody_looked_at_is_not_known_after_names_were_linked(workspace):
    store_image(workspace, image_spec(0))
    settle()
    checked = workspace.checked_images
    before = checked.marked(workspace.images.scan())
    checked.carry_over(before, workspace.images.scan())
    assert len(look(workspace)) == 1


def test_a_file_that_may_still_change_within_a_tick_of_the_clock_is_not_known(workspace):
    now = time.time_ns()
    second = now // 10**9 * 10**9
    times = [now, now - 10**6, now - 10**9 - 1, second - 10**9, second - 4 * 10**9]
    expected = [False, False, True, False, True]
    assert shows_changes(np.zeros(5, np.int64), np.array(times)).tolist() == expected


def test_a_change_time_that_is_the_modification_time_says_nothing():
    times = np.array([10**18 + 1, 10**18 + 2])
    assert not shows_changes(times, times).any()


def test_files_as_cp_leaves_them_get_a_change_time_of_their_own(tmp_path):
    paths = [tmp_path / str(i) for i in range(3)]
    for path in paths:
        path.write_bytes(b"x")
        path.chmod(0o640)
    mtimes = np.array([path.stat().st_mtime_ns for path in paths])
    settle()
    ctimes = own_change_times(paths, mtimes)
    assert shows_changes(mtimes, ctimes).all()
    assert [path.stat().st_mtime_ns for path in paths] == mtimes.tolist()
    assert {path.stat().st_mode & 0o777 for path in paths} == {0o640}
    assert own_change_times([], np.zeros(0, np.int64)).tolist() == []


@pytest.mark.parametrize("content", [b"", b"abc", b"\xff" * 17])
def test_a_lost_or_broken_set_costs_another_look(tmp_path, content):
    path = tmp_path / "set"
    path.write_bytes(content)
    marks = np.array([1, 2], np.uint64)
    files = CheckedFiles(path)
    assert not files.know(marks).any()
    files.keep(marks)
    assert CheckedFiles(path).know(np.array([2, 3, 1], np.uint64)).tolist() == [True, False, True]


def test_where_the_set_cannot_be_written_files_are_looked_at_again(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    files = CheckedFiles(tmp_path / "file" / "set")
    files.keep(np.array([1], np.uint64))
    assert not CheckedFiles(tmp_path / "file" / "set").know(np.array([1], np.uint64)).any()


def test_an_equal_set_is_not_written_again(tmp_path):
    path = tmp_path / "set"
    CheckedFiles(path).keep(np.array([3, 1], np.uint64))
    before = path.stat().st_ino
    CheckedFiles(path).keep(np.array([1, 3], np.uint64))
    assert path.stat().st_ino == before


def test_each_column_and_its_place_count():
    rows = [[1, 2], [2, 1], [1, 3], [0, 2], [0, 0], [2**63, 2]]
    columns = list(np.array(rows, np.uint64).T)
    assert len(np.unique(mixed(columns))) == len(rows)
    many = np.arange(100_000, dtype=np.uint64)
    assert len(np.unique(mixed([many, np.zeros_like(many)]))) == len(many)


def test_a_record_counts_only_if_its_file_says_the_same(workspace, monkeypatch):
    """Two images of equal size and time that changed places: neither record holds, and neither file is adopted."""
    pixels = picture(image_spec(0))
    records = [store_image(workspace, image_spec(i), pixels) for i in (1, 2)]
    paths = [workspace.images.path(record.key) for record in records]
    for path in paths:
        os.utime(path, ns=(0, 10**18))
    records = [replace(record, mtime_ns=10**18) for record in records]
    assert len(merged(workspace, records)) == 2
    contents = [path.read_bytes() for path in paths]
    for path, content in zip(paths, reversed(contents), strict=True):
        path.chmod(0o644)
        path.write_bytes(content)
        os.utime(path, ns=(0, 10**18))
    assert len(merged(workspace, records)) == 0


def test_a_record_of_other_pixels_than_its_file_has_is_replaced_by_what_the_file_says(workspace):
    record = store_image(workspace, image_spec(1))
    again = store_image(workspace, image_spec(1), 255 - picture(image_spec(1)))
    known = replace(again, pixels_sha256=record.pixels_sha256, ctime_ns=None)
    (row,) = merged(workspace, [known]).to_pylist()
    assert row["pixels_sha256"] == again.pixels_sha256


def test_a_file_that_nobody_touched_since_it_was_written_is_not_looked_at(workspace, monkeypatch):
    """Parts of a run would each read the header of every image that another part made."""
    records = [store_image(workspace, image_spec(i)) for i in range(2)]
    read = []
    header = type(workspace.images).header
    monkeypatch.setattr(type(workspace.images), "header", lambda self, key: read.append(key) or header(self, key))
    records = [replace(records[0], mtime_ns=5), replace(records[1], ctime_ns=records[1].ctime_ns - 1)]
    os.utime(workspace.images.path(records[0].key), ns=(5, 5))
    status = workspace.images.stat(records[0].key)
    records[0] = replace(records[0], ctime_ns=status.ctime_ns)
    assert len(merged(workspace, records)) == 2
    assert read == [records[1].key]
    # On a file system without change times of its own, it is the modification time.
    os.utime(workspace.images.path(records[0].key), ns=(5, 5))
    scan = workspace.images.scan()
    scan = replace(scan, ctimes_ns=scan.mtimes_ns)
    known = [replace(record, ctime_ns=record.mtime_ns) for record in records]
    read.clear()
    assert len(merged(workspace, known, scan=scan)) == 2
    assert len(read) == 2


def test_a_file_that_was_looked_at_is_not_looked_at_again(workspace, monkeypatch):
    records = [store_image(workspace, image_spec(i)) for i in range(2)]
    settle()
    look(workspace)
    scan = Workspace(workspace.root).checked_images.marked(workspace.images.scan())
    monkeypatch.setattr("t2i_core.storage.image_store.read_header", lambda file: pytest.fail("looked at"))
    assert len(merged(workspace, records, scan=scan)) == 2


def test_an_output_without_images_has_none_to_look_at(workspace):
    assert look(workspace) == set()
    assert not (workspace.hidden / "checked-images").exists()
