"""Rows of every file format: what was written is read back, and what is broken is rejected alone."""

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from t2i_core.dataset.readers import RawRow, open_source
from t2i_core.errors import DatasetError
from t2i_core.json_values import json_text, parse_json, plain

PROMPTS = ["a fox at dusk", "黄昏时分的狐狸", "🦊 in the 🌲🌲", "ثعلب في الثلج", 'a "quoted", comma', "x" * 10_000]


def write(path: Path, content: str | bytes) -> Path:
    data = content.encode() if isinstance(content, str) else content
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def read(path: Path) -> list[RawRow]:
    return list(open_source(str(path)).rows)


def values(path: Path) -> list[object]:
    rows = read(path)
    assert all(row.rejection is None for row in rows), rows
    return [row.value for row in rows]


def reasons(path: Path) -> dict[int, tuple[int | None, str]]:
    """Rejected rows: {index: (line, reason)}."""
    return {r.index: (r.line, r.rejection.reason) for r in read(path) if r.rejection}


def csv_text(prompts: list[str]) -> str:
    return "prompt,n\n" + "".join('"' + p.replace('"', '""') + f'",{i}\n' for i, p in enumerate(prompts))


WRITTEN = {
    "jsonl": lambda rows: "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows),
    "json": lambda rows: json.dumps(rows, indent=1),
    "csv": lambda rows: csv_text([row["prompt"] for row in rows]),
    "tsv": lambda rows: "prompt\tn\n" + "".join(f"{row['prompt']}\t{row['n']}\n" for row in rows),
    "txt": lambda rows: "".join(row["prompt"] + "\n" for row in rows),
}


@pytest.mark.parametrize("suffix", WRITTEN)
@pytest.mark.parametrize("packed", ["", ".gz"])
@pytest.mark.parametrize("bom", ["", "\ufeff"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_every_text_format_gives_back_what_was_written(tmp_path, suffix, packed, bom, end):
    rows = [{"prompt": prompt, "n": str(n)} for n, prompt in enumerate(PROMPTS)]
    path = write(tmp_path / f"rows.{suffix.upper()}{packed}", bom + WRITTEN[suffix](rows).replace("\n", end))
    expected = [{"prompt": row["prompt"]} for row in rows] if suffix == "txt" else rows
    assert values(path) == expected
    assert [row.index for row in read(path)] == list(range(len(rows)))


def test_parquet_gives_back_what_was_written(tmp_path):
    rows = [{"prompt": prompt, "n": n, "c": [{"role": "user", "content": prompt}]} for n, prompt in enumerate(PROMPTS)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    assert values(tmp_path / "rows.parquet") == rows


def test_parquet_values_that_json_lacks_become_strings_or_null(tmp_path):
    import datetime
    import decimal

    row = {
        "day": datetime.date(2026, 11, 22),
        "time": datetime.datetime(2026, 11, 22, 12, 0, 1),
        "price": decimal.Decimal("1.50"),
        "text": b"bytes",
        "raw": b"\xff\xfe",
        "nan": float("nan"),
        "inf": float("inf"),
    }
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "rows.parquet")
    assert values(tmp_path / "rows.parquet") == [
        {
            "day": "2026-11-22",
            "time": "2026-11-22T12:00:01",
            "price": "1.50",
            "text": "bytes",
            "raw": "//4=",
            "nan": None,
            "inf": "inf",
        }
    ]


def test_numpy_values_become_plain_python():
    import numpy as np

    value = {"a": np.array([1, 2]), "b": np.float32(0.5), "c": np.array([{"role": "user"}], dtype=object), 3: {4}}
    assert plain(value) == {"a": [1, 2], "b": 0.5, "c": [{"role": "user"}], "3": "{4}"}


def test_a_parquet_row_that_is_not_utf8_costs_only_itself(tmp_path):
    good, bad = b"fine", b"\xff\xff"
    offsets = pa.py_buffer(b"".join(n.to_bytes(4, "little") for n in (0, 4, 6, 10)))
    data = pa.Array.from_buffers(pa.string(), 3, [None, offsets, pa.py_buffer(good + bad + good)])
    pq.write_table(pa.table({"prompt": data}), tmp_path / "rows.parquet")
    assert list(reasons(tmp_path / "rows.parquet")) == [1]
    assert [row.value for row in read(tmp_path / "rows.parquet")] == [
        {"prompt": "fine"},
        None,
        {"prompt": "fine"},
    ]


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


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"a": NaN}', "NaN"),
        ('{"a": -Infinity}', "Infinity"),
        ('{"a": 1e999}', "out of range"),
        ('{"a": ' + "9" * 5000 + "}", "digits"),
        ('{"a": ' + "[" * 100_000, "deep"),
        ('{"a": ' + "[" * 300 + "]" * 300 + "}", "deep"),
        ('{"a": 1', "not JSON"),
        ("{'a': 1}", "not JSON"),
    ],
)
def test_json_is_read_strictly(tmp_path, text, reason):
    path = write(tmp_path / "rows.jsonl", f'{{"a": 0}}\n{text}\n{{"a": 2}}\n')
    assert reasons(path).keys() == {1}
    assert reason in reasons(path)[1][1]
    assert len(str(read(path)[1].rejection)) < 400


def test_many_brackets_in_text_are_not_depth():
    assert parse_json(json.dumps({"prompt": "[" * 1000})) == {"prompt": "[" * 1000}


def test_a_unicode_line_separator_is_text(tmp_path):
    assert values(write(tmp_path / "rows.txt", "a\u2028b\u0085c\x0bd\n")) == [{"prompt": "a\u2028b\u0085c\x0bd"}]


def test_half_a_surrogate_pair_survives_as_an_escape():
    value = parse_json('{"a":"\\ud83d","é":1}')
    assert json_text(value) == '{"a": "\\ud83d", "\\u00e9": 1}'
    assert json_text({"é": "狐"}) == '{"é": "狐"}'


def test_csv_rows_may_span_lines_and_are_named_by_the_first(tmp_path):
    text = 'prompt,n\r\n"one\r\ntwo\r\n\r\nthree",1\r\n\r\nplain,2\r\n"say ""hi""",3\r\n'
    rows = read(write(tmp_path / "rows.csv", text))
    assert [(r.index, r.line) for r in rows] == [(0, 2), (1, 7), (2, 8)]
    assert [r.value["prompt"] for r in rows] == ["one\r\ntwo\r\n\r\nthree", "plain", 'say "hi"']


def test_csv_rows_that_break_the_rules_cost_only_themselves(tmp_path):
    lines = [b"prompt,n", b"a,1", b"a,b,2", b"a", b"caf\xe9,3", b"nu\0l,4", b'"a"b,5', b"a\rb,6", b"last,7", b'"open,8']
    found = reasons(write(tmp_path / "rows.csv", b"\n".join(lines) + b"\n"))
    assert found[1] == (3, "has 3 fields where the header has 2; give each column one field")
    assert found[2] == (4, "has 1 fields where the header has 2; give each column one field")
    assert "UTF-8" in found[3][1]
    assert "NUL" in found[4][1]
    assert all("is not CSV" in found[index][1] for index in (5, 6, 8))
    assert found[8][0] == 10
    assert found.keys() == {1, 2, 3, 4, 5, 6, 8}


def test_an_empty_quoted_cell_is_a_row_and_a_blank_line_is_not(tmp_path):
    assert values(write(tmp_path / "rows.csv", 'prompt\n""\n\n  \na\n')) == [{"prompt": ""}, {"prompt": "a"}]


def test_tsv_has_no_quoting(tmp_path):
    path = write(tmp_path / "rows.tsv", 'Prompt\tNote\n"Brain" by "night\tx\n\'a\' "b""\t"\nonly\n')
    assert [r.value for r in read(path)][:2] == [
        {"Prompt": '"Brain" by "night', "Note": "x"},
        {"Prompt": '\'a\' "b""', "Note": '"'},
    ]
    assert reasons(path)[2][0] == 4


@pytest.mark.parametrize("suffix", ["csv", "tsv"])
@pytest.mark.parametrize(("header", "message"), [(b"a,a", "twice"), (b"a\xff,b", "UTF-8"), (b"a\0,b", "NUL")])
def test_a_header_that_cannot_be_used_is_an_error(tmp_path, suffix, header, message):
    header = header.replace(b",", b"\t") if suffix == "tsv" else header
    with pytest.raises(DatasetError, match=message):
        read(write(tmp_path / f"rows.{suffix}", header + b"\n1,2\n"))


def test_a_json_file_is_one_array(tmp_path):
    path = tmp_path / "rows.json"
    assert values(write(path, '[{"a":1}, 5]')) == [{"a": 1}, 5]
    for content, message in [
        ('{"data": []}', "one array"),
        ('{"a":1}\n{"a":2}', r"\.jsonl"),
        ("[NaN]", "NaN"),
        (b'["\xff"]', "UTF-8"),
        ("[" * 100_000, "deep"),
    ]:
        with pytest.raises(DatasetError, match=message):
            read(write(path, content))


@pytest.mark.parametrize("suffix", ["jsonl", "json", "csv", "tsv", "txt", "jsonl.gz"])
@pytest.mark.parametrize("content", ["", "\n \r\n", "\ufeff"])
def test_an_input_without_rows_is_an_error(tmp_path, suffix, content):
    with pytest.raises(DatasetError, match="is empty"):
        read(write(tmp_path / f"rows.{suffix}", content))


def test_tables_with_only_a_header_are_empty(tmp_path):
    pq.write_table(pa.table({"prompt": pa.array([], pa.string())}), tmp_path / "rows.parquet")
    for path in (
        write(tmp_path / "rows.csv", "a,b\n"),
        write(tmp_path / "rows.tsv", "a\tb"),
        tmp_path / "rows.parquet",
    ):
        with pytest.raises(DatasetError, match="is empty"):
            read(path)


cells = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12)


@given(st.lists(st.tuples(cells, cells), min_size=1, max_size=8))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_csv_written_by_the_rules_is_read_back(tmp_path, rows):
    def quoted(cell: str) -> str:
        return '"' + cell.replace('"', '""') + '"'

    text = "a,b\r\n" + "".join(f"{quoted(a)},{quoted(b)}\r\n" for a, b in rows)
    assert values(write(tmp_path / "rows.csv", text)) == [{"a": a, "b": b} for a, b in rows]
