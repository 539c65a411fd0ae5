"""Errors of the operating system as lines for the user: by whose path it is, why, and what to do."""

import errno
import os
from pathlib import Path

import pytest

from t2i_core.errors import OutputError
from t2i_core.system_errors import as_user_error, is_lasting

PLACES = {
    "output": Path("/data/out"),
    "dataset rows": Path("/data"),
    "model": Path("/models/flux"),
    "here": Path("rel"),
}


def error(number, path=None, second=None):
    return OSError(number, os.strerror(number), path, None, second)


@pytest.mark.parametrize(
    ("path", "option"),
    [
        ("/data/out/.t2i/x", "output"),
        ("/data/out", "output"),
        ("/data/output", "dataset rows"),
        ("/data/./out/../a.jsonl", "dataset rows"),
        (b"/models/flux/vae", "model"),
        (str(Path("rel/x").absolute()), "here"),
    ],
)
def test_an_error_belongs_to_the_option_whose_path_it_lies_in(path, option):
    found = as_user_error(error(errno.EACCES, path), PLACES)
    assert str(found) == f"{option}: {os.fsdecode(path)}: Permission denied; check its permissions, and whose it is"
    assert isinstance(found, OutputError) == (option == "output")


def test_what_was_to_be_renamed_goes_by_its_new_name():
    assert str(as_user_error(error(errno.EROFS, "/data/out/.tmp", "/data/out/a"), PLACES)).startswith(
        "output: /data/out/a: Read-only file system; it is only for reading"
    )


@pytest.mark.parametrize(
    "number",
    [
        *(errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENAMETOOLONG, errno.ELOOP),
        *(errno.ENOTDIR, errno.EISDIR, errno.EMFILE, errno.ENFILE, errno.EFBIG, errno.EIO, errno.ESTALE),
    ],
)
def test_each_is_one_line_with_a_fix_wherever_it_is(number):
    for path in ("/data/out/x", "/elsewhere/x"):
        text = str(as_user_error(error(number, path), PLACES))
        assert "\n" not in text
        assert f"{path}: {os.strerror(number)}" in text
        assert len(text.rpartition("; ")[2]) > 10
    assert is_lasting(error(number)) == (number not in (errno.EIO, errno.ESTALE))


def test_a_file_that_is_not_there_is_the_user_s_where_an_option_names_it():
    assert "was removed while the run used it" in str(as_user_error(error(errno.ENOENT, "/data/out/x"), PLACES))
    assert as_user_error(error(errno.ENOENT, "/usr/lib/x"), PLACES) is None


@pytest.mark.parametrize(
    "other",
    [OSError("of a library"), error(errno.EACCES), error(errno.ECONNREFUSED, "/data/out"), TimeoutError("slow")],
)
def test_what_says_nothing_about_a_path_is_no_mistake_of_the_user_s(other):
    assert as_user_error(other, PLACES) is None


def test_of_a_full_disk_it_is_said_where_no_more_files_fit(monkeypatch):
    full = error(errno.ENOSPC, "/data/out/x")
    monkeypatch.setattr(os, "statvfs", lambda path: os.statvfs_result((1, 1, 9, 9, 9, 5, 0, 0, 0, 255)))
    assert "No space left on device for more files; what is there is kept: make room" in str(
        as_user_error(full, PLACES)
    )
    monkeypatch.setattr(os, "statvfs", lambda path: os.statvfs_result((1, 1, 0, 0, 0, 5, 5, 5, 0, 255)))
    assert "No space left on device; what is there" in str(as_user_error(full, PLACES))
