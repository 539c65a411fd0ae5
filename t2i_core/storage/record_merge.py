"""The record table of a large output, made in ranges of keys: one of them in memory at a time."""

import dataclasses
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa

from t2i_core.storage.adoption import Adopters
from t2i_core.storage.image_store import ImageStore, Scan
from t2i_core.storage.keys import KEY, Keys, as_keys
from t2i_core.storage.record_table import merge_records, tabled
from t2i_core.storage.records import RECORD_TABLE, REPEATED
from t2i_core.storage.tables import CHUNK_ROWS, parquet_reader

# Images in a range, about: their records take some 10 MB, of which a merge needs a few copies.
RANGE = 16_384


def merge_in_ranges(previous: Path | None, new: Iterable[object], scan: Scan, images: ImageStore) -> Iterator[pa.Table]:
    """Yield what `merge_records` returns, sorted by key, in several tables.

    `previous`: the file of an earlier table, sorted by key. The others: as for `merge_records`.
    """
    count = 1 + len(scan.keys) // RANGE
    # Keys are hashes: ranges of equal width hold about equally many.
    edges = np.array([f"{number * 16**8 // count:08x}" for number in range(count)], KEY)
    earlier, later = _SortedTable(previous), _Ranges(new, edges)
    with Adopters(images) as adopt:
        for number, part in enumerate(_parts(scan, edges)):
            before = earlier.up_to(edges[number + 1] if number + 1 < count else None)
            yield merge_records(before, later.take(number), part, images, adopt)


def _parts(scan: Scan, edges: Keys) -> Iterator[Scan]:
    """Yield the files of each range."""
    starts = [*np.searchsorted(scan.keys, edges).tolist(), len(scan.keys)]
    for start, end in pairwise(starts):
        columns = {item.name: getattr(scan, item.name)[start:end] for item in dataclasses.fields(scan)}
        yield Scan(**columns)


class _SortedTable:
    """A table that is sorted by key, read from its file as far as it is needed."""

    def __init__(self, path: Path | None) -> None:
        self._file = None if path is None else parquet_reader(pa.OSFile(str(path)))
        self._chunks = iter(self._file.iter_batches(CHUNK_ROWS)) if self._file else iter(())
        self._rest: pa.RecordBatch | None = None

    def up_to(self, end: bytes | None) -> pa.Table | None:
        """Return the next rows, those whose key is below `end`; None: all that are left."""
        if self._file is None:
            return None
        taken: list[pa.RecordBatch] = []
        while (chunk := self._rest if self._rest is not None else next(self._chunks, None)) is not None:
            rows = len(chunk) if end is None else int(np.searchsorted(as_keys(chunk["key"]), end))
            taken.append(chunk.slice(0, rows))
            self._rest = None
            if rows < len(chunk):
                self._rest = chunk.slice(rows)
                break
        return pa.Table.from_batches(taken, self._file.schema_arrow)


class _Ranges:
    """Records in the order in which they came, by the range of their key; what repeats in them is kept once."""

    def __init__(self, records: Iterable[object], edges: Keys) -> None:
        self._parts: list[list[pa.Table]] = [[] for _ in edges]
        for chunk in tabled(records):
            numbers = np.searchsorted(edges, as_keys(chunk["key"]), "right") - 1
            for number in np.unique(numbers).tolist():
                part = pa.Table.from_batches([chunk]).filter(pa.array(numbers == number))
                for name in REPEATED:
                    place = part.schema.get_field_index(name)
                    part = part.set_column(place, name, part[name].dictionary_encode())
                self._parts[number].append(part)

    def take(self, number: int) -> pa.Table:
        """Return the records of a range, which are then forgotten here."""
        parts, self._parts[number] = self._parts[number], []
        return pa.concat_tables([RECORD_TABLE.empty_table(), *(part.cast(RECORD_TABLE) for part in parts)])
