"""The scores that an output keeps: a table for each scorer, by the hash of the pixels, so that none is computed twice.

`.t2i/scores/<scorer>-<version>.parquet` holds what is done. While a run scores, its results lie beside it, a small file
for each chunk of images: a run that is killed loses at most the chunks in hand.
"""

import hashlib
import json
import shutil
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from t2i_core.errors import ConfigError
from t2i_core.storage.files import atomic_write, entries, is_temporary, remove_if_stale, write_text
from t2i_core.storage.keys import Keys, as_keys, find
from t2i_core.storage.tables import open_table, read_table, write_table

# The columns that say which image a row is about; all others are scores.
PIXELS, PROMPT = "pixels_sha256", "prompt_sha256"
# The scorers whose columns `images.parquet` has: name -> file.
_SHOWN = "shown.json"
# Of each hash, what a key for looking up holds: 160 and 96 bits.
_PIXELS_DIGITS, _PROMPT_DIGITS = 40, 24


def mixed_types(scorer: str) -> ConfigError:
    """Return the error for a scorer, or a column of one, whose scores are of different types."""
    return ConfigError([f"score: {scorer} gives numbers for some images and texts for others; return one type"])


def prompt_digest(prompt: str) -> str:
    """Return the SHA-256 of a prompt, in 64 hexadecimal digits."""
    return hashlib.sha256(prompt.encode("utf-8")).hexdigest()


@dataclass(frozen=True, slots=True)
class Scores:
    """Scores in memory: a row of `columns` for each of `keys`, which are sorted."""

    keys: Keys
    columns: pa.Table
    reads_prompt: bool

    @classmethod
    def of(cls, table: pa.Table, *, reads_prompt: bool) -> "Scores":
        """Return the scores of a table with the columns of hashes; a later row of an image wins."""
        prompts = table[PROMPT] if reads_prompt else None
        keys = _keys(table[PIXELS], prompts)[::-1]
        keys, last = np.unique(keys, return_index=True)
        rows = len(table) - 1 - last
        return cls(keys, table.take(pa.array(rows)).combine_chunks(), reads_prompt)

    def find(self, pixels: pa.Array, prompts: pa.Array) -> npt.NDArray[np.int64]:
        """Return for each image, by its hash and its prompt, its row; -1 where it has no scores."""
        hashes = pa.array(map(prompt_digest, prompts.to_pylist()), pa.string()) if self.reads_prompt else None
        return find(_keys(pixels, hashes), self.keys)


class ScoreTable:
    """The table of one scorer."""

    def __init__(self, folder: Path, name: str, version: str, *, reads_prompt: bool) -> None:
        """`folder`: `Workspace.scores`. `version`: SHA-256 of what decides the scores."""
        self.name, self.reads_prompt = name, reads_prompt
        self._folder = folder
        self.file = folder / f"{name}-{version[:12]}.parquet"
        self._parts = folder / f"{name}-{version[:12]}"

    def read(self) -> Scores:
        """Return all scores, those of a run that was killed included.

        Raises:
            ConfigError: for a column that holds numbers and texts.
        """
        files = [*([self.file] if self.file.is_file() else []), *self._part_files()]
        empty = pa.schema([(PIXELS, pa.string()), (PROMPT, pa.string())][: 2 if self.reads_prompt else 1]).empty_table()
        tables = [read_table(file).replace_schema_metadata() for file in files]
        try:
            table = pa.concat_tables([empty, *tables], promote_options="permissive")
        except (pa.ArrowInvalid, pa.ArrowTypeError):
            raise mixed_types(self.name) from None
        return Scores.of(table, reads_prompt=self.reads_prompt)

    def write_part(self, name: str, table: pa.Table) -> None:
        """Keep the scores of one chunk."""
        with atomic_write(self._parts / f"{name}.parquet") as file:
            write_table(file, table)

    def merge(self) -> Scores:
        """Put all scores into one file, and return them."""
        scores = self.read()
        if self._part_files():
            with atomic_write(self.file) as file:
                write_table(file, scores.columns)
            shutil.rmtree(self._parts, ignore_errors=True)
        return scores

    def columns(self) -> list[str]:
        """Return the names of the scores, once they are merged."""
        return _score_names(self.file)

    def _part_files(self) -> list[Path]:
        found = []
        for entry in entries(self._parts):
            if is_temporary(entry.name):
                remove_if_stale(Path(entry.path))
            else:
                found.append(Path(entry.path))
        return found


@dataclass(frozen=True, slots=True)
class ShownTable:
    """A table whose columns `images.parquet` has: its file name, and whether its scores belong to prompts, too."""

    file: str
    reads_prompt: bool


def shown_tables(folder: Path) -> dict[str, ShownTable]:
    """Return scorer -> the table whose scores are columns of `images.parquet`."""
    try:
        noted = json.loads((folder / _SHOWN).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    return {name: ShownTable(**table) for name, table in noted.items() if (folder / table["file"]).is_file()}


def shown_columns(folder: Path) -> dict[str, list[str]]:
    """Return scorer -> the names of its scores in `images.parquet`."""
    return {name: _score_names(folder / table.file) for name, table in shown_tables(folder).items()}


def show_tables(folder: Path, tables: Iterable[ScoreTable]) -> None:
    """Note that the scores of these tables are columns of `images.parquet` from now on; each replaces its namesake."""
    new = {table.name: ShownTable(table.file.name, table.reads_prompt) for table in tables}
    there = {name: table for name, table in new.items() if (folder / table.file).is_file()}
    shown = {name: asdict(table) for name, table in (shown_tables(folder) | there).items()}
    write_text(folder / _SHOWN, json.dumps(shown, indent=1) + "\n")


def _score_names(file: Path) -> list[str]:
    try:
        with open_table(file) as table:
            return [name for name in table.schema_arrow.names if name not in (PIXELS, PROMPT)]
    except FileNotFoundError:
        return []


def _keys(pixels: pa.Array, prompts: pa.Array | None) -> Keys:
    """Return what rows are looked up by: hashes of pixels, where wanted with those of prompts."""
    if prompts is None:
        return as_keys(pixels)
    return as_keys(
        pc.binary_join_element_wise(
            pc.utf8_slice_codeunits(pixels, 0, _PIXELS_DIGITS), pc.utf8_slice_codeunits(prompts, 0, _PROMPT_DIGITS), ""
        )
    )
