"""Paths on this machine: what is there, what can be made, and words for what cannot."""

import os
import socket
from pathlib import Path

import pytest

from t2i_core.local_paths import check_writable, is_file, is_folder, similar_name


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder").mkdir()
    (tmp_path / "to-file").symlink_to("file")
    (tmp_path / "to-folder").symlink_to("folder")
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "circle").symlink_to("circle")
    os.mkfifo(tmp_path / "pipe")
    return tmp_path


def problem(function, name):
    with pytest.raises(ValueError, match=r"; |check") as error:
        function(Path(name))
    assert "\n" not in str(error.value)
    return str(error.value)


def listing(folder):
    return sorted(path.relative_to(folder) for path in folder.rglob("*"))


def test_a_file_is_one_and_a_folder_is_one_links_followed(here):
    assert [is_file(Path(name)) for name in ("file", "to-file", "folder", "to-folder")] == [True, True, False, False]
    assert [is_folder(Path(name)) for name in ("file", "to-file", "folder", "to-folder")] == [False, False, True, True]


@pytest.mark.parametrize("name", ["nothing", "nothing/at/all", "file/below", "folder/nothing"])
def test_where_nothing_is_there_is_neither(here, name):
    assert not is_file(Path(name))
    assert not is_folder(Path(name))


@pytest.mark.parametrize("function", [is_file, is_folder, check_writable])
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("dangling", "is a link to nowhere, which does not exist"),
        ("circle", "cannot be read: Too many levels of symbolic links"),
        ("circle/below", "cannot be read: Too many levels of symbolic links"),
        ("pipe", "is a pipe"),
        ("/dev/null", "is a device"),
        ("x" * 256, "cannot be read: File name too long"),
        ("folder/" * 700, "cannot be read: File name too long"),
    ],
)
def test_what_cannot_be_followed_or_read_is_said_without_waiting(here, function, name, words):
    assert words in problem(function, name)


@pytest.mark.parametrize("function", [is_file, is_folder, check_writable])
def test_a_socket_is_neither(here, function):
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("socket")
        assert "is a socket" in problem(function, "socket")


@pytest.mark.parametrize("name", ["folder", "to-folder", "new", "folder/new/deep", "."])
def test_a_folder_that_can_be_made_or_written_stays_as_it_is(here, name):
    before = listing(here)
    check_writable(Path(name))
    assert listing(here) == before


def test_a_folder_cannot_be_made_in_place_of_a_file_or_below_one(here):
    assert problem(check_writable, "file") == "is a file; name a folder"
    below = problem(check_writable, "file/a/b")
    assert below == f"cannot be made: {here / 'file'} is a file; name another folder"
    assert "is a link to nowhere" in problem(check_writable, "dangling/below")


def test_a_folder_in_which_the_system_makes_none_is_refused_for_root_too():
    assert "cannot be made in /proc: " in problem(check_writable, "/proc/nothing/here")


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("flie", "; did you mean file?"),
        ("folder/../flie", "; did you mean folder/../file?"),
        ("quite different", ""),
        ("nowhere/file", ""),
        ("file/below", ""),
    ],
)
def test_a_similar_name_beside_it_is_suggested(here, name, hint):
    assert similar_name(Path(name)) == hint
