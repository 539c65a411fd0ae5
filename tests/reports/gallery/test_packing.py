"""Columns as the gallery's scripts hold them: shorter where values repeat, and the same values."""

import pyarrow as pa
import pytest

from t2i_core.reports.gallery.packing import packed, prompt_lengths
from t2i_core.storage.records import PROMPT_LENGTHS
from tests.reports.gallery.conftest import unpacked


@pytest.mark.parametrize(
    ("column", "form"),
    [
        (pa.array([3, 3, 3]), {"same": 3}),
        (pa.array([None, None], pa.string()), {"same": None}),
        (pa.array(["a", "b", "a", None, "a"]), {"values": ["a", "b"], "codes": [0, 1, 0, -1, 0]}),
        (pa.array(["a", "b", "c"]), ["a", "b", "c"]),
        (pa.array([1, None, 1]), [1, None, 1]),
        (pa.array([0.5, 2.0]), [0.5, 2.0]),
        (pa.array([True, True]), {"same": True}),
        (pa.array([2**53 - 1, 0]), [2**53 - 1, 0]),
        (pa.array([2**53, 7]), [str(2**53), "7"]),  # JavaScript would round it
        (pa.array([[{"a": 1}], None]), [[{"a": 1}], None]),
        (pa.array([], pa.int64()), {"same": None}),
    ],
)
def test_a_column_has_the_shortest_form(column, form):
    assert packed(column) == form
    if pa.types.is_integer(column.type) and isinstance(form, list) and isinstance(form[0], str):
        return
    assert unpacked(form, len(column)) == column.to_pylist()


def length(tokens, cut=None, unread=None):
    return {"encoder": "T5", "tokens": tokens, "limit": 77, "cut": cut, "unknown": 0, "unread": unread}


def test_of_several_text_encoders_the_largest_length_counts():
    column = pa.array(
        [[length(10), length(12)], None, [length(77, cut="rest"), length(80, unread=0.5)], []], PROMPT_LENGTHS
    )
    tokens, cut, unread = prompt_lengths(column)
    assert tokens.tolist() == [12, -1, 80, -1]
    assert cut.tolist() == [False, False, True, False]
    assert unread.tolist() == [0, 0, 0.5, 0]
    tokens, _, _ = prompt_lengths(column.slice(2))
    assert tokens.tolist() == [80, -1]
