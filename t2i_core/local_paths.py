"""Paths on this machine, as a user writes them."""

import re
from pathlib import Path

# Two letters at least, for C:/ is a Windows drive.
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")


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
