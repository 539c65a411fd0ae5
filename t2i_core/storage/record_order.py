"""Records in the order of a data set, which is not that of their table: a part of them in memory at a time.

A record of a real image takes some 300 bytes, and they are needed in a random order. So they are read once, in the
order of the table, and dealt out to files, of which each has those of the next so many images of the data set.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from t2i_core.storage.record_index import RecordIndex
from t2i_core.storage.spill import SPILLS, Spill

# Images whose records are in memory at a time: 10 MB, of which there are a few copies. More where there would be more
# than `SPILLS`.
BUCKET = 32_768
_PLACE = "place"


def in_order(
    index: RecordIndex, places: npt.NDArray[np.integer[Any]], columns: Sequence[str], folder: Path
) -> Iterator[pa.Table]:
    """Yield columns of the record table, a row for each of `places`, in tables of many rows, at least one.

    Args:
        places: indices in `index.keys`; a row is null where it is -1.
        folder: where records wait for their turn, as `Spill` has it.
    """
    size = max(BUCKET, -(-len(places) // SPILLS))
    begins = range(0, len(places), size) or [0]
    with ExitStack() as opened:
        buckets: list[Spill] = []
        for chunk, numbers in _dealt(index, places, columns):
            if not buckets:
                buckets = [Spill(chunk.schema, folder, opened) for _ in begins]
            edges = np.searchsorted(numbers, [*begins, len(places)]).tolist()
            for bucket, start, end in zip(buckets, edges[:-1], edges[1:], strict=True):
                if start < end:
                    bucket.add(chunk.slice(start, end - start))
        for begin, bucket in zip(begins, buckets, strict=True):
            yield _in_places(bucket.read(), begin, min(size, len(places) - begin)).select(columns)


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


def _in_places(records: pa.Table, begin: int, count: int) -> pa.Table:
    """Return records in their places, counted from `begin`; null where there is none."""
    rows = np.full(count, -1)
    rows[records[_PLACE].to_numpy() - begin] = np.arange(len(records))
    return records.unify_dictionaries().combine_chunks().take(pa.array(rows, mask=rows < 0))


def _not_worth_a_dictionary(chunk: pa.RecordBatch) -> list[str]:
    """Return the columns with a dictionary whose values are mostly different ones."""
    encoded = [field.name for field in chunk.schema if pa.types.is_dictionary(field.type)]
    return [name for name in encoded if 8 * len(chunk[name].dictionary) > len(chunk)]


def _without_dictionaries(chunk: pa.RecordBatch, columns: Sequence[str]) -> pa.RecordBatch:
    names = chunk.schema.names
    arrays = [chunk[name].dictionary_decode() if name in columns else chunk[name] for name in names]
    return pa.RecordBatch.from_arrays(arrays, names)
