"""Which images of a finished output are kept: by a review, a condition, and the best of each prompt."""

import io
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from t2i_core.errors import ConfigError
from t2i_core.options.choose import ChooseOptions
from t2i_core.options.selection import SelectionOptions
from t2i_core.output.condition import Condition, check_column
from t2i_core.output.finished import FinishedOutput, read_finished
from t2i_core.output.own_files import OwnFiles
from t2i_core.output.review import Review, read_review, write_review
from t2i_core.planning.catalog import ImageState
from t2i_core.storage.keys import as_keys
from t2i_core.storage.tables import open_table, read_chunks
from t2i_core.storage.workspace import Workspace

# The states of images that have a picture.
_THERE = [ImageState.GENERATED.value, ImageState.REUSED.value]

CHOICE = "choice.csv"

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Choice:
    """Which images are kept, in data-set order: that of the plan and of `images.parquet`.

    `keep` marks them. `codes` has for each image the index in `reasons` of why it is dropped; 0 where it is kept.
    """

    keep: Mask
    codes: npt.NDArray[np.int32]
    reasons: tuple[str, ...]

    def reason(self, position: int) -> str | None:
        """Return why the image at `position` is dropped; None if it is kept."""
        return self.reasons[self.codes[position]] if self.codes[position] else None

    def counts(self) -> dict[str, int]:
        """Return reason -> how many images it drops, most first."""
        counted = Counter(self.codes[self.codes > 0].tolist())
        return {self.reasons[code]: count for code, count in counted.most_common()}


def choose(finished: FinishedOutput, selection: SelectionOptions) -> Choice:
    """Return which images of an output are kept. Images without a picture never are.

    `images.parquet` is read a chunk at a time; some 30 bytes an image are in memory.

    Raises:
        ConfigError: for a condition, a column or a review that cannot be used.
    """
    return _Chooser(finished, selection).choice()


def check_options(options: ChooseOptions) -> None:
    """Refuse an output that no run finished, and a selection that cannot be used.

    Raises:
        UserError: in one line.
    """
    _Chooser(read_finished(Workspace(options.output)), options)


def write_choice(finished: FinishedOutput, choice: Choice) -> None:
    """Write `choice.csv` into the output: key, keep, path and reason of each image; a review that keeps the same.

    Raises:
        OutputError: where somebody put or edited a file of that name.
    """

    def rows() -> Iterator[tuple[str, bool, str | None, str]]:
        start = 0
        for chunk in read_chunks(finished.provenance, ["key", "path"]):
            codes = choice.codes[start : start + len(chunk)].tolist()
            for key, path, code in zip(chunk["key"].to_pylist(), chunk["path"].to_pylist(), codes, strict=True):
                yield key, code == 0, path, choice.reasons[code]
            start += len(chunk)

    with OwnFiles(finished.workspace).write(CHOICE) as file:
        text = io.TextIOWrapper(file, encoding="utf-8", newline="")
        write_review(text, rows())
        text.detach()


class _Chooser:
    """Applies the rules of a selection, one after the other; an image keeps the first reason that drops it."""

    def __init__(self, finished: FinishedOutput, selection: SelectionOptions) -> None:
        self._file, self._selection = finished.provenance, selection
        with open_table(self._file) as table:
            known = {field.name: field.type for field in table.schema_arrow}
            self._codes = np.zeros(table.metadata.num_rows, np.int32)
        self._reasons = [""]
        self._review = read_review(Path(selection.review)) if selection.review else None
        self._condition = Condition(selection.where, known) if selection.where else None
        self._by = (selection.by or "").removeprefix("-")
        if self._by:
            check_column("by", self._by, known)
            if not (pa.types.is_floating(known[self._by]) or pa.types.is_integer(known[self._by])):
                raise ConfigError([f"by: {self._by} is no column of numbers (it holds {known[self._by]})"])

    def choice(self) -> Choice:
        """Return the result."""
        self._apply_to_chunks()
        if self._selection.limit is not None:
            left = np.flatnonzero(self._codes == 0)[self._selection.limit :]
            self._drop(left, f"limit: beyond the first {self._selection.limit}")
        return Choice(self._codes == 0, self._codes, tuple(self._reasons))

    def _apply_to_chunks(self) -> None:
        """Read the columns that are needed, a chunk at a time, and apply the rules."""
        columns = ["status", *(self._condition.columns if self._condition else []), *(["key"] if self._review else [])]
        columns += ["row", "condition", self._by] if self._by else []
        places: list[npt.NDArray[np.int64]] = []
        values: list[npt.NDArray[np.float64]] = []
        start = 0
        for chunk in read_chunks(self._file, list(dict.fromkeys(columns))):
            self._drop_chunk(start, chunk)
            start += len(chunk)
            if self._by:
                places.append(np.stack([chunk[name].to_numpy() for name in ("row", "condition")]))
                value = pc.cast(chunk[self._by], pa.float64()).fill_null(np.nan)
                values.append(value.to_numpy(zero_copy_only=False))
        if self._by and start:
            begins = (np.diff(np.concatenate(places, axis=1), axis=1, prepend=-1) != 0).any(axis=0)
            self._drop_all_but_best(np.cumsum(begins), np.concatenate(values))

    def _drop_chunk(self, start: int, chunk: pa.RecordBatch) -> None:
        """Apply the rules that concern an image alone."""
        there = np.isin(chunk["status"].to_numpy(zero_copy_only=False), _THERE)
        self._drop(start + np.flatnonzero(~there), "no picture: it failed or was not made yet")
        if self._review:
            self._drop(start + np.flatnonzero(_rejected(self._review, chunk, there)), "review: keep is no")
        if self._condition:
            holds, known = self._condition.holds(chunk)
            self._drop(start + np.flatnonzero(known & ~holds), f"where: does not hold: {self._selection.where}")
            for name in self._condition.columns:
                missing = ~known & chunk[name].is_null().to_numpy(zero_copy_only=False)
                self._drop(start + np.flatnonzero(missing), f"where: {name} has no value")
            self._drop(start + np.flatnonzero(~known), "where: neither true nor false")

    def _drop_all_but_best(self, prompts: npt.NDArray[np.int64], values: npt.NDArray[np.float64]) -> None:
        """Keep the best of each prompt; of equal ones the first."""
        assert self._selection.best_of is not None
        self._drop(np.flatnonzero(np.isnan(values)), f"best of: {self._by} has no value")
        left = np.flatnonzero(self._codes == 0)
        ranked = values[left] if (self._selection.by or "").startswith("-") else -values[left]
        left = left[np.lexsort((ranked, prompts[left]))]
        begins = np.flatnonzero(np.diff(prompts[left], prepend=-1) != 0)
        rank = np.arange(len(left)) - np.repeat(begins, np.diff(begins, append=len(left)))
        count = self._selection.best_of
        self._drop(left[rank >= count], f"best of: not among the best {count} of its prompt by {self._selection.by}")

    def _drop(self, positions: npt.NDArray[np.int64], reason: str) -> None:
        """Note a reason for images that have none yet."""
        positions = positions[self._codes[positions] == 0]
        if len(positions):
            if reason not in self._reasons:
                self._reasons.append(reason)
            self._codes[positions] = self._reasons.index(reason)


def _rejected(review: Review, chunk: pa.RecordBatch, there: Mask) -> Mask:
    keep = review.decisions(as_keys(chunk["key"]))[1]
    return there & ~keep
