"""Readers of Parquet and Arrow files, as streams of chunks."""

from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

from t2i_core.dataset.binary_columns import BinaryColumns
from t2i_core.dataset.data_file import DataFile, cannot_be_read
from t2i_core.dataset.reading import Notes, Readings, short, unique_columns
from t2i_core.errors import DatasetError
from t2i_core.json_values import plain

CHUNK_ROWS = 256  # converted at once
PEEKED_ROWS = 16  # by which a column is known to be binary before the pictures in it are read
PEEK_BYTES = 1 << 16

_Chunks = Callable[[BinaryIO, str, BinaryColumns], Iterator[Any]]


def read_parquet(file: DataFile, notes: Notes) -> Readings:
    """Yield the rows of a Parquet file."""
    return _read(file, notes, _parquet_chunks, "Parquet")


def read_arrow(file: DataFile, notes: Notes) -> Readings:
    """Yield the rows of an Arrow file, as a data set that was saved by the datasets library is made of."""
    return _read(file, notes, _arrow_chunks, "Arrow")


def _read(file: DataFile, notes: Notes, chunks: _Chunks, format_name: str) -> Readings:
    import pyarrow as pa

    binary = BinaryColumns(file.name, notes)
    with file.open() as opened:
        try:
            for chunk in chunks(opened, file.name, binary):
                for value, problem in _chunk_values(chunk, binary):
                    yield None, value, problem, ""
        except (pa.ArrowException, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise cannot_be_read(file.name, error) from None
            fix = "write or download it again"
            raise DatasetError(f"{file.name}: cannot be read as {format_name}: {short(error)}; {fix}") from None


def _parquet_chunks(opened: BinaryIO, name: str, binary: BinaryColumns) -> Iterator[Any]:
    """Yield the chunks of a Parquet file, without the columns whose first values are binary: they are not even read."""
    from pyarrow import parquet

    # Opened here, for pyarrow takes a name such as run-10:00.parquet for a URL.
    with parquet.ParquetFile(opened, buffer_size=PEEK_BYTES, pre_buffer=False) as table:
        names = unique_columns(name, table.schema_arrow.names)
        candidates = binary.candidates(table.schema_arrow)
        if candidates:
            for chunk in table.iter_batches(PEEKED_ROWS, columns=candidates):
                binary.find(chunk)
                break
    # Not read ahead: Arrow would do so for the columns of the whole file, and keep them in memory.
    with parquet.ParquetFile(opened, pre_buffer=False) as table:
        kept = [name for name in names if name not in binary.names] if binary.names else None
        yield from table.iter_batches(CHUNK_ROWS, columns=kept)


def _arrow_chunks(opened: BinaryIO, name: str, binary: BinaryColumns) -> Iterator[Any]:
    import pyarrow as pa

    try:
        batches = iter(pa.ipc.open_stream(opened))
    except pa.ArrowInvalid:  # the other of Arrow's two formats
        opened.seek(0)
        table = pa.ipc.open_file(opened)
        batches = (table.get_batch(number) for number in range(table.num_record_batches))
    for batch in batches:
        unique_columns(name, batch.schema.names)
        if binary.candidates(batch.schema):
            binary.find(batch.slice(0, PEEKED_ROWS))
        batch = batch.select([name for name in batch.schema.names if name not in binary.names])
        for start in range(0, batch.num_rows, CHUNK_ROWS):
            yield batch.slice(start, CHUNK_ROWS)


def _chunk_values(chunk: Any, binary: BinaryColumns) -> Iterator[tuple[object, str | None]]:
    """Yield (value, what is wrong) for the rows of an Arrow chunk.

    A value that Python cannot have (bad UTF-8, a far date) makes the conversion of the whole chunk fail; then the rows
    are converted one by one, so that only its own row is rejected.
    """
    clean = binary.without if binary.candidates(chunk.schema) else lambda row: row
    try:
        yield from [(plain(clean(value)), None) for value in chunk.to_pylist()]
        return
    except (ValueError, OverflowError):
        pass
    for position in range(chunk.num_rows):
        try:
            result: tuple[object, str | None] = plain(clean(chunk.slice(position, 1).to_pylist()[0])), None
        except (ValueError, OverflowError) as error:
            result = None, f"cannot be read: {short(error)}; correct the value"
        yield result
