"""Paths on this machine: as a user writes them, and what is there."""

import difflib
import os
import re
import stat
import tempfile
from itertools import islice
from pathlib import Path

# Two letters at least, for C:/ is a Windows drive.
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_KINDS = {stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device"}
NEIGHBOURS = 10_000  # of a missing file or folder, for a similar name


def is_url(text: str) -> bool:
    """Return whether `text` begins with a scheme, as in `s3://bucket`; a colon alone makes no URL."""
    return _URL.match(text) is not None


def local_path(text: str, instead: str) -> str:
    """Return `text` with a leading `~` or `~user` expanded; any other path is returned as it was written.

    Raises:
        ValueError: for a URL, with `instead` as the fix, and for text that can be no path.
    """
    if is_url(text):
        raise ValueError(f"object storage and other URLs are not supported yet; {instead}")
    if not text.strip():
        raise ValueError("is blank; write a path")
    if "\0" in text:
        raise ValueError("holds a NUL character; remove it")
    if not text.startswith("~"):
        return text
    try:
        return str(Path(text).expanduser())
    except RuntimeError:
        user = Path(text).parts[0]
        raise ValueError(f"no home folder is known for {user}; write the whole path, or ./{user}") from None


def is_file(path: Path) -> bool:
    """Return whether there is a file that this user may read; False where there is nothing, or a folder.

    It never waits: a pipe is not opened.

    Raises:
        ValueError: for a pipe or a device, and for a path that cannot be followed or read; the text goes on after the
            path's name.
    """
    if _kind(path) != stat.S_IFREG:
        return False
    try:
        path.open("rb").close()
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}; check its permissions") from None
    return True


def is_folder(path: Path) -> bool:
    """Return whether there is a folder that this user may list and enter; False where there is nothing, or a file.

    Raises:
        ValueError: as `is_file`.
    """
    if _kind(path) != stat.S_IFDIR:
        return False
    try:
        with os.scandir(path / "."):  # the dot is found only in a folder that may be entered
            return True
    except OSError as error:
        raise ValueError(f"cannot be entered: {error.strerror}; check its permissions") from None


def check_writable(folder: Path) -> None:
    """Refuse a folder that this user cannot make, or cannot write. Nothing is there afterwards that was not before.

    Raises:
        ValueError: the text goes on after the folder's name.
    """
    if _kind(folder) == stat.S_IFREG:
        raise ValueError("is a file; name a folder")
    if is_folder(folder):
        if not os.access(folder, os.W_OK):
            raise ValueError("cannot be written: it is read-only, or another user's; name another folder")
        try:
            tempfile.TemporaryDirectory(dir=folder, prefix=".t2i-").cleanup()
        except OSError as error:  # a full disk, or one that says no more than that it may be written
            raise ValueError(f"cannot be written: {error.strerror}; make room, or name another folder") from None
        return
    above = next(parent for parent in folder.absolute().parents if _is_there(parent))
    if not is_folder(above):
        raise ValueError(f"cannot be made: {above} is a file; name another folder")
    try:
        tempfile.TemporaryDirectory(dir=above, prefix=".t2i-").cleanup()
    except OSError as error:
        raise ValueError(f"cannot be made in {above}: {error.strerror}; name another folder") from None


def similar_name(path: Path) -> str:
    """Return `; did you mean prompts.jsonl?` for a path beside which something has a similar name, else nothing."""
    try:
        with os.scandir(path.parent) as entries:
            names = [entry.name for entry in islice(entries, NEIGHBOURS)]
    except OSError:
        return ""
    close = difflib.get_close_matches(path.name, names, n=1, cutoff=0.75)
    return f"; did you mean {path.parent / close[0]}?" if close else ""


def _kind(path: Path) -> int | None:
    """Return what a path leads to: S_IFREG for a file, S_IFDIR for a folder, None for nothing."""
    try:
        kind = stat.S_IFMT(path.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        if path.is_symlink():
            raise ValueError(f"is a link to {path.readlink()}, which does not exist; correct the link") from None
        return None
    except OSError as error:  # a folder above it that may not be entered, a circle of links, a name that is too long
        raise ValueError(f"cannot be read: {error.strerror}; check the path and its permissions") from None
    if kind in _KINDS:
        raise ValueError(f"is {_KINDS[kind]}; name a file or folder")
    return kind


def _is_there(path: Path) -> bool:
    return path.is_symlink() or path.exists()
