"""Keys as numpy columns: 64 bytes a key, looked up by bisection.

A run over millions of images asks several times which keys are known. Hash tables of Python strings would cost some
hundred bytes a key each time; these columns cost their content.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

KEY = np.dtype("S64")  # hexadecimal digits
Keys = npt.NDArray[np.bytes_]


def as_keys(column: pa.Array) -> Keys:
    """A column of keys as an array of `KEY`."""
    return np.array(column.to_pylist(), KEY)


def find(values: npt.NDArray[Any], within: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """For each of `values` its place in `within`, which is sorted; -1 where it is not there."""
    if not len(within):
        return np.full(len(values), -1, np.int64)
    places = np.minimum(np.searchsorted(within, values), len(within) - 1)
    return np.where(within[places] == values, places, -1)
