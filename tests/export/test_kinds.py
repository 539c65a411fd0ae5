"""Kinds of columns: what holds all values of a column, and what becomes of each value in it."""

import json

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from t2i_core.export.kinds import (
    MAX_FIELDS,
    ListOf,
    StructOf,
    arrow_type,
    card_feature,
    datasets_feature,
    filled,
    fitted,
    holds,
    kind_of,
    leaves,
    pruned,
    readable,
    settled,
    widened,
)

TURN = StructOf((("role", "text"), ("content", "text")))

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def column_of(values):
    """The kind of a column with these values."""
    kind = "null"
    for value in values:
        kind = widened(kind, kind_of(value))
    return settled(kind)


@pytest.mark.parametrize(
    "values, kind, stored",
    [
        ([None, None], "text", [None, None]),
        ([1, None, 2], "int", [1, None, 2]),
        ([1, 2.5], "float", [1.0, 2.5]),
        ([True, 1], "text", ["true", "1"]),
        (["a", 1, [2]], "text", ["a", "1", "[2]"]),
        ([2**63 - 1], "int", [2**63 - 1]),
        ([1, 2**63], "text", ["1", str(2**63)]),
        ([[], [1]], ListOf("int"), [[], [1]]),
        ([[], []], ListOf("text"), [[], []]),
        ([{}, {}], "text", ["{}", "{}"]),
        ([{}, {"a": 1}], StructOf((("a", "int"),)), [{"a": None}, {"a": 1}]),
        ([{"a": 1}, {"b": "x"}], StructOf((("a", "int"), ("b", "text"))), [{"a": 1, "b": None}, {"a": None, "b": "x"}]),
        ([[{"role": "user", "content": "a"}], [{"content": "b"}]], ListOf(TURN),
         [[{"role": "user", "content": "a"}], [{"role": None, "content": "b"}]]),
        (["fox \ud83e"], "text", ["fox \ufffd"]),
    ],
)  # fmt: skip
def test_a_column_has_one_kind_and_every_value_fits_it(values, kind, stored):
    assert column_of(values) == kind
    assert [fitted(kind, value) for value in values] == stored
    assert pa.array(stored, arrow_type(kind)).to_pylist() == stored


@given(st.lists(json_values, max_size=5))
def test_any_values_of_json_make_a_column_of_arrow_and_of_parquet(values):
    kind = column_of(values)
    stored = [fitted(kind, value) for value in values]
    assert pa.array(stored, arrow_type(kind)).to_pylist() == stored
    assert not pa.types.is_null(arrow_type(kind))


@given(json_values, json_values)
def test_a_quick_look_agrees_with_the_long_way(one, other):
    kind = kind_of(one)
    if holds(kind, other):
        assert widened(kind, kind_of(other)) == kind


def test_an_object_with_many_names_becomes_text():
    wide = {str(number): number for number in range(MAX_FIELDS + 1)}
    assert kind_of(wide) == "text"
    assert json.loads(fitted("text", wide)) == wide
    halves = [dict(list(wide.items())[:40]), dict(list(wide.items())[40:])]
    assert column_of(halves) == "text"


def test_what_lies_deep_becomes_text():
    deep = 1
    for _ in range(20):
        deep = [deep]
    assert "text" in str(kind_of(deep))
    assert fitted(kind_of(deep), deep) is not None


def test_text_that_can_be_encoded_is_kept():
    assert readable("狐 🦊") == "狐 🦊"


def test_paths_of_what_has_a_value():
    kind = settled(kind_of({"a": [{"b": 1, "c": None}], "d": None}))
    assert list(leaves(kind)) == [("a", "[]", "b"), ("a", "[]", "c"), ("d",)]
    assert set(filled(kind, {"a": [{"b": 1}, {"b": None}], "d": "x"})) == {("a", "[]", "b"), ("d",)}
    assert pruned(kind, {("a", "[]", "b")}) == StructOf((("a", ListOf(StructOf((("b", "int"),)))),))
    assert pruned(kind, set()) is None
    assert pruned("text", {("[]",)}) == "text"  # it was a list, until a row had something else


@pytest.mark.parametrize("kind", ["int", "text", ListOf("float"), ListOf(TURN), ListOf(ListOf("int")), TURN])
def test_datasets_understands_both_ways_of_writing_a_kind(kind):
    from datasets import Features

    expected = Features.from_arrow_schema(pa.schema([("column", arrow_type(kind))]))
    assert Features.from_dict({"column": datasets_feature(kind)}) == expected
    assert Features._from_yaml_list([{"name": "column", **card_feature(kind)}]) == expected
