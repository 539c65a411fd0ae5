"""Records of CSV: what the rules say, and that a stray quotation mark costs its own line and no other."""

import csv
import io
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from t2i_core.dataset import csv_records as module
from t2i_core.dataset.csv_records import CsvRecords, holds_rows


class Record(NamedTuple):
    first: int
    last: int
    cells: list[str]
    problem: str | None = None
    shown: str = ""


def records_of(text, separator=","):
    lines = ((number, line, None) for number, line in enumerate(io.StringIO(text, newline="\n"), 1))
    return [Record(*record) for record in CsvRecords(lines, separator)]


def cells_of(text, separator=","):
    return [record.cells for record in records_of(text, separator) if not record.problem]


def broken(text):
    """{first line: (last line, what is wrong, the line shown)} of the records that break the rules."""
    return {r.first: (r.last, r.problem, r.shown) for r in records_of(text) if r.problem}


def test_records_are_those_of_rfc_4180():
    text = 'a,b\r\n"one\r\ntwo\r\n\r\nthree",1\r\n\r\nplain,2\r\n"say ""hi""",3\r\n  \r\n""\n'
    assert records_of(text) == [
        Record(1, 1, ["a", "b"]),
        Record(2, 5, ["one\r\ntwo\r\n\r\nthree", "1"]),
        Record(7, 7, ["plain", "2"]),
        Record(8, 8, ['say "hi"', "3"]),
        Record(10, 10, [""]),
    ]
    assert cells_of('a;b\n"x;""y""";z, w\n', ";") == [["a", "b"], ['x;"y"', "z, w"]]


def table(count, **lines):
    """A table of `count` rows, some of which are written otherwise: `table(3, l2='"a fox,2')`."""
    rows = [lines.get(f"l{n}", f"a fox {n},{n}") for n in range(1, count + 1)]
    return "\n".join(["prompt,n", *rows]) + "\n"


def test_a_quotation_mark_that_is_never_closed_costs_its_line():
    text = table(500, l100='"a fox 100,100')
    assert len(cells_of(text)) == 500
    never = "is not CSV: a quotation mark in this line opens a cell that is never closed; quote the cell, and double "
    assert broken(text) == {101: (101, never + "the quotation marks in it", '"a fox 100,100\n')}


def test_a_quotation_mark_that_is_noticed_later_costs_its_line():
    text = table(50, l10='"a fox 10,10', l30='"a fox, at dusk",30', l40='"a fox 40,40')
    found = broken(text)
    assert list(found) == [11, 41]
    assert found[11][0] == 11
    assert "opens a cell that ends amid line 31; quote the cell" in found[11][1]
    assert found[11][2] == '"a fox 10,10\n'
    assert ["a fox, at dusk", "30"] in cells_of(text)
    assert len(cells_of(text)) == 49


def test_the_fault_is_that_of_the_cell_not_of_the_record():
    text = 'a,b\n"two\nlines","stray\nc,d\ne,f\n'
    assert broken(text)[2][0] == 3
    assert broken(text)[2][2] == 'lines","stray\n'
    assert cells_of(text) == [["a", "b"], ["c", "d"], ["e", "f"]]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('"a"b,5', "text follows the closing quotation mark of a cell"),
        ('5,"a"b', "text follows the closing quotation mark of a cell"),
        ("a\rb,6", "new-line character"),
        ('"say \\"hi\\"",7', "text follows the closing quotation mark of a cell"),
    ],
)
def test_what_is_wrong_in_one_line_costs_that_line(line, reason):
    text = table(3, l2=line)
    assert list(broken(text)) == [3]
    assert reason in broken(text)[3][1]
    assert cells_of(text) == [["prompt", "n"], ["a fox 1", "1"], ["a fox 3", "3"]]


def test_the_end_of_a_broken_cell_is_no_row():
    text = 'a,b\n"She said\n"hello" to me\nbye",3\nc,4\n'
    assert cells_of(text) == [["a", "b"], ["c", "4"]]
    found = broken(text)
    assert list(found) == [2, 3, 4]
    assert found[4][1].startswith(
        "is not CSV: a cell holds a quotation mark, below a stray one in line 3; quote the cell"
    )
    # Elsewhere a mark within a cell is text, as it is in most programs: before, and once the cell must have ended.
    text = 'a,b\n6" pipe,1\n"stray,2\nfox,3\n"x, y",4\n6" pipe,5\n'
    assert [cells[1] for cells in cells_of(text)] == ["b", "1", "3", "4", "5"]


def test_rows_that_a_pair_of_marks_would_merge_into_one_of_another_width_are_rows():
    text = table(9, l2='"a fox 2,2', l5='a fox 5",5,x')
    found = broken(text)
    assert list(found) == [3, 6]
    assert found[3][1].startswith("has 3 fields up to line 6 where the header has 2; a quotation mark in this line")
    assert len(cells_of(text)) == 8


def test_a_long_cell_is_read_and_one_without_end_is_a_stray_mark(monkeypatch):
    assert cells_of('a\n"' + "x" * 500_000 + '"\n')[1] == ["x" * 500_000]
    monkeypatch.setattr(module, "MAX_CELL", 1000)
    monkeypatch.setattr(csv, "field_size_limit", lambda *_, limit=csv.field_size_limit: limit(1000))
    try:
        text = table(500, l3='"a fox 3,3')
        assert list(broken(text)) == [4]
        assert len(cells_of(text)) == 500
    finally:
        monkeypatch.undo()
        csv.field_size_limit(module.MAX_CELL)


def test_what_is_wrong_with_a_line_is_wrong_with_its_record():
    lines = [(1, "a,b\n", None), (2, '"x\n', None), (3, 'y",1\n', "is bad"), (4, "c,2\n", "is bad"), (5, "d,3\n", None)]
    assert [(first, last, problem) for first, last, _, problem, _ in CsvRecords(iter(lines), ",")] == [
        (1, 1, None),
        (2, 3, "is bad"),
        (4, 4, "is bad"),
        (5, 5, None),
    ]


def test_a_cell_that_spans_lines_and_has_a_rows_separators_may_be_rows():
    assert holds_rows(["a,1\nb,2\nc", "3"], 2, ",")
    assert not holds_rows(["a\nb", "3"], 2, ",")
    assert not holds_rows(["a,1", "3"], 2, ",")
    assert not holds_rows(["a\nb"], 1, ",")


tokens = st.sampled_from(
    ['"', '""', '"a', 'b"', ",", "\n", "\r\n", "\r", " ", "fox", 'say "hi"', '"x, y"', "a,b", "\n\n"]
)


@given(st.lists(tokens, max_size=40), st.sampled_from([",", ";"]))
@settings(max_examples=500, deadline=None)
def test_every_line_that_is_not_blank_is_part_of_exactly_one_record(pieces, separator):
    text = "a,b\n" + "".join(pieces)
    lines = list(io.StringIO(text, newline="\n"))
    records = records_of(text, separator)
    taken = [number for record in records for number in range(record.first, record.last + 1)]
    assert taken == sorted(set(taken))
    assert {number for number, line in enumerate(lines, 1) if line.strip()} <= set(taken)
    for record in records:
        if not record.problem:
            # A record that is used is what a reader of its lines alone makes of it.
            own = lines[record.first - 1 : record.last]
            assert list(csv.reader(own, delimiter=separator, strict=True)) == [record.cells]


cells = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12)


@given(st.lists(st.tuples(cells, cells), min_size=1, max_size=8))
@settings(max_examples=100, deadline=None)
def test_what_is_written_by_the_rules_is_read_back(rows):
    def quoted(cell):
        return '"' + cell.replace('"', '""') + '"'

    text = "a,b\r\n" + "".join(f"{quoted(a)},{quoted(b)}\r\n" for a, b in rows)
    assert cells_of(text) == [["a", "b"], *map(list, rows)]


@given(st.lists(st.integers(0, 1), min_size=1, max_size=60), st.data())
@settings(max_examples=100, deadline=None)
def test_rows_of_one_line_add_up_whatever_marks_are_astray(strays, data):
    """Each row is a record of its own, unless a pair of marks closes a cell as the rules say."""
    lines = [
        f"{data.draw(st.sampled_from(['', chr(34)])) if stray else ''}fox {n},{n}" for n, stray in enumerate(strays)
    ]
    text = "prompt,n\n" + "".join(line + "\n" for line in lines)
    records = records_of(text)
    assert len(records) == 1 + len(lines)
    assert {r.first - 2 for r in records if r.problem} == {n for n, line in enumerate(lines) if line.startswith('"')}
