"""Errors of the operating system, as lines for the user: what cannot be read or written, why, and what to do."""

import errno
import os
from collections.abc import Mapping
from pathlib import Path

from t2i_core.errors import OutputError, UserError

_AGAIN = "what is there is kept: run the same command again"
_MAKE_ROOM = "what is there is kept: make room and run the same command again"
_PERMISSIONS = "check its permissions, and whose it is"
# Errors that every further file would meet, too: it would be a waste to go on, or to try again.
FIXES = {
    errno.ENOSPC: _MAKE_ROOM,
    errno.EDQUOT: _MAKE_ROOM,
    errno.EROFS: "it is only for reading; name another folder",
    errno.EACCES: _PERMISSIONS,
    errno.EPERM: _PERMISSIONS,
    errno.ENAMETOOLONG: "choose a shorter path",
    errno.ELOOP: "its links lead in a circle; correct them",
    errno.ENOTDIR: "a file is in the place of a folder; move it away",
    errno.EISDIR: "a folder is in the place of a file; move it away",
    errno.ENODEV: "the disk is gone",
    errno.EFBIG: "the file system takes no file of this size; name a folder on another one",
    errno.EMFILE: "allow more open files (ulimit -n)",
    errno.ENFILE: "allow more open files on this machine",
}
# What may be over in a moment, and is the user's all the same: a disk or a network that fails, a file that went away.
PASSING = {
    errno.EIO: f"the disk or the network failed; {_AGAIN}",
    errno.ESTALE: f"the network drive was changed; {_AGAIN}",
    errno.ENOENT: f"it was removed while the run used it; {_AGAIN}",
}


def is_lasting(error: OSError) -> bool:
    """Return whether an error of the operating system would come again, so that no retry mends it."""
    return error.errno in FIXES


def as_user_error(error: OSError, places: Mapping[str, Path]) -> UserError | None:
    """Return an error of the operating system as the user's; None for one that says nothing about a path of the user's.

    `places`: option -> the path that it names. The error belongs to the option whose path it lies in.
    """
    fix = FIXES.get(error.errno or 0) or PASSING.get(error.errno or 0)
    path = error.filename2 or error.filename
    if fix is None or not isinstance(path, str | bytes):
        return None
    path = os.fsdecode(path)
    option = _option_of(path, places)
    if option is None and error.errno == errno.ENOENT:  # a file of this tool or of Python
        return None
    line = f"{option}: {path}: " if option else f"{path}: "
    kind = OutputError if option == "output" else UserError
    return kind(f"{line}{_reason(error, path)}; {fix}")


def _option_of(path: str, places: Mapping[str, Path]) -> str | None:
    """Return the option in whose path another path lies: of several, the one with the longest."""
    absolute = Path(os.path.abspath(path))  # noqa: PTH100 - Path.resolve would follow links
    inside = {
        option: len(str(place))
        for option, place in places.items()
        if absolute.is_relative_to(os.path.abspath(place))  # noqa: PTH100
    }
    return max(inside, key=lambda option: inside[option], default=None)


def _reason(error: OSError, path: str) -> str:
    """Return what the operating system says, and of a full disk whether room or the number of files is used up."""
    reason = error.strerror or str(error)
    if error.errno != errno.ENOSPC:
        return reason
    try:
        status = os.statvfs(next(folder for folder in Path(path).absolute().parents if folder.is_dir()))
    except (OSError, StopIteration):
        return reason
    return f"{reason} for more files" if status.f_files and not status.f_favail else reason
