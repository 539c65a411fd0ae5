"""The record table of a large output, made in ranges of keys: one of them in memory at a time."""

import dataclasses
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa

from t2i_core.storage.adoption import Adopters
from t2i_core.storage.image_store import ImageStore, Scan
from t2i_core.storage.keys import KEY, Keys, as_keys
from t2i_core.storage.record_table import merge_records, tabled
from t2i_core.storage.records import RECORD_TABLE
from t2i_core.storage.spill import SPILLS, Spill
from t2i_core.storage.tables import CHUNK_ROWS, parquet_reader

# Images in a range, about: their records take some 10 MB, of which a merge needs a few copies. More of them where
# there would be more ranges than `SPILLS`.
RANGE = 16_384


def merge_in_ranges(
    previous: Path | None, new: Iterable[object], scan: Scan, images: ImageStore, folder: Path
) -> Iterator[pa.Table]:
    """Yield what `merge_records` returns, sorted by key, in several tables.

    Args:
        previous: the file of an earlier table, sorted by key.
        new: as for `merge_records`, as JSON knows them. So are the others.
        folder: where new records wait for their turn, as `Spill` has it.
    """
    count = min(SPILLS, 1 + len(scan.keys) // RANGE)
    # Keys are hashes: ranges of equal width hold about equally many.
    edges = np.array([f"{number * 16**8 // count:08x}" for number in range(count)], KEY)
    earlier = _SortedTable(previous)
    with Adopters(images) as adopt, ExitStack() as opened:
        later = _Ranges(new, edges, folder, opened)
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
    """Records in the order in which they came, by the range of their key."""

    def __init__(self, records: Iterable[object], edges: Keys, folder: Path, opened: ExitStack) -> None:
        self._parts: dict[int, Spill] = {}
        for chunk in tabled(records):
            numbers = np.searchsorted(edges, as_keys(chunk["key"]), "right") - 1
            order = np.argsort(numbers, kind="stable")
            dealt, numbers = chunk.take(pa.array(order)), numbers[order]
            found, starts = np.unique(numbers, return_index=True)
            for number, (start, end) in zip(found.tolist(), pairwise([*starts.tolist(), len(numbers)]), strict=True):
                if number not in self._parts:
                    self._parts[number] = Spill(RECORD_TABLE, folder, opened)
                self._parts[number].add(dealt.slice(start, end - start))

    def take(self, number: int) -> pa.Table:
        """Return the records of a range, which are then forgotten here."""
        part = self._parts.pop(number, None)
        return part.read() if part else RECORD_TABLE.empty_table()
