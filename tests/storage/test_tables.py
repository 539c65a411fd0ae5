"""Parquet files are written and read a chunk at a time, whatever their path is."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from t2i_core.storage import tables
from t2i_core.storage.tables import (
    Rows,
    chunks_of,
    give_memory_back,
    open_table,
    read_chunks,
    read_rows,
    read_rows_at,
    read_table,
    use_system_allocator,
    write_rows,
    write_table,
)
from tests.builders import spoil_column

SCHEMA = pa.schema([("number", pa.int32()), ("text", pa.string()), ("flag", pa.bool_())])


def rows(count):
    return [{"number": n, "text": f"t{n}", "flag": n % 2 == 0} for n in range(count)]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder that Arrow, by name, would take for a URL."""
    monkeypatch.chdir(tmp_path)
    Path("run-10:00").mkdir()
    return Path("run-10:00")


@pytest.fixture
def write(folder):
    """Rows -> the file they are written to."""

    def write(values):
        path = folder / "table.parquet"
        with path.open("wb") as file:
            assert write_rows(file, SCHEMA, values) == len(values)
        return path

    return write


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr(tables, "CHUNK_ROWS", 3)


@pytest.mark.parametrize("count", [0, 1, 3, 7, 9])
def test_rows_come_back_as_they_were_whatever_their_number(write, small_chunks, count):
    path = write(rows(count))
    assert list(read_rows(path)) == rows(count)
    assert read_table(path).to_pylist() == rows(count)
    assert read_table(path).schema == SCHEMA


def test_chunks_have_their_size_and_only_the_last_is_smaller(write, small_chunks):
    assert [len(chunk) for chunk in read_chunks(write(rows(7)))] == [3, 3, 1]
    assert [len(chunk) for chunk in chunks_of(rows(7), SCHEMA)] == [3, 3, 1]
    assert [len(chunk) for chunk in chunks_of(rows(6), SCHEMA)] == [3, 3]
    assert list(chunks_of([], SCHEMA)) == []


def test_rows_are_taken_as_they_come(small_chunks):
    """A million rows are never in memory at once."""
    taken = []

    def source():
        for row in rows(7):
            taken.append(row["number"])
            yield row

    chunks = chunks_of(source(), SCHEMA)
    assert taken == []
    next(chunks)
    assert taken == [0, 1, 2]


def test_columns_come_in_the_order_asked_for(write):
    path = write(rows(2))
    (chunk,) = read_chunks(path, ["text", "number"])
    assert chunk.schema.names == ["text", "number"]
    assert list(read_rows(path, ["flag"])) == [{"flag": True}, {"flag": False}]
    (everything,) = read_chunks(path)
    assert everything.schema.names == SCHEMA.names


def test_a_column_that_a_row_lacks_is_null(write):
    assert list(read_rows(write([{"number": 1}]))) == [{"number": 1, "text": None, "flag": None}]


def test_a_full_chunk_has_the_types_of_its_schema(small_chunks):
    """Not those of the values that happen to be in it."""
    assert [chunk.schema for chunk in chunks_of([{"number": 1}] * 4, SCHEMA)] == [SCHEMA, SCHEMA]


def test_the_metadata_of_a_table_is_kept(folder):
    path = folder / "table.parquet"
    table = pa.Table.from_pylist(rows(2), SCHEMA).replace_schema_metadata({"absorbed": "a\nb"})
    with path.open("wb") as file:
        write_table(file, table)
    assert read_table(path).schema.metadata == {b"absorbed": b"a\nb"}
    with open_table(path) as file:
        assert file.metadata.num_rows == 2


def test_a_file_is_closed_after_its_block(write):
    path = write(rows(2))
    with open_table(path) as table:
        pass
    with pytest.raises(ValueError, match="closed"):
        table.read()


def test_tables_are_compressed(write, tmp_path):
    path = write(rows(2))
    with (tmp_path / "whole.parquet").open("wb") as file:
        write_table(file, read_table(path))
    for written in (path, tmp_path / "whole.parquet"):
        assert pq.read_metadata(pa.OSFile(str(written))).row_group(0).column(0).compression == "ZSTD"


def test_a_column_that_is_not_asked_for_is_not_read(write):
    """A run over millions of images reads the keys of a table and leaves the rest on disk."""
    path = write(rows(2))
    spoil_column(path, "text")
    assert list(read_rows(path, ["number"])) == [{"number": 0}, {"number": 1}]
    with pytest.raises(OSError):
        list(read_rows(path))


def test_arrow_can_be_told_to_give_memory_back():
    before = pa.default_memory_pool()
    try:
        use_system_allocator()
        assert pa.default_memory_pool().backend_name == "system"
    finally:
        pa.set_memory_pool(before)


def test_rows_of_several_files_are_found_by_their_places(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "CHUNK_ROWS", 3)
    files = [tmp_path / name for name in ("a.parquet", "b.parquet", "none.parquet", "c.parquet")]
    schema = pa.schema([("a", pa.int64()), ("b", pa.string())])
    numbers = iter(range(100))
    for file, count in zip(files, (7, 1, 0, 5), strict=True):
        with tables.table_writer(file, schema) as writer:
            for chunk in tables.chunks_of(({"a": next(numbers), "b": "x"} for _ in range(count)), schema):
                writer.write_batch(chunk)
    places = np.array([0, 2, 3, 6, 7, 8, 12])
    assert list(read_rows_at(files, places, ["a"])) == [{"a": place} for place in places.tolist()]
    spoil_column(files[0], "a")  # its first three rows are in a row group of their own
    assert list(read_rows_at(files, places[2:], ["a"])) == [{"a": place} for place in places[2:].tolist()]


@pytest.mark.parametrize("sizes", [(2, 2, 2, 2), (8,), (1, 0, 3, 4), (3, 5)])
def test_rows_are_taken_as_many_at_a_time_as_are_asked_for(sizes):
    table = pa.table({"a": list(range(8)), "b": pa.array(list("abcabcab")).dictionary_encode()})
    for as_batches in (False, True):
        parts, start = [], 0
        for size in sizes:
            part = table.slice(start, size)
            parts.append(part.combine_chunks().to_batches()[0] if as_batches and size else part)
            start += size
        rows = Rows(parts)
        taken = [rows.take(count) for count in (0, 3, 1, 0, 4)]
        assert [row for part in taken for row in part.to_pylist()] == table.to_pylist()
        assert [len(part) for part in taken] == [0, 3, 1, 0, 4]


def test_memory_is_given_back_also_where_that_cannot_be_asked_for(monkeypatch):
    give_memory_back()
    monkeypatch.setattr(tables.ctypes, "CDLL", lambda name: object())
    give_memory_back()
