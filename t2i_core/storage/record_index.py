"""The record index: which images are known, looked up by key."""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from t2i_core.storage.keys import KEY, Keys, as_keys, find
from t2i_core.storage.records import REPEATED, Status
from t2i_core.storage.tables import CHUNK_ROWS, parquet_reader


class RecordIndex:
    """What a record table says. Keys and failures are in memory; the other columns stay on disk until they are read.

    Attributes:
        name: the table's file name.
        keys: of the images that count as made, sorted.
        errors: key of a failed image -> why it failed, where no replacement was made.
        replacements: key of an image that failed, or was to be made again -> (key, seed) of the image with a new seed
            that stands for it: of several the latest.
        attempts: key of such an image -> how many new seeds were tried for it.
        replacement_errors: key of such an image -> why one with a new seed failed.
        found: digest of a plan -> for each of its images the index in `keys` of its picture, or -1; of plans whose
            images were all looked up once.
    """

    def __init__(self, file: Path, only_run: str | None = None, stored: Keys | None = None) -> None:
        """`only_run`: images of other runs do not count as made (`--refresh`).

        `file`: a table of `merge_records`. `stored`: the keys of the files that it was checked against, sorted. They
        are shared where all of those images count as made: of a million keys, a copy takes 64 MB.
        """
        self.name = file.name
        self.only_run = only_run
        # Kept open: a later run may remove the file.
        self._table = parquet_reader(pa.OSFile(str(file)), REPEATED)
        self.errors: dict[str, str] = {}
        self.replacements: dict[str, tuple[str, int]] = {}
        self.attempts: Counter[str] = Counter()
        self.replacement_errors: dict[str, str] = {}
        self.found: dict[str, npt.NDArray[np.int32]] = {}
        self._tried: Counter[str] = Counter()
        self._latest: dict[str, int] = {}  # the attempt of each of `replacements`; 0 for those of earlier versions
        made = np.zeros(self._table.metadata.num_rows, bool)
        start = 0
        columns = ["key", "status", "run", "seed", "error", "replaces", "attempt"]
        for chunk in self._table.iter_batches(CHUNK_ROWS, columns=columns):
            made[start : start + len(chunk)] = self._counts_as_made(chunk)
            self._note_failures_and_replacements(chunk)
            start += len(chunk)
        self.errors = {key: error for key, error in self.errors.items() if key not in self.replacements}
        self._rows = None if made.all() else np.flatnonzero(made)  # of the table; None: all
        self.keys: Keys = self._made_keys(made, np.empty(0, KEY) if stored is None else stored)

    def find(self, keys: pa.Array) -> npt.NDArray[np.int64]:
        """Return, for each of `keys`, the index in `self.keys` of its picture; -1 where there is none."""
        return find(as_keys(self.picture_keys(keys)), self.keys)

    def picture_keys(self, keys: pa.Array) -> pa.Array:
        """Return the keys of the pictures that are shown for `keys`: that of a replacement for a failed image."""
        if not self.replacements:
            return keys
        return pa.array(
            [self.replacements[key][0] if key in self.replacements else key for key in keys.to_pylist()], pa.string()
        )

    def attempt(self, key: str) -> int | None:
        """Return the attempt of the replacement that is shown for `key`; None where there is none."""
        return self._latest.get(key) or None

    def facts(self, columns: Sequence[str]) -> pa.Table:
        """Return columns of the record table, a row for each of `self.keys`."""
        # Column by column: of each, two copies are in memory at a time, and never of all.
        rows = None if self._rows is None else pa.array(self._rows)
        found = {}
        for name in columns:
            column = self._table.read([name])[name].combine_chunks()
            found[name] = column if rows is None else column.take(rows)
        return pa.table(found)

    def chunks(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Yield the same, some thousands of rows at a time; at least one chunk."""
        start = 0
        for chunk in self._table.iter_batches(4 * CHUNK_ROWS, columns=list(columns)):
            found = chunk.select(columns)
            if self._rows is not None:
                low, high = np.searchsorted(self._rows, (start, start + len(chunk)))
                found = found.take(pa.array(self._rows[low:high] - start))
            start += len(chunk)
            yield found
        if not start:
            yield pa.RecordBatch.from_pylist([], pa.schema([self._table.schema_arrow.field(name) for name in columns]))

    def _made_keys(self, made: npt.NDArray[np.bool_], stored: Keys) -> Keys:
        """Return the keys of the rows that are marked: `stored` itself, where those are its keys."""
        keys = stored if len(stored) == np.count_nonzero(made) else np.empty(np.count_nonzero(made), KEY)
        start = end = 0
        for chunk in self._table.iter_batches(CHUNK_ROWS, columns=["key"]):
            found = as_keys(chunk["key"])[made[start : start + len(chunk)]]
            place = slice(end, end + len(found))
            if keys is stored and not np.array_equal(found, stored[place]):
                keys = stored.copy()
            if keys is not stored:
                keys[place] = found
            start, end = start + len(chunk), place.stop
        return keys

    def _counts_as_made(self, chunk: pa.RecordBatch) -> npt.NDArray[np.bool_]:
        made = pc.equal(chunk["status"], Status.MADE.value)
        if self.only_run is not None:
            made = pc.and_(made, pc.equal(chunk["run"], self.only_run))
        mask: npt.NDArray[np.bool_] = made.to_numpy(zero_copy_only=False)
        return mask

    def _note_failures_and_replacements(self, chunk: pa.RecordBatch) -> None:
        made = pc.equal(chunk["status"], Status.MADE.value)
        for row in chunk.filter(pc.or_(pc.invert(made), pc.is_valid(chunk["replaces"]))).to_pylist():
            replaced, attempt = row["replaces"], row.get("attempt") or 0  # earlier versions did not note it
            if replaced is not None:
                self._tried[replaced] += 1
                self.attempts[replaced] = max(self.attempts[replaced], self._tried[replaced], attempt)
            if row["status"] == Status.FAILED:
                self.errors[row["key"]] = row["error"]
                if replaced is not None:
                    self.replacement_errors[replaced] = row["error"]
            elif attempt >= self._latest.get(replaced, 0):
                self.replacements[replaced], self._latest[replaced] = (row["key"], row["seed"]), attempt
