"""Tables as text: header, separator, quoting, and rows that are rejected alone."""

import csv

import pandas as pd
import pytest

from t2i_core.errors import DatasetError
from tests.dataset.files import PROMPTS, csv_text, read, reasons, values, write


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


def test_a_rejected_row_shows_the_line_at_fault(tmp_path):
    text = csv_text([f"a fox {n}" for n in range(500)]).replace('"a fox 100"', '"a fox 100')
    (rejected,) = [row for row in read(write(tmp_path / "rows.csv", text)) if row.rejection]
    assert (rejected.index, rejected.line) == (100, 102)
    assert rejected.rejection.value == repr('"a fox 100,100\n')


def test_an_empty_quoted_cell_is_a_row_and_a_blank_line_is_not(tmp_path):
    assert values(write(tmp_path / "rows.csv", 'prompt\n""\n\n  \na\n')) == [{"prompt": ""}, {"prompt": "a"}]


def test_cells_that_may_be_merged_rows_are_warned_of_once(tmp_path, caplog):
    rows = "".join(f'"a fox {n},{n}\na cat",{n}\n' for n in range(3))
    assert len(values(write(tmp_path / "rows.csv", "prompt,n\n" + rows))) == 3
    assert caplog.messages == [
        f"data set  {tmp_path / 'rows.csv'}, line 2: cells span lines and hold as many separators as a row (cells: 3); "
        "where a quotation mark is missing or one too many, rows were merged into one prompt"
    ]


def test_the_header_of_a_file_that_was_joined_is_no_row(tmp_path):
    path = write(tmp_path / "rows.csv", "\ufeffprompt,n\na,1\n\ufeffprompt,n\nb,2\n")
    assert reasons(path) == {1: (3, "is the header once more, as in files that were joined; delete the line")}
    assert read(path)[2].value == {"prompt": "b", "n": "2"}


@pytest.mark.parametrize("suffix", ["csv", "tsv"])
@pytest.mark.parametrize(("separator", "name"), [(";", "semicolons"), ("\t", "tabs"), (",", "commas"), ("|", "bars")])
def test_another_separator_is_known_by_the_header(tmp_path, caplog, suffix, separator, name):
    path = tmp_path / f"rows.{suffix}"
    rows = [{"prompt": text, "n": str(n)} for n, text in enumerate([*PROMPTS, "three\nlines\nof a cell"] * 3)]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ["prompt", "n"], delimiter=separator)
        writer.writeheader()
        writer.writerows(rows)
    assert values(path) == rows
    if separator != {"csv": ",", "tsv": "\t"}[suffix]:
        assert caplog.messages[-1] == f"data set  {path}: its cells are separated by {name}"


def test_a_header_without_any_separator_is_one_column(tmp_path):
    assert values(write(tmp_path / "rows.csv", "prompt\na fox; at dusk\n")) == [{"prompt": "a fox; at dusk"}]
    assert values(write(tmp_path / "rows.csv", "prompt; style\na fox\na cat\n")) == [
        {"prompt; style": "a fox"},
        {"prompt; style": "a cat"},
    ]
    assert values(write(tmp_path / "rows.csv", "prompt,n;m\na;b,1\n")) == [{"prompt": "a;b", "n;m": "1"}]


@pytest.mark.parametrize("declaration", ["sep=;", '"sep=;"', "SEP=;"])
def test_the_line_in_which_excel_declares_the_separator_is_no_header(tmp_path, declaration, caplog):
    path = write(tmp_path / "rows.csv", f"\ufeff{declaration}\r\nprompt;n\r\na, b;1\r\nbad\r\n")
    assert read(path)[0].value == {"prompt": "a, b", "n": "1"}
    assert reasons(path)[1][0] == 4
    assert f"{path}: its cells are separated by semicolons" in caplog.text


def test_tsv_as_iana_defines_it_has_no_quoting(tmp_path, caplog):
    path = write(tmp_path / "rows.tsv", 'Prompt\tNote\n"Brain" by "night\tx\n\'a\' "b""\t"\nonly\n')
    assert [r.value for r in read(path)][:2] == [
        {"Prompt": '"Brain" by "night', "Note": "x"},
        {"Prompt": '\'a\' "b""', "Note": '"'},
    ]
    assert reasons(path)[2][0] == 4
    kept = "cells begin with a quotation mark, which is kept as part of the text (lines: 2)"
    assert f"data set  {path}, line 2: {kept}" in caplog.messages


def test_tsv_as_pandas_writes_it_is_read_back(tmp_path, caplog):
    frame = pd.DataFrame({"prompt": [*PROMPTS, "two\nlines", "a\ttab"], "n": [str(n) for n in range(len(PROMPTS) + 2)]})
    frame.to_csv(tmp_path / "rows.tsv", sep="\t", index=False)
    assert values(tmp_path / "rows.tsv") == frame.to_dict("records")
    assert caplog.messages[-1].endswith(
        "rows.tsv: its cells are quoted as in CSV: the quotation marks around them are no part of a prompt"
    )


@pytest.mark.parametrize("suffix", ["csv", "tsv"])
@pytest.mark.parametrize(("header", "message"), [(b"a,a", "twice"), (b"a\xff,b", "UTF-8"), (b"a\0,b", "NUL")])
def test_a_header_that_cannot_be_used_is_an_error(tmp_path, suffix, header, message):
    header = header.replace(b",", b"\t") if suffix == "tsv" else header
    with pytest.raises(DatasetError, match=message):
        read(write(tmp_path / f"rows.{suffix}", header + b"\n1,2\n"))


def test_a_quotation_mark_astray_in_the_header_is_an_error_that_names_its_line(tmp_path):
    with pytest.raises(DatasetError, match=r"rows\.csv, line 1: the header is not CSV: a quotation mark in this line"):
        read(write(tmp_path / "rows.csv", '"prompt,n\na,1\n'))


@pytest.mark.parametrize("content", ["prompt,n\n", "prompt\tn", "sep=;\nprompt;n\n", "\n"])
@pytest.mark.parametrize("suffix", ["csv", "tsv"])
def test_a_table_without_rows_is_empty(tmp_path, content, suffix):
    with pytest.raises(DatasetError, match="is empty"):
        read(write(tmp_path / f"rows.{suffix}", content))
