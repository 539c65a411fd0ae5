"""The names of images: `sample{row}_condition{message}`, or the row's id in the place of `sample{row}`."""

import re

from t2i_core.hashing import digest
from t2i_core.storage.suffixes import PNG, SUFFIXES

_SAFE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def image_name(stem: str, condition: int, image: int) -> str:
    """Return `sample0_condition0/sample0_condition0_0.png`, as DataFlow-MM names it."""
    folder = f"{stem}_condition{condition}"
    return f"{folder}/{folder}_{image}{SUFFIXES[PNG]}"


def in_format(name: str, format: str | None) -> str:
    """Return the name of an image that is stored in `format`; None: as PNG, like images of earlier versions."""
    return name.removesuffix(SUFFIXES[PNG]) + SUFFIXES[format or PNG]


def safe_id(value: str) -> str:
    """Return an id as part of a file name. Where characters had to be replaced, a hash keeps ids apart."""
    if _SAFE_ID.fullmatch(value):
        return value
    readable = re.sub(r"[^A-Za-z0-9._-]+", "_", value).strip("._-")[:60]
    return f"{readable or 'id'}-{digest(value)[:12]}"
