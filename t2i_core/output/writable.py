"""Whether an output folder can be made and written; apart from all else, so that a mistake is answered at once."""

import os
from pathlib import Path

from t2i_core.errors import OutputError
from t2i_core.local_paths import check_writable


def check_output(root: Path) -> None:
    """Refuse a folder that cannot be made or written, or that has such a folder of ours in it; leave it as it is.

    Raises:
        OutputError: naming the folder.
    """
    _check(root)
    hidden = root / ".t2i"
    if os.path.lexists(hidden):
        _check(hidden)
        for path in hidden.iterdir():
            if path.is_dir():
                _check(path)


def _check(folder: Path) -> None:
    try:
        check_writable(folder)
    except ValueError as error:
        raise OutputError(f"output: {folder} {error}") from None
