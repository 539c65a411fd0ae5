"""JSON: one value a line; one array; and an array with bad values in it, each of which costs its own row."""

import json

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from t2i_core.dataset.reading import NOT_UTF8
from t2i_core.errors import DatasetError
from tests.dataset.files import read, reasons, values, write

A, B, C = {"prompt": "a fox"}, {"prompt": "a cat"}, {"prompt": "a dog"}


def array(*items):
    return "[" + ", ".join(item if isinstance(item, str) else json.dumps(item) for item in items) + "]"


def test_blank_lines_are_not_counted_and_broken_ones_keep_their_number(tmp_path):
    path = write(tmp_path / "rows.jsonl", b'\n{"a":1}\n \t\r\n{broken\n\xe2\x80\x83\n\xff\n{"a":2}\n\0\n[1]')
    rows = read(path)
    assert [(r.index, r.line, r.value) for r in rows] == [
        (0, 2, {"a": 1}),
        (1, 4, None),
        (2, 6, None),
        (3, 7, {"a": 2}),
        (4, 8, None),
        (5, 9, [1]),
    ]
    found = reasons(path)
    assert "not JSON" in found[1][1]
    assert "UTF-8" in found[2][1]
    assert "NUL" in found[4][1]
    assert str(rows[1].rejection).startswith("line 4, row: is not JSON")


STRICT = [
    ('{"a": 1e999}', "out of range"),
    ('{"a": ' + "9" * 5000 + "}", "digits"),
    ('{"a": ' + "[" * 300 + "]" * 300 + "}", "deep"),
    ("{'a': 1}", "not JSON"),
    ('{"a": 1,}', "not JSON"),
    ('{"a": "tab\there"}', "not JSON"),
    (r'{"a": "\x"}', "not JSON"),
    ('{"a": "she said "hi" to me"}', "not JSON"),
]


@pytest.mark.parametrize(("text", "reason"), [*STRICT, ('{"a": ' + "[" * 100_000, "deep"), ('{"a": 1', "not JSON")])
def test_json_is_read_strictly(tmp_path, text, reason):
    path = write(tmp_path / "rows.jsonl", f'{{"a": 0}}\n{text}\n{{"a": 2}}\n')
    assert reasons(path).keys() == {1}
    assert reason in reasons(path)[1][1]
    assert len(str(read(path)[1].rejection)) < 400


def test_an_array_under_the_name_of_json_lines_is_told_its_suffix(tmp_path):
    path = write(tmp_path / "rows.jsonl", '[\n {"a": 1},\n {"a": 2}\n]\n')
    assert reasons(path)[0][1].endswith(
        "; write one JSON object a line, or let the file's name end in .json if it is one array"
    )


def test_nan_and_infinity_are_null(tmp_path):
    text = '{"a": NaN, "b": [Infinity, -Infinity, 1.5]}'
    for name, content in (("rows.jsonl", text + "\n"), ("rows.json", f"[{text}]")):
        assert values(write(tmp_path / name, content)) == [{"a": None, "b": [None, None, 1.5]}]


@pytest.mark.parametrize(("text", "reason"), [*STRICT, ("nonsense", "not JSON"), ("", "not JSON")])
@pytest.mark.parametrize("separator", [", ", ",\n", "\n ,\n"])
def test_a_bad_value_in_an_array_costs_its_row_and_is_named_by_its_position(tmp_path, text, reason, separator):
    items = [json.dumps(A), text, json.dumps(B), json.dumps(C)]
    path = write(tmp_path / "rows.json", f"[{separator.join(items)}]")
    found = reasons(path)
    assert [row.value for row in read(path)] == [A, None, B, C]
    assert found.keys() == {1}
    assert found[1][0] is None
    assert reason in found[1][1]
    if text:
        assert found[1][1].endswith(f"; correct it (line {1 + separator.count(chr(10))} of the file)")
    assert str(read(path)[1].rejection).startswith("row 1, row: is not JSON")


def test_a_quotation_mark_too_few_costs_its_row_where_rows_have_lines(tmp_path):
    text = '[\n {"prompt": "a fox},\n {"prompt": "a cat"},\n {\n  "prompt": "a dog,\n  "n": 1\n }\n]'
    path = write(tmp_path / "rows.json", text)
    assert [row.value for row in read(path)] == [None, B, None]
    assert "(line 2 of the file)" in reasons(path)[0][1]
    assert "(line 4 of the file)" in reasons(path)[2][1]


@pytest.mark.parametrize(
    "text",
    [
        '[{"prompt": "a fox}, {"prompt": "a cat"}]',
        '[{"prompt": "x "y"}, {"prompt": "a cat"}, {"prompt": "x "y"}, {"prompt": "z"}]',
        '[{"prompt": "a fox"} {"prompt": "a cat"}]',
        '[{"prompt": "a fox"}, {"prompt": "a cat"',
        '[{"prompt": "a fox"}}, {"prompt": "a cat"}]',
        '[{"prompt": "a fox", {"prompt": "a cat"}]',
        '[{"prompt": "a fox"}] {"prompt": "a cat"}',
        '{"prompt": "a fox"',
        '{"data": [{"prompt": "a fox",}], "n": 1}',
        "[" * 100_000,
        "nonsense",
    ],
)
def test_an_array_whose_values_cannot_be_told_apart_is_refused(tmp_path, text):
    with pytest.raises(
        DatasetError, match=r"rows\.json: is not JSON: .*; correct it; a \.json data set is an array of"
    ):
        read(write(tmp_path / "rows.json", text))


def test_a_comma_after_the_last_value_is_no_row(tmp_path):
    assert values(write(tmp_path / "rows.json", array(A, B)[:-1] + ",\n]\n")) == [A, B]


def test_bytes_that_are_not_utf8_cost_their_value(tmp_path):
    text = array(A, '{"prompt": "fatigué"}', B).encode("latin-1")
    assert reasons(write(tmp_path / "rows.json", text)) == {1: (None, NOT_UTF8)}
    lines = "\n".join(map(json.dumps, [A, B, C])).encode() + '\n{"prompt": "fatigué"}\n'.encode("latin-1")
    assert reasons(write(tmp_path / "lines.json", lines)) == {3: (4, NOT_UTF8)}


def test_json_lines_are_read_under_the_name_json(tmp_path):
    path = write(tmp_path / "rows.json", f"{json.dumps(A)}\n\n{{broken\n{json.dumps(B)}\n")
    assert [(row.line, row.value) for row in read(path)] == [(1, A), (3, None), (4, B)]
    path = write(tmp_path / "rows.json", f"{{broken\n{json.dumps(A)}\n{json.dumps(B)}\n")
    assert [(row.line, row.value) for row in read(path)] == [(1, None), (2, A), (3, B)]
    assert values(write(tmp_path / "one.json", json.dumps(A))) == [A]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"data": [A, B]}, [A, B]),
        ({"version": 1, "data": [A], "more": [B]}, [A]),
        ({"rows": [A, B]}, [A, B]),
        ({"rows": []}, None),
        ({"data": {"a": 1}}, [{"data": {"a": 1}}]),
        (
            {"conversations": [{"role": "user", "content": "a"}]},
            [{"conversations": [{"role": "user", "content": "a"}]}],
        ),
        ({"turns": [{"from": "human", "value": "a"}]}, [{"turns": [{"from": "human", "value": "a"}]}]),
        ({"prompts": ["a", "b"]}, [{"prompts": ["a", "b"]}]),
        ({"images": [A], "annotations": [B]}, [{"images": [A], "annotations": [B]}]),
        ([A, 5], [A, 5]),
        ([], None),
    ],
)
def test_an_object_may_hold_the_rows(tmp_path, value, expected):
    path = write(tmp_path / "rows.json", json.dumps(value, indent=1))
    if expected is None:
        with pytest.raises(DatasetError, match="is empty"):
            read(path)
    else:
        assert values(path) == expected


def test_a_bad_value_within_an_object_costs_its_row(tmp_path):
    path = write(tmp_path / "rows.json", '{"data": [{"prompt": "a fox"}, {"prompt": "b",}]}')
    assert [row.value for row in read(path)] == [A, None]


def test_a_table_by_columns_is_refused_with_the_option_of_pandas(tmp_path):
    frame = pd.DataFrame({"prompt": ["a fox", "a cat"], "n": [1, 2]})
    path = tmp_path / "rows.json"
    for orient in ("columns", "split"):
        frame.to_json(path, orient=orient)
        with pytest.raises(DatasetError, match=r'pandas writes them by default; write it with orient="records"'):
            read(path)
    for orient in ("records", "table"):
        frame.to_json(path, orient=orient)
        assert [row["prompt"] for row in values(path)] == ["a fox", "a cat"]
    frame.to_json(path, orient="records", lines=True)
    assert [row["prompt"] for row in values(path)] == ["a fox", "a cat"]


def test_a_json_file_of_another_value_is_refused(tmp_path):
    for text in ("5", '"a fox"', "null"):
        with pytest.raises(DatasetError, match=r"a \.json data set is an array of objects"):
            read(write(tmp_path / "rows.json", text))


items = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
bad = st.sampled_from([text for text, _ in STRICT])


@given(st.lists(items | bad.map(lambda text: (text,)), min_size=1, max_size=8), st.sampled_from([None, 1]))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_values_of_an_array_keep_their_positions_whatever_is_wrong_with_others(tmp_path, items, indent):
    texts = [item[0] if isinstance(item, tuple) else json.dumps(item, indent=indent) for item in items]
    path = write(tmp_path / "rows.json", "[" + ",".join(texts) + "]")
    rows = read(path)
    assert [row.index for row in rows] == list(range(len(items)))
    for row, item in zip(rows, items, strict=True):
        assert (row.rejection is not None) == isinstance(item, tuple)
        assert row.rejection or row.value == item


places = st.floats(0, 1)
one_edit = st.tuples(st.tuples(places, st.sampled_from(["", *"{}[]"])))
edits = one_edit | st.lists(st.tuples(places, st.sampled_from([*'",:\\\n a1'])), max_size=3)


@given(st.integers(1, 6), edits, st.sampled_from([None, 1]))
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_row_of_a_damaged_array_is_lost(tmp_path, count, edits, indent):
    """One character is lost, or others come in; then there are as many rows as before, or more, or an error."""
    text = json.dumps([{"prompt": f"fox, {n}", "list": [{"a": n}]} for n in range(count)], indent=indent)
    for place, character in edits:
        position = int(place * (len(text) - 1))
        text = text[:position] + character + text[position + (not character) :]
    try:
        rows = read(write(tmp_path / "rows.json", text))
    except DatasetError:
        return
    assert len(rows) >= count
