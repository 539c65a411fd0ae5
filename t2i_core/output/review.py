"""`review.csv`: what people or tools decided about images: their keys, and whether to keep them."""

import csv
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TextIO

import numpy as np
import numpy.typing as npt

from t2i_core.errors import ConfigError, shorten
from t2i_core.hashing import SHA256
from t2i_core.storage.keys import KEY, Keys, find

COLUMNS = ("key", "keep", "path", "reason")
_WORDS = {
    **dict.fromkeys(("yes", "y", "true", "1", "keep"), True),
    **dict.fromkeys(("no", "n", "false", "0", "drop"), False),
}
# Excel writes semicolons where a comma is the decimal sign.
_DELIMITERS = ",;\t"


class Review:
    """Decisions about images, looked up by the key of the picture, as in `images.parquet`."""

    def __init__(self, keys: Keys, keep: npt.NDArray[np.bool_]) -> None:
        """`keys` may repeat: the last decision holds."""
        last = len(keys) - 1 - np.unique(keys[::-1], return_index=True)[1]
        self.keys, self.keep = keys[last], keep[last]

    def decisions(self, keys: Keys) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
        """Return for each of `keys` whether it is decided, and whether it is kept; undecided images are kept."""
        index = find(keys, self.keys)
        return index >= 0, np.where(index >= 0, self.keep[index], True) if len(self.keys) else index < 0


def read_review(path: Path) -> Review:
    """Return the decisions of a CSV file with the columns key and keep; other columns are ignored.

    `keep` is yes or no (also true, false, 1, 0), or empty: not decided.

    Raises:
        ConfigError: naming the line.
    """
    keys, keep = bytearray(), bytearray()
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            for key, kept in _decisions(path, file):
                keys += key.encode()
                keep.append(kept)
    except FileNotFoundError:
        raise ConfigError([f"review: {path} does not exist; check the path"]) from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError([f"review: {path} cannot be read as CSV: {error}"]) from None
    return Review(np.frombuffer(bytes(keys), KEY), np.frombuffer(bytes(keep), np.bool_))


def write_review(file: TextIO, rows: Iterable[tuple[str, bool, str | None, str]]) -> None:
    """Write (key, keep, path, reason) of images in the form that `read_review` reads."""
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows((key, "yes" if keep else "no", path or "", reason) for key, keep, path, reason in rows)


def _decisions(path: Path, file: TextIO) -> Iterator[tuple[str, bool]]:
    header = file.readline()
    delimiter = max(_DELIMITERS, key=header.count)
    names = [name.strip().lower() for name in next(csv.reader([header], delimiter=delimiter), [])]
    if not {"key", "keep"} <= set(names):
        raise ConfigError([f"review: {path} has no columns key and keep (got {shorten(header.strip())})"])
    key_at, keep_at = names.index("key"), names.index("keep")
    for number, row in enumerate(csv.reader(file, delimiter=delimiter), 2):
        if not any(cell.strip() for cell in row):
            continue
        key, keep = (row[at].strip() if at < len(row) else "" for at in (key_at, keep_at))
        if not SHA256.fullmatch(key):
            raise ConfigError([f"review: {path} line {number}: {shorten(key)} is no key of images.parquet"])
        if not keep:
            continue
        if keep.lower() not in _WORDS:
            raise ConfigError([f"review: {path} line {number}: keep is yes or no (got {shorten(keep)})"])
        yield key, _WORDS[keep.lower()]
