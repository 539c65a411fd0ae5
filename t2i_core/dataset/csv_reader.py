"""Readers of tables as text: CSV and TSV, with the separator and the quoting that the file itself shows."""

import re
from collections.abc import Iterable, Iterator
from itertools import chain, islice

from t2i_core.dataset.csv_records import CsvRecords, Line, Record, holds_rows
from t2i_core.dataset.data_file import DataFile
from t2i_core.dataset.quoted_tsv import is_quoted
from t2i_core.dataset.reading import Notes, Readings, unique_columns
from t2i_core.dataset.text import whole_lines
from t2i_core.errors import DatasetError

SAMPLE_LINES = 10_000  # by which separator and quoting are known
SEPARATORS = {";": "semicolons", "\t": "tabs", ",": "commas", "|": "bars"}
_SEPARATOR_LINE = re.compile(r'"?sep=(?P<separator>[^"\r\n])"?[\r\n]*', re.IGNORECASE)

_MERGED = (
    "cells span lines and hold as many separators as a row (cells: {count}); where a quotation mark is missing or one "
    "too many, rows were merged into one prompt"
)
_MARKS_KEPT = "cells begin with a quotation mark, which is kept as part of the text (lines: {count})"
_HEADER_AGAIN = "is the header once more, as in files that were joined; delete the line"


def read_table(file: DataFile, notes: Notes) -> Readings:
    """Yield the rows of comma- or tab-separated values, or of values with another separator that the file shows.

    IANA defines tab-separated values without quoting, so that a quotation mark is text; pandas and Excel quote cells
    as in CSV. The file itself shows which it is.
    """
    usual = "\t" if file.format == "tsv" else ","
    lines = whole_lines(file, notes)
    sample = list(islice(lines, SAMPLE_LINES))
    declared = _SEPARATOR_LINE.fullmatch(sample[0][1]) if sample else None
    if declared:
        del sample[0]
    separator = declared["separator"] if declared else _separator(sample, usual)
    all_lines = chain(sample, lines)
    if separator != usual:
        notes.take(f"its cells are separated by {SEPARATORS.get(separator, separator)}", file.name)
    elif separator == "\t":
        if not is_quoted([line[1] for line in sample]):
            return _rows(file, notes, _unquoted(file, notes, all_lines), separator)
        notes.take("its cells are quoted as in CSV: the quotation marks around them are no part of a prompt", file.name)
    return _rows(file, notes, CsvRecords(all_lines, separator), separator)


def _rows(file: DataFile, notes: Notes, records: Iterable[Record], separator: str) -> Readings:
    """Yield the rows of a table as objects; the first record is the header."""
    records = iter(records)
    first = next(records, None)
    if first is None:
        return
    line, _, cells, problem, _ = first
    if problem:
        raise DatasetError(f"{file.name}, line {line}: the header {problem}")
    header = unique_columns(file.name, cells)
    for line, last, cells, problem, shown in records:
        if problem is None:
            if len(cells) != len(header):
                problem = f"has {len(cells)} fields where the header has {len(header)}; give each column one field"
            elif cells == header:
                problem = _HEADER_AGAIN
            elif last > line and holds_rows(cells, len(header), separator):
                notes.take(_MERGED, file.name, line)
        if problem is None:
            yield line, dict(zip(header, cells, strict=True)), None, ""
        else:
            yield line, None, problem, shown or "\t".join(cells)


def _unquoted(file: DataFile, notes: Notes, lines: Iterator[Line]) -> Iterator[Record]:
    for number, text, problem in lines:
        if problem or text.strip():
            if text.startswith('"') or '\t"' in text:
                notes.take(_MARKS_KEPT, file.name, number)
            yield number, number, text.rstrip("\r\n").split("\t"), problem, ""


def _separator(sample: list[Line], usual: str) -> str:
    """Return the separator of a table: another than the usual one where the header has that alone, and rows agree."""
    header = next((text for _, text, _ in sample if text.strip()), "")
    for other in SEPARATORS:
        if usual not in header and other in header:
            columns, *rows = (len(cells) for _, _, cells, _, _ in CsvRecords(iter(sample), other))
            if columns > 1 and rows.count(columns) > len(rows) / 2:
                return other
    return usual
