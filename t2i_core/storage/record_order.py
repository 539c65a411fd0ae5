"""Records in the order of a data set, which is not that of their table: a part of them in memory at a time.

A record of a real image takes some 300 bytes, and they are needed in a random order. So they are read once, in the
order of the table, and dealt out to files, of which each has those of the next so many images of the data set.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import IO, Any, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from t2i_core.storage.record_index import RecordIndex

# Images whose records are in memory at a time: 20 MB. More where there would be more files than a process may open.
BUCKET, BUCKETS = 65_536, 256
# A bucket of so many bytes is no file.
SMALL = 1 << 20
_PLACE = "place"


def in_order(
    index: RecordIndex, places: npt.NDArray[np.integer[Any]], columns: Sequence[str], folder: Path
) -> Iterator[pa.Table]:
    """Yield columns of the record table, a row for each of `places`, in tables of many rows, at least one.

    Args:
        places: indices in `index.keys`; a row is null where it is -1.
        folder: where files are kept meanwhile, which have no names and vanish with the process; where it cannot be
            written, they are in the system's folder for temporary files.
    """
    size = max(BUCKET, -(-len(places) // BUCKETS))
    begins = range(0, len(places), size) or [0]
    with ExitStack() as opened:
        buckets: list[_Bucket] = []
        for chunk, numbers in _dealt(index, places, columns):
            if not buckets:
                buckets = [_Bucket(begin, chunk.schema, folder, opened) for begin in begins]
            edges = np.searchsorted(numbers, [*begins, len(places)]).tolist()
            for bucket, start, end in zip(buckets, edges[:-1], edges[1:], strict=True):
                if start < end:
                    bucket.add(chunk.slice(start, end - start))
        for bucket in buckets:
            yield bucket.rows(min(size, len(places) - bucket.begin)).select(columns)


def _dealt(
    index: RecordIndex, places: npt.NDArray[np.integer[Any]], columns: Sequence[str]
) -> Iterator[tuple[pa.RecordBatch, npt.NDArray[np.int64]]]:
    """Yield the records that are asked for, each as often as that, and the positions in `places` that ask for them.

    Positions are in a column of the records, too, and rise within a chunk.
    """
    order = np.argsort(places, kind="stable")
    asked = places[order]
    begin, plain = 0, None
    for chunk in index.chunks(columns):
        if plain is None:
            plain = _not_worth_a_dictionary(chunk)
        low, high = np.searchsorted(asked, np.array([begin, begin + len(chunk)], asked.dtype))
        positions, rows = order[low:high], asked[low:high] - begin
        begin += len(chunk)
        by_position = np.argsort(positions)
        taken = _without_dictionaries(chunk, plain).take(pa.array(rows[by_position]))
        positions = positions[by_position]
        arrays = [*taken.columns, pa.array(positions)]
        yield pa.RecordBatch.from_arrays(arrays, [*taken.schema.names, _PLACE]), positions


class _Bucket:
    """The records of some images that follow each other in the data set, on disk where they are many."""

    def __init__(self, begin: int, schema: pa.Schema, folder: Path, opened: ExitStack) -> None:
        self.begin = begin
        where = str(folder) if os.access(folder, os.W_OK) else None
        self._file = opened.enter_context(SpooledTemporaryFile(SMALL, dir=where))  # noqa: SIM115
        options = pa.ipc.IpcWriteOptions(compression="lz4")
        self._writer = pa.ipc.new_stream(cast(IO[Any], self._file), schema, options=options)

    def add(self, records: pa.RecordBatch) -> None:
        self._writer.write_batch(records)

    def rows(self, count: int) -> pa.Table:
        """Return the rows of the images, null where there is no record; the file is gone then."""
        self._writer.close()
        self._file.seek(0)
        with pa.ipc.open_stream(cast(IO[Any], self._file)) as stream:
            table = stream.read_all().unify_dictionaries().combine_chunks()
        self._file.close()
        rows = np.full(count, -1)
        rows[table[_PLACE].to_numpy() - self.begin] = np.arange(len(table))
        return table.take(pa.array(rows, mask=rows < 0))


def _not_worth_a_dictionary(chunk: pa.RecordBatch) -> list[str]:
    """Return the columns with a dictionary whose values are mostly different ones."""
    encoded = [field.name for field in chunk.schema if pa.types.is_dictionary(field.type)]
    return [name for name in encoded if 8 * len(chunk[name].dictionary) > len(chunk)]


def _without_dictionaries(chunk: pa.RecordBatch, columns: Sequence[str]) -> pa.RecordBatch:
    names = chunk.schema.names
    arrays = [chunk[name].dictionary_decode() if name in columns else chunk[name] for name in names]
    return pa.RecordBatch.from_arrays(arrays, names)
