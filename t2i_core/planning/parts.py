"""Parts of the work: processes that share an output each make the images whose key falls to their part."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from t2i_core.planning.catalog import Catalog

# Hexadecimal digits of a key that decide its part: a number below 2**32, large beside any number of parts.
_DIGITS = 8

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Part:
    """Part `number` of `total`, counted from 1.

    The keys alone decide, so no part knows of the others, and the number of parts may change from run to run.
    """

    number: int
    total: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the part that `3/64` means."""
        number, total = text.split("/")
        return cls(int(number), int(total))

    def has(self, keys: pa.Array) -> Mask:
        """Mark the keys that fall to this part."""
        mask: Mask = parts_of(keys, self.total) == self.number
        return mask

    def has_key(self, key: str) -> bool:
        """Return whether a key falls to this part."""
        return bool(self.has(pa.array([key]))[0])

    def __str__(self) -> str:
        return f"{self.number}/{self.total}"


@dataclass(slots=True)
class Counts:
    """How many images of the data set are made, failed in a way that lasts, and are missing."""

    made: int = 0
    failed: int = 0
    missing: int = 0

    @property
    def images(self) -> int:
        """All of them."""
        return self.made + self.failed + self.missing


def parts_of(keys: pa.Array, total: int) -> npt.NDArray[np.int64]:
    """Return the number of the part, from 1 to `total`, that each key falls to."""
    digits = "".join(key[:_DIGITS] for key in keys.to_pylist())
    return np.frombuffer(bytes.fromhex(digits), ">u4").astype(np.int64) % total + 1


def count_parts(catalog: Catalog, total: int) -> list[Counts]:
    """Return the counts of each of `total` parts."""
    sums = np.zeros((3, total + 1), np.int64)
    for parts, present, failed in _states(catalog, total):
        for row, mask in enumerate((present, failed, ~present & ~failed)):
            sums[row] += np.bincount(parts[mask], minlength=total + 1)
    return [Counts(*map(int, sums[:, number])) for number in range(1, total + 1)]


def _states(catalog: Catalog, total: int) -> Iterator[tuple[npt.NDArray[np.int64], Mask, Mask]]:
    """Yield, chunk by chunk, (the part of each image, whether it has a picture, whether it failed)."""
    errors = catalog.index.errors.keys() | catalog.errors.keys()
    for chunk in catalog.chunks([]):
        keys = chunk.specs["key"]
        failed = np.array([key in errors for key in keys.to_pylist()], bool) & ~chunk.present
        yield parts_of(keys, total), chunk.present, failed
