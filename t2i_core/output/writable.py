"""Whether an output folder can be made and written; apart from all else, so that a mistake is answered at once."""

import errno
import os
from pathlib import Path

from t2i_core.errors import OutputError
from t2i_core.local_paths import check_writable, is_folder
from t2i_core.storage.files import entries, is_temporary

# The longest path of a run below its output: the name of an image, while it is written, has 250 characters and more.
_LONGEST = Path(".t2i") / ("x" * 200) / ("x" * 200)
_SHOWN = 300


def check_output(root: Path) -> None:
    """Refuse a folder that cannot be made or written, or that has such a folder of ours in it; leave it as it is.

    Raises:
        OutputError: naming the folder.
    """
    _check(root)
    hidden = root / ".t2i"
    if os.path.lexists(hidden):
        _check(hidden)
        for path in sorted(hidden.iterdir()):
            if (path.is_dir() or path.is_symlink()) and not is_temporary(path.name):
                _check(path)
    try:
        os.lstat(root.absolute() / _LONGEST)
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise OutputError(f"output: {_shown(root)}: {error.strerror}; choose a shorter path") from None


def may_be_looked_at(root: Path) -> bool:
    """Return whether a run that writes nothing may have this output: a folder that can be entered, or none yet."""
    try:
        return is_folder(root) or not os.path.lexists(root)
    except ValueError:
        return False


def check_hidden(root: Path) -> None:
    """Refuse an output whose `.t2i` holds a link, a pipe, a socket or a device; nothing is opened.

    Through a link this tool would write elsewhere, and for the other end of a pipe it would wait. Those among images
    are met when these are listed (`ImageStore.scan`).

    Raises:
        OutputError: naming it.
    """
    hidden = root / ".t2i"
    if hidden.is_symlink():
        _refuse_entry(hidden)
    folders = [hidden]
    while folders:
        for entry in entries(folders.pop()):
            if entry.is_dir(follow_symlinks=False):
                folders += [] if entry.path == str(hidden / "images") else [Path(entry.path)]
            elif not entry.is_file(follow_symlinks=False):
                _refuse_entry(Path(entry.path))


def _refuse_entry(path: Path) -> None:
    kind = "a link" if path.is_symlink() else "no regular file"
    raise OutputError(f"output: {_shown(path)} is {kind}, and this tool makes none there; remove it")


def check_has_images(root: Path) -> None:
    """Refuse what is no output of a run.

    Raises:
        OutputError: naming it.
    """
    try:
        if is_folder(root / ".t2i"):
            return
    except ValueError as error:
        raise OutputError(f"output: {_shown(root)} {error}") from None
    raise OutputError(f"output: {_shown(root)} holds no images of this tool; name the output of a run")


def _check(folder: Path) -> None:
    try:
        check_writable(folder)
    except ValueError as error:
        raise OutputError(f"output: {_shown(folder)} {error}") from None


def _shown(path: Path) -> str:
    """Return a path for a message of one line."""
    text = str(path)
    return text if len(text) <= _SHOWN else f"{text[:100]}…{text[-100:]}"
