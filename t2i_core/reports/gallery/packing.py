"""Columns of Arrow as the values that the gallery's scripts hold."""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

# JavaScript has whole numbers up to here; larger ones go as text.
LARGEST_NUMBER = 2**53 - 1


def packed(column: pa.Array) -> Any:
    """Return a column as JSON knows it, in the shortest of three forms.

    `{"same": value}` where all values are equal; `{"values": [...], "codes": [...]}` where text repeats, -1 for null;
    else a list.
    """
    if pa.types.is_integer(column.type):
        column = _within_javascript(column)
    if pa.types.is_nested(column.type):
        return column.to_pylist()
    encoded = column.dictionary_encode()
    values = encoded.dictionary.to_pylist()
    if column.null_count == len(column):
        return {"same": None}
    if column.null_count == 0 and len(values) == 1:
        return {"same": values[0]}
    if pa.types.is_string(column.type) and 2 * len(values) <= len(column):
        return {"values": values, "codes": encoded.indices.fill_null(-1).to_pylist()}
    return column.to_pylist()


def _within_javascript(column: pa.Array) -> pa.Array:
    bounds = pc.min_max(column).as_py()
    if bounds["max"] is not None and max(bounds["max"], -bounds["min"]) > LARGEST_NUMBER:
        return column.cast(pa.string())
    return column


def prompt_lengths(column: pa.Array) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return, for each image of a column of `PROMPT_LENGTHS`: tokens, whether a prompt was cut, share not read.

    Of several text encoders the largest value counts. Tokens: -1 where nothing is known.
    """
    count = len(column)
    tokens, cut, unread = np.full(count, -1, np.int32), np.zeros(count, bool), np.zeros(count, np.float32)
    lengths, parents = pc.list_flatten(column), pc.list_parent_indices(column).to_numpy()
    if len(lengths):
        np.maximum.at(tokens, parents, pc.struct_field(lengths, "tokens").fill_null(-1).to_numpy())
        was_cut = pc.is_valid(pc.struct_field(lengths, "cut")).to_numpy(zero_copy_only=False)
        np.logical_or.at(cut, parents, was_cut)
        np.maximum.at(unread, parents, pc.struct_field(lengths, "unread").fill_null(0).to_numpy().astype(np.float32))
    return tokens, cut, unread
