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
    """Return a column of keys as an array of `KEY`."""
    return np.array(column.to_pylist(), KEY)


def find(values: npt.NDArray[Any], within: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """Return, for each of `values`, its index in `within`, which is sorted; -1 where it is not in it."""
    if not len(within):
        return np.full(len(values), -1, np.int64)
    index = np.minimum(np.searchsorted(within, values), len(within) - 1)
    return np.where(within[index] == values, index, -1)
