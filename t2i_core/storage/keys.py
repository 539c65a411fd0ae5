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


def as_keys(column: pa.Array | pa.ChunkedArray) -> Keys:
    """Return a column of keys as an array of `KEY`: of keys of full length, without a copy."""
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    if len(column) and column.null_count == 0 and column.type == pa.string():
        _, offsets, characters = column.buffers()
        places = np.frombuffer(offsets, np.int32)[column.offset : column.offset + len(column) + 1]
        if (np.diff(places) == KEY.itemsize).all():
            return np.frombuffer(characters, KEY, len(column), places[0])
    return np.array(column.to_pylist(), KEY)


def find(values: npt.NDArray[Any], within: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """Return, for each of `values`, its index in `within`, which is sorted; -1 where it is not in it."""
    if not len(within):
        return np.full(len(values), -1, np.int64)
    index = np.minimum(np.searchsorted(within, values), len(within) - 1)
    return np.where(within[index] == values, index, -1)
