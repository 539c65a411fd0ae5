"""Parquet files as streams: a chunk of a few thousand rows in memory at a time.

Files are opened here and handed to Arrow as file objects: in a path, Arrow takes `word:` for a URL.
"""

import ctypes
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from t2i_core.storage.files import atomic_write

CHUNK_ROWS = 4096


def use_system_allocator() -> None:
    """Make Arrow give memory back to the system.

    Its own allocator keeps what it freed: an unchanged run over 10,000 rows peaked 40 MB higher with it.
    """
    pa.set_memory_pool(pa.system_memory_pool())


def give_memory_back() -> None:
    """Give memory that was freed back to the system: the C library of Linux keeps some for each thread that ran.

    After a look at a million files those are 65 MB, and it takes some milliseconds.
    """
    with suppress(OSError, AttributeError, TypeError):  # other systems have no such function
        ctypes.CDLL(None).malloc_trim(0)


@contextmanager
def open_table(path: Path) -> Iterator[pq.ParquetFile]:
    """Open a Parquet file for the block."""
    with pa.OSFile(str(path)) as file, parquet_reader(file) as table:
        yield table


def parquet_reader(file: pa.NativeFile, repeated: Sequence[str] = ()) -> pq.ParquetFile:
    """Return the reader of a Parquet file that is read a part at a time.

    Arrow would read the columns that are asked for ahead, of the whole file, and keep them: of a million records 35 MB
    for a column of keys. `repeated`: columns whose values are held once each.
    """
    return pq.ParquetFile(file, read_dictionary=list(repeated), pre_buffer=False)


def read_table(path: Path) -> pa.Table:
    """Return a whole Parquet file, the metadata of its schema included."""
    with pa.OSFile(str(path)) as file:
        return pq.read_table(file)


def read_chunks(path: Path, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
    """Yield a Parquet file in chunks of `CHUNK_ROWS`, with its columns in the order asked for."""
    with open_table(path) as table:
        for chunk in table.iter_batches(CHUNK_ROWS, columns=columns):
            yield chunk.select(columns) if columns else chunk


def read_rows(path: Path, columns: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
    """Yield the rows of a Parquet file as dicts."""
    for chunk in read_chunks(path, columns):
        yield from chunk.to_pylist()


def read_rows_at(
    paths: Iterable[Path], places: npt.NDArray[np.int64], columns: Sequence[str]
) -> Iterator[dict[str, Any]]:
    """Yield some rows of Parquet files as dicts, given by their places in all of them, which rise.

    No other row group is read than those that hold such rows.
    """
    begin = 0
    for path in paths:
        with open_table(path) as table:
            for number in range(table.num_row_groups):
                end = begin + table.metadata.row_group(number).num_rows
                here = places[np.searchsorted(places, begin) : np.searchsorted(places, end)] - begin
                if len(here):
                    yield from table.read_row_group(number, columns=list(columns)).take(pa.array(here)).to_pylist()
                begin = end


class Rows:
    """A stream of tables whose rows are taken so many at a time, however many each table has."""

    def __init__(self, tables: Iterable[pa.Table | pa.RecordBatch]) -> None:
        """`tables`: at least one."""
        self._tables = iter(tables)
        self._rest = next(self._tables)

    def take(self, count: int) -> pa.RecordBatch:
        """Return the next rows."""
        parts: list[pa.Table | pa.RecordBatch] = []
        while True:
            part = self._rest.slice(0, count)
            self._rest = self._rest.slice(len(part))
            count -= len(part)
            if len(part) or not (count or parts):  # an empty one may have other columns
                parts.append(part)
            if not count:
                return _one_batch(parts)
            self._rest = next(self._tables)


def _one_batch(parts: Sequence[pa.Table | pa.RecordBatch]) -> pa.RecordBatch:
    if len(parts) == 1 and isinstance(parts[0], pa.RecordBatch):
        return parts[0]
    tables = [part if isinstance(part, pa.Table) else pa.Table.from_batches([part]) for part in parts]
    table = pa.concat_tables(tables).unify_dictionaries().combine_chunks()
    arrays = [column.chunk(0) if column.num_chunks else pa.array([], column.type) for column in table.columns]
    return pa.RecordBatch.from_arrays(arrays, schema=table.schema)


@contextmanager
def table_writer(path: Path, schema: pa.Schema, *, keep_equal: bool = False) -> Iterator[pq.ParquetWriter]:
    """Open a Parquet file for the block, to be written in chunks; it appears at the end, whole or not at all.

    `keep_equal`: as of `atomic_write`.
    """
    with atomic_write(path, keep_equal=keep_equal) as file, parquet_writer(file, schema) as writer:
        yield writer


def parquet_writer(file: BinaryIO, schema: pa.Schema) -> pq.ParquetWriter:
    """Return a context manager for its block: the writer of a Parquet file, in chunks."""
    return pq.ParquetWriter(file, schema, compression="zstd")


def write_rows(file: BinaryIO, schema: pa.Schema, rows: Iterable[Mapping[str, Any]]) -> int:
    """Write dicts to a Parquet file as they come; return how many."""
    return write_chunks(file, schema, chunks_of(rows, schema))


def write_chunks(file: BinaryIO, schema: pa.Schema, chunks: Iterable[pa.RecordBatch]) -> int:
    """Write chunks to a Parquet file as they come; return how many rows."""
    count = 0
    with parquet_writer(file, schema) as writer:
        for chunk in chunks:
            writer.write_batch(chunk)
            count += len(chunk)
    return count


def write_table(file: BinaryIO, table: pa.Table) -> None:
    """Write a whole table to a Parquet file."""
    pq.write_table(table, file, compression="zstd")


def chunks_of(rows: Iterable[Mapping[str, Any]], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """Yield dicts as chunks of `CHUNK_ROWS`: as Python objects, a million rows would take gigabytes."""
    chunk: list[Mapping[str, Any]] = []
    for row in rows:
        chunk.append(row)
        if len(chunk) == CHUNK_ROWS:
            yield pa.RecordBatch.from_pylist(chunk, schema)
            chunk.clear()
    if chunk:
        yield pa.RecordBatch.from_pylist(chunk, schema)
