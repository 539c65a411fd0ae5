"""The data set as a stream of raw rows, counted over all its files.

Rows are counted from 0 over non-blank lines. A row that cannot be read keeps its number and has a rejection. Everything
streams except `.json`, which is parsed as a whole.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from t2i_core.dataset.arrow_reader import read_arrow, read_parquet
from t2i_core.dataset.csv_reader import read_table
from t2i_core.dataset.data_file import DataFile
from t2i_core.dataset.encodings import other_encoding
from t2i_core.dataset.hub import HubSplit, check_datasets_package, read_hub
from t2i_core.dataset.json_reader import read_json, read_jsonl
from t2i_core.dataset.reading import NOT_UTF8, Notes, Readings
from t2i_core.dataset.rows import Rejection
from t2i_core.dataset.sources import Part, Parts, find_parts
from t2i_core.dataset.text import text_lines
from t2i_core.errors import DatasetError, shorten

log = logging.getLogger(__name__)

TEXT_COLUMN = "prompt"  # the one column of a .txt file

_RETURN_KEPT = "lines hold a carriage return, which is kept as part of the prompt (lines: {count})"


@dataclass(slots=True)  # not frozen: one is made for every row, and would cost twice as much
class RawRow:
    """One row as it was read: its `value` in plain Python types, or the `rejection` that says why there is none.

    `line` is where the row starts in a text file, counted from 1; None where the format has no lines. `file` is None
    where the data set is one file, and named so.
    """

    index: int
    line: int | None
    value: object = None
    rejection: Rejection | None = None
    file: str | None = None


@dataclass(frozen=True, slots=True)
class Source:
    """An opened data set: its name for messages, its format ("jsonl", ..., "hub"), its rows, and its parts."""

    name: str
    format: str
    rows: Iterator[RawRow]
    parts: Sequence[Part] = ()

    def refuse_changed(self) -> None:
        """Refuse rows of a file that was hashed and holds something else by now.

        Raises:
            DatasetError: naming the file.
        """
        for part in self.parts:
            part.refuse_changed()

    @property
    def is_table(self) -> bool:
        """Whether every row of a file has the same columns, and a cell may hold JSON as text."""
        return self.format not in ("jsonl", "json")


def open_source(dataset: str | Sequence[str], found: Parts | None = None) -> Source:
    """Open the data set with this name, or these names: see `find_parts`. `found`: what that returned, if it was asked.

    Raises:
        DatasetError: at once for a data set that cannot be used; while its rows are read if it is damaged or empty.
    """
    found = found or find_parts(dataset)
    parts = found.parts
    if len(parts) > 1:
        log.info("data set  %d files, from %s to %s", len(parts), parts[0].name, parts[-1].name)
    if found.unread:
        log.warning("data set  not read, for their format is not known: %s", ", ".join(found.unread[:10]))
    for part in parts:
        if isinstance(part, HubSplit):
            check_datasets_package(part)
    name = dataset if isinstance(dataset, str) else parts[0].name
    return Source(name, parts[0].format, _rows(name, found), parts)


def _rows(name: str, found: Parts) -> Iterator[RawRow]:
    """Yield the rows of all parts, and say the notes at their end."""
    index, notes = 0, Notes()
    try:
        for part, file in zip(found.parts, found.row_files, strict=True):
            first = index
            not_utf8: list[bytes] = []
            for line, value, problem, shown in READERS[part.format](part, notes):
                if problem is None:
                    yield RawRow(index, line, value, None, file)
                else:
                    cut = shorten(shown[:200]) if shown else ""
                    rejection = Rejection(row=index, line=line, field="row", value=cut, reason=problem)
                    yield RawRow(index, line, None, rejection, file)
                    if problem == NOT_UTF8:
                        not_utf8.append(shown.encode(errors="surrogateescape"))
                index += 1
            if len(not_utf8) > max(1, (index - first) / 2) and isinstance(part, DataFile):
                raise other_encoding(part, not_utf8)
    finally:
        notes.say()
    if not index:
        raise DatasetError(f"{name}: is empty; give a data set with at least one row")


def _read_txt(file: DataFile, notes: Notes) -> Readings:
    """Yield a row for each line that is not blank."""
    for line, text, problem in text_lines(file, notes):
        if "\r" in text:
            notes.take(_RETURN_KEPT, file.name, line)
        yield line, {TEXT_COLUMN: text}, problem, text


READERS: dict[str, Callable[[Any, Notes], Readings]] = {
    "jsonl": read_jsonl,
    "json": read_json,
    "csv": read_table,
    "tsv": read_table,
    "parquet": read_parquet,
    "arrow": read_arrow,
    "txt": _read_txt,
    "hub": read_hub,
}
