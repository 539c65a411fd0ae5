"""The columns of scores in `images.parquet`: what the score tables of an output say of each image."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from t2i_core.errors import OutputError
from t2i_core.output.layout import PROVENANCE
from t2i_core.output.own_files import OwnFiles
from t2i_core.storage.files import atomic_write
from t2i_core.storage.keys import KEY, Keys, as_keys, find
from t2i_core.storage.score_table import PIXELS, PROMPT, Scores, shown_tables
from t2i_core.storage.tables import open_table, read_chunks, read_table, write_chunks, write_table
from t2i_core.storage.workspace import Workspace

HASH = "score_phash"
# Columns that depend on the other images of the data set, so that no table can hold them.
DUPLICATE_FIELDS = (
    pa.field("duplicate", pa.bool_()),  # an image before it in the data set is of the same group
    pa.field("duplicate_of", pa.string()),  # the key of the first of its group
    pa.field("duplicate_in_prompt", pa.bool_()),  # an image of the same prompt before it looks nearly the same
)
DUPLICATE_NAMES = tuple(field.name for field in DUPLICATE_FIELDS)
_DUPLICATES = "duplicates.parquet"
_DISTANCE, _OF = b"distance", b"of"


class ScoreColumns:
    """Adds the columns of scores to images, which come in data-set order."""

    def __init__(self, folder: Path) -> None:
        """`folder`: `Workspace.scores`."""
        self._tables = [
            Scores.of(_typed(read_table(folder / table.file)), reads_prompt=table.reads_prompt)
            for table in shown_tables(folder).values()
        ]
        self.fields: list[pa.Field] = [
            field for scores in self._tables for field in scores.columns.schema if field.name not in (PIXELS, PROMPT)
        ]
        self._duplicates = None
        if any(field.name == HASH for field in self.fields) and (folder / _DUPLICATES).is_file():
            self._duplicates = _Duplicates(read_table(folder / _DUPLICATES))
            self.fields += DUPLICATE_FIELDS

    def schema(self, images: pa.Schema) -> pa.Schema:
        """Return the schema of `images.parquet` with the columns of scores."""
        return pa.schema([*images, *self.fields])

    def added_to(self, chunk: pa.RecordBatch) -> pa.RecordBatch:
        """Return images with their scores; those without are null. Chunks have to come one after the other."""
        columns: dict[str, pa.Array] = {}
        for scores in self._tables:
            index = scores.find(chunk[PIXELS].fill_null(""), chunk["prompt"].fill_null(""))
            rows = pa.array(index, mask=index < 0)
            names = (name for name in scores.columns.column_names if name not in (PIXELS, PROMPT))
            columns |= {name: _one_chunk(scores.columns[name].take(rows)) for name in names}
        if self._duplicates is not None:
            columns |= self._duplicates.columns(chunk, columns[HASH])
        return pa.RecordBatch.from_arrays([*chunk.columns, *columns.values()], schema=self.schema(chunk.schema))


def write_score_columns(workspace: Workspace) -> None:
    """Write the columns of scores of `images.parquet` anew; all other columns stay as the last run wrote them.

    Raises:
        OutputError: where there is no such file.
    """
    path = workspace.root / PROVENANCE
    with workspace.lock():
        columns = ScoreColumns(workspace.scores)
        try:
            with open_table(path) as table:
                images = pa.schema([field for field in table.schema_arrow if not is_score(field.name)])
        except FileNotFoundError:
            raise OutputError(f"output: {path} is gone; run text2image with this output once more") from None
        chunks = (columns.added_to(chunk) for chunk in read_chunks(path, images.names))
        with OwnFiles(workspace).write(PROVENANCE) as file:
            write_chunks(file, columns.schema(images), chunks)


def write_duplicates(folder: Path, pixels: pa.Array, groups: npt.NDArray[np.int64], distance: int, of: str) -> None:
    """Keep the groups of near-duplicates: for the hash of each image's pixels the number of its group.

    `of` is a digest of what they were found in.
    """
    table = pa.table({PIXELS: pixels, "group": pa.array(groups, pa.int32())})
    with atomic_write(folder / _DUPLICATES) as file:
        write_table(file, table.replace_schema_metadata({_DISTANCE: str(distance), _OF: of}))


def has_duplicates(folder: Path, of: str) -> bool:
    """Return whether the groups that are kept were found in what `of` is a digest of."""
    try:
        with open_table(folder / _DUPLICATES) as table:
            return bool(table.schema_arrow.metadata[_OF].decode() == of)
    except FileNotFoundError:
        return False


def is_score(column: str) -> bool:
    """Return whether a column of `images.parquet` comes from scores."""
    return column.startswith("score_") or column in DUPLICATE_NAMES


def hash_values(hashes: pa.Array) -> npt.NDArray[np.uint64]:
    """Return hashes, 16 hexadecimal digits each, as numbers; 0 where there is none."""
    digits = "".join(pc.fill_null(hashes, "0" * 16).to_pylist())
    return np.frombuffer(bytes.fromhex(digits), ">u8").astype(np.uint64)


class _Duplicates:
    """Which images have one before them that looks nearly the same."""

    def __init__(self, table: pa.Table) -> None:
        table = table.sort_by(PIXELS)
        self._keys: Keys = as_keys(table[PIXELS])
        self._groups = table["group"].to_numpy()
        self._distance = int(table.schema.metadata[_DISTANCE])
        # The key of the first picture of each group that has come.
        self._first = np.zeros(int(self._groups.max(initial=-1)) + 1, KEY)
        # Of the prompt that the last chunk ended with: row and condition, hashes, and whether there are hashes.
        self._last = (np.empty((2, 0), np.int64), np.empty(0, np.uint64), np.empty(0, bool))

    def columns(self, chunk: pa.RecordBatch, hashes: pa.Array) -> dict[str, pa.Array]:
        """Return the columns of `DUPLICATE_FIELDS`; null for images that were not compared."""
        places = find(as_keys(chunk[PIXELS].fill_null("")), self._keys)
        known = np.flatnonzero(places >= 0)
        groups, keys = self._groups[places[known]], as_keys(chunk["key"])[known]
        different, begins = np.unique(groups, return_index=True)
        new = self._first[different] == b""
        self._first[different[new]] = keys[begins[new]]
        duplicate = np.ones(len(known), bool)
        duplicate[begins[new]] = False
        first = self._first[groups[duplicate]].astype("U64")
        of = pa.array(_spread(first, duplicate), pa.string())
        rows = np.full(len(chunk), -1)
        rows[known] = np.arange(len(known))
        take = pa.array(rows, mask=rows < 0)
        in_prompt = self._in_prompt(chunk, hashes)
        values = (pa.array(duplicate).take(take), of.take(take), pa.array(in_prompt, mask=rows < 0))
        return dict(zip(DUPLICATE_NAMES, values, strict=True))

    def _in_prompt(self, chunk: pa.RecordBatch, hashes: pa.Array) -> npt.NDArray[np.bool_]:
        """Mark the images that have one of the same prompt before them within the distance."""
        here = (
            np.stack([chunk[name].to_numpy() for name in ("row", "condition")]),
            hash_values(hashes),
            hashes.is_valid().to_numpy(zero_copy_only=False),
        )
        prompts, values, known = (np.concatenate(pair, axis=-1) for pair in zip(self._last, here, strict=True))
        near = np.zeros(len(values), bool)
        for step in range(1, len(values)):
            same = (prompts[:, step:] == prompts[:, :-step]).all(axis=0)
            if not same.any():
                break
            alike = np.bitwise_count(values[step:] ^ values[:-step]) <= self._distance
            near[step:] |= same & alike & known[step:] & known[:-step]
        if len(values):
            begin = int(np.argmax((prompts == prompts[:, -1:]).all(axis=0)))
            self._last = (prompts[:, begin:], values[begin:], known[begin:])
        return near[len(near) - len(chunk) :]


def _typed(table: pa.Table) -> pa.Table:
    """Return a table whose columns without a single value, and so without a type, are of numbers."""
    types = [field.with_type(pa.float64()) if pa.types.is_null(field.type) else field for field in table.schema]
    return table.cast(pa.schema(types))


def _spread(values: npt.NDArray[Any], where: npt.NDArray[np.bool_]) -> npt.NDArray[np.object_]:
    """Return values in the places that are marked, None in all others."""
    result = np.full(len(where), None, object)
    result[where] = values
    return result


def _one_chunk(column: pa.ChunkedArray) -> pa.Array:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
