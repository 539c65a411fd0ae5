"""Readers of data set files and hub data sets: each yields the rows of one format as a stream.

Rows are counted from 0 over non-blank lines. A row that cannot be read keeps its number and has a rejection. Everything
streams except `.json`, an array that is parsed as a whole. Text is UTF-8, with or without BOM; a line that is not UTF-8
is rejected alone.
"""

import csv
import gzip
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from t2i_core.bundled import EXAMPLE_FILE
from t2i_core.config import EXAMPLE
from t2i_core.dataset.rows import Rejection
from t2i_core.dataset.sources import cannot_be_read, check_file, format_suffix, parse_hub_name
from t2i_core.errors import DatasetError, shorten
from t2i_core.json_values import encodable, parse_json, plain

TEXT_COLUMN = "prompt"  # the one column of a .txt file
CHUNK_ROWS = 256  # of a Parquet file, converted at once

NOT_UTF8 = "is not UTF-8; save the data set as UTF-8"
HAS_NUL = "holds a NUL byte, so the file is damaged or not text; write the line again"


@dataclass(frozen=True, slots=True)
class RawRow:
    """One row as it was read: its `value` in plain Python types, or the `rejection` that says why there is none.

    `line` is where the row starts in a text file, counted from 1; None where the format has no lines.
    """

    index: int
    line: int | None
    value: object = None
    rejection: Rejection | None = None
    file: str | None = None  # the file that holds it, where the data set has several


@dataclass(frozen=True, slots=True)
class Source:
    """An opened data set: its name for messages, its format ("jsonl", ..., "hub"), and its rows."""

    name: str
    format: str
    rows: Iterator[RawRow]

    @property
    def is_table(self) -> bool:
        """Whether every row has the same columns, and a cell may hold JSON as text."""
        return self.format not in ("jsonl", "json")


def open_source(dataset: str) -> Source:
    """Open the data set with this name: a file, or `hf:name[:config]:split`.

    Raises:
        DatasetError: at once for a data set that cannot be used; while its rows are read if it is damaged or empty.
    """
    if dataset.startswith("hf:"):
        return Source(dataset, "hub", _not_empty(dataset, _hub(dataset)))
    path = EXAMPLE_FILE if dataset == EXAMPLE else check_file(dataset)
    suffix = format_suffix(path)
    return Source(str(path), suffix.removeprefix("."), _not_empty(str(path), READERS[suffix](path)))


def _jsonl(path: Path) -> Iterator[RawRow]:
    for index, (line, text, problem) in enumerate(_text_lines(path)):
        try:
            value, not_json = None if problem else parse_json(text), None
        except ValueError as error:
            value, not_json = None, f"is not JSON: {_short(error)}; write one JSON object a line"
        yield _raw_row(index, line, value, problem or not_json, text)


def _json(path: Path) -> Iterator[RawRow]:
    content = b"".join(raw for _, raw in _lines(path))
    if not content.strip():
        return
    try:
        array = parse_json(content.decode())
    except UnicodeDecodeError:
        raise DatasetError(f"{path}: {NOT_UTF8}") from None
    except ValueError as error:
        fix = "correct it, or rename the file to .jsonl if it has one object a line"
        raise DatasetError(f"{path}: is not JSON: {_short(error)}; {fix}") from None
    if not isinstance(array, list):
        raise DatasetError(f"{path}: holds {shorten(array)}; a .json data set is one array of objects")
    for index, value in enumerate(array):
        yield RawRow(index, None, value)


def _txt(path: Path) -> Iterator[RawRow]:
    for index, (line, text, problem) in enumerate(_text_lines(path)):
        yield _raw_row(index, line, {TEXT_COLUMN: text}, problem, text)


def _tsv(path: Path) -> Iterator[RawRow]:
    """Yield the rows of tab-separated values as IANA defines them: without quoting, so a quotation mark is text."""
    return _table(path, ((line, text.split("\t"), problem) for line, text, problem in _text_lines(path)))


def _csv(path: Path) -> Iterator[RawRow]:
    return _table(path, _csv_cells(path))


def _csv_cells(path: Path) -> Iterator[tuple[int, list[str], str | None]]:
    """Yield (line, cells, what is wrong), strictly by RFC 4180.

    A row that breaks the rules is rejected up to the line where the reader notices, and no further.
    """
    last = ""

    def lines() -> Iterator[str]:
        nonlocal last
        for _, raw in _lines(path):
            last = raw.decode(errors="surrogateescape")
            yield last

    reader = csv.reader(lines(), strict=True)
    while True:
        start = reader.line_num + 1
        try:
            cells, problem = next(reader), None
        except StopIteration:
            return
        except csv.Error as error:
            cells, problem = [last], f"is not CSV: {error}, seen at line {reader.line_num}; quote the field, and double"
            problem += " the quotation marks in it"
        if problem or reader.line_num > start or last.strip():
            yield start, cells, problem or _bad_text("\n".join(cells))


def _table(path: Path, rows: Iterable[tuple[int, list[str], str | None]]) -> Iterator[RawRow]:
    """Yield the rows of a table as objects; the first row of cells is the header."""
    header: list[str] | None = None
    for index, (line, cells, problem) in enumerate(rows, -1):
        if header is None:
            if problem:
                raise DatasetError(f"{path}, line {line}: the header {problem}")
            header = _columns(path, cells)
            continue
        reason = problem
        if reason is None and len(cells) != len(header):
            reason = f"has {len(cells)} fields where the header has {len(header)}; give each column one field"
        yield _raw_row(index, line, dict(zip(header, cells, strict=False)), reason, "\t".join(cells))


def _parquet(path: Path) -> Iterator[RawRow]:
    import pyarrow as pa
    from pyarrow import parquet

    index = 0
    try:
        # Opened here, for pyarrow takes a name such as run-10:00.parquet for a URL.
        with path.open("rb") as opened, parquet.ParquetFile(opened) as file:
            _columns(path, file.schema_arrow.names)
            for chunk in file.iter_batches(batch_size=CHUNK_ROWS):
                for value, problem in _chunk_values(chunk):
                    yield _raw_row(index, None, value, problem, "")
                    index += 1
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise cannot_be_read(path, error) from None
        raise DatasetError(f"{path}: cannot be read as Parquet: {_short(error)}; write or download it again") from None


def _chunk_values(chunk: Any) -> Iterator[tuple[object, str | None]]:
    """Yield (value, what is wrong) for the rows of an Arrow chunk.

    A value that Python cannot have (bad UTF-8, a far date) makes the conversion of the whole chunk fail; then the rows
    are converted one by one, so that only its own row is rejected.
    """
    try:
        yield from [(plain(value), None) for value in chunk.to_pylist()]
        return
    except (ValueError, OverflowError):
        pass
    for position in range(chunk.num_rows):
        try:
            result: tuple[object, str | None] = plain(chunk.slice(position, 1).to_pylist()[0]), None
        except (ValueError, OverflowError) as error:
            result = None, f"cannot be read: {_short(error)}; correct the value"
        yield result


def _hub(dataset: str) -> Iterator[RawRow]:
    name, config, split = parse_hub_name(dataset)
    try:
        import datasets
    except ImportError:
        raise DatasetError(f"{dataset}: needs the datasets package; pip install 'text2image[hf]'") from None
    datasets.disable_progress_bars()

    def rows() -> Iterator[RawRow]:
        try:
            stream = datasets.load_dataset(name, config, split=split, streaming=True)
            for index, value in enumerate(stream.decode(False)):  # pictures stay undecoded
                yield RawRow(index, None, plain(value))
        except Exception as error:  # the library retries by itself and raises what its many back ends raise
            fix = "check name, config, split and network"
            raise DatasetError(f"{dataset}: {type(error).__name__}: {_short(error)}; {fix}") from error

    return rows()


READERS = {".jsonl": _jsonl, ".json": _json, ".csv": _csv, ".tsv": _tsv, ".parquet": _parquet, ".txt": _txt}


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield (line number from 1, line with its end), without BOM. Only a line feed ends a line: U+2028 is text."""
    compressed = path.suffix.lower() == ".gz"
    try:
        with cast(BinaryIO, gzip.open(path)) if compressed else path.open("rb") as file:
            for number, raw in enumerate(file, 1):
                yield number, raw.removeprefix(b"\xef\xbb\xbf") if number == 1 else raw
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DatasetError(f"{path}: is no whole gzip file: {_short(error)}; compress or download it again") from None
    except OSError as error:
        raise cannot_be_read(path, error) from None


def _text_lines(path: Path) -> Iterator[tuple[int, str, str | None]]:
    """Yield (line number, text without its end, what is wrong with it) for the lines that are not blank."""
    for number, raw in _lines(path):
        text = raw.decode(errors="surrogateescape")
        problem = _bad_text(text)
        if problem or text.strip():
            yield number, text.rstrip("\r\n"), problem


def _bad_text(text: str) -> str | None:
    """Return what is wrong with a text, or None; bytes that are not UTF-8 were decoded with `surrogateescape`."""
    if not encodable(text):
        return NOT_UTF8
    return HAS_NUL if "\0" in text else None


def _raw_row(index: int, line: int | None, value: object, problem: str | None, shown: str) -> RawRow:
    if problem is None:
        return RawRow(index, line, value)
    cut = shorten(shown[:200]) if shown else ""
    return RawRow(index, line, None, Rejection(row=index, line=line, field="row", value=cut, reason=problem))


def _columns(path: Path, names: list[str]) -> list[str]:
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise DatasetError(f"{path}: column {twice[0]!r} appears twice; give each column its own name")
    return names


def _not_empty(name: str, rows: Iterator[RawRow]) -> Iterator[RawRow]:
    """Yield the rows; raise DatasetError if there is none."""
    empty = True
    for row in rows:
        empty = False
        yield row
    if empty:
        raise DatasetError(f"{name}: is empty; give a data set with at least one row")


def _short(error: Exception) -> str:
    """Return the first line of a library's message, cut to 200 characters."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
