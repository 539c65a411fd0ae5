"""Several outputs beside each other: settings, scores and differences, and the pictures of some prompts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from t2i_core.errors import ConfigError, OutputError
from t2i_core.options.compare import CompareOptions
from t2i_core.output.condition import check_column
from t2i_core.output.finished import FinishedOutput, read_finished
from t2i_core.output.matching import Index, match_images
from t2i_core.output.score_columns import is_score
from t2i_core.storage.score_table import PIXELS
from t2i_core.storage.tables import open_table, read_chunks
from t2i_core.storage.workspace import Workspace

# The columns of `images.parquet` that are settings, as people call them.
_SETTINGS = (
    *("model_name", "commit", "dtype", "steps", "guidance_scale", "true_cfg_scale", "negative_prompt", "height"),
    *("width", "scheduler", "scheduler_options", "max_sequence_length", "adapters", "quantization", "prepare"),
    *("attention", "tf32", "step_cache", "batch_size", "device", "versions", "tuning"),
)
_SHOWN = ("row", "condition", "image", "prompt", "key", "seed", "status", "error", "pixels_sha256")
_VALUES_SHOWN = 3


@dataclass(frozen=True, slots=True)
class ScoreSummary:
    """A score over all images that belong together and have it in every run.

    `means`, and `higher`: the share of images that score higher than in the first run; one for each run.
    """

    name: str
    count: int
    means: list[float]
    higher: list[float]


@dataclass(frozen=True, slots=True)
class Shown:
    """An image of one run. `scores`: by column; `differences`: from the first run's; `same`: it has its pixels."""

    values: Mapping[str, Any]
    scores: Mapping[str, Any]
    differences: Mapping[str, float]
    same: bool


@dataclass(frozen=True, slots=True)
class Comparison:
    """What the page shows. `settings`: name -> value of each run, of those that differ."""

    outputs: Sequence[FinishedOutput]
    images: Sequence[int]  # of each run
    shared: int  # images that belong together
    identical: Sequence[int]  # of each run: those with the pixels of the first run's
    settings: Mapping[str, Sequence[str]]
    scores: Sequence[ScoreSummary]
    rows: Sequence[Sequence[Shown]]


def compare(outputs: Sequence[FinishedOutput], by: str | None, limit: int) -> Comparison:
    """Compare outputs over all images whose prompts they share, and choose which are shown.

    Args:
        outputs: of at least two runs.
        by: the column by which the images that differ most come first; None: images spread over the data set.
        limit: how many images of each run are shown.

    Raises:
        OutputError: for outputs that share no prompt.
        ConfigError: for a column that one of them does not have, or that is not numeric.
    """
    tables = [output.provenance for output in outputs]
    matched = match_images(tables)
    if not matched.shape[1]:
        folders = ", ".join(str(output.workspace.root) for output in outputs)
        raise OutputError(f"outputs: {folders} have no prompt in common; compare runs over the same prompts")
    schemas = [_schema(table) for table in tables]
    column = (by or "").removeprefix("-")
    if column:
        _check_numeric(column, schemas)
    names = [name for name in schemas[0].names if all(name in schema.names for schema in schemas)]
    scores = [name for name in names if is_score(name) and _is_number(schemas[0].field(name).type)]
    read = list(dict.fromkeys([*scores, *([column] if column else [])]))
    numbers = {name: _numbers(tables, name, matched) for name in read}
    chosen = _chosen(numbers.get(column), matched.shape[1], limit)
    pixels = [_values(table, [PIXELS], rows)[PIXELS] for table, rows in zip(tables, matched, strict=True)]
    return Comparison(
        outputs,
        [output.plan.images for output in outputs],
        matched.shape[1],
        [int(pc.sum(pc.fill_null(pc.equal(pixels[0], other), False)).as_py() or 0) for other in pixels],
        _differing_settings(tables, schemas),
        [summary for name in scores if (summary := _summary(name, numbers[name]))],
        _rows(tables, matched[:, chosen], read),
    )


def check_options(options: CompareOptions) -> None:
    """Refuse outputs that no run finished, and a column that one of them does not have.

    Raises:
        UserError: in one line.
    """
    outputs = [read_finished(Workspace(output)) for output in options.outputs]
    if options.by:
        _check_numeric(options.by.removeprefix("-"), [_schema(output.provenance) for output in outputs])


def _chosen(numbers: npt.NDArray[np.float64] | None, count: int, limit: int) -> Index:
    """Return which images are shown: those that differ most, or some spread over all."""
    if numbers is None:
        return np.unique(np.linspace(0, count - 1, min(count, limit)).astype(np.int64))
    known = ~np.isnan(numbers).any(axis=0)
    spread = np.where(known, numbers.max(axis=0) - numbers.min(axis=0), -1)
    return np.argsort(-spread, kind="stable")[:limit]


def _summary(name: str, numbers: npt.NDArray[np.float64]) -> ScoreSummary | None:
    known = numbers[:, ~np.isnan(numbers).any(axis=0)]
    if not known.shape[1]:
        return None
    higher = [float((values > known[0]).mean()) for values in known]
    return ScoreSummary(name, known.shape[1], known.mean(axis=1).tolist(), higher)


def _rows(tables: Sequence[Path], chosen: Index, scores: Sequence[str]) -> list[list[Shown]]:
    columns = [_values(table, [*_SHOWN, *scores], rows).to_pylist() for table, rows in zip(tables, chosen, strict=True)]
    return [[_shown(values, row[0], scores) for values in row] for row in zip(*columns, strict=True)]


def _shown(values: Mapping[str, Any], first: Mapping[str, Any], scores: Sequence[str]) -> Shown:
    own = {name: values[name] for name in scores if values[name] is not None}
    differences = {name: own[name] - first[name] for name in own if first[name] is not None}
    same = values["pixels_sha256"] is not None and values["pixels_sha256"] == first["pixels_sha256"]
    return Shown(values, own, differences, same)


def _differing_settings(tables: Sequence[Path], schemas: Sequence[pa.Schema]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name in _SETTINGS:
        if all(name in schema.names for schema in schemas):
            values = [_distinct(table, name) for table in tables]
            if len(set(values)) > 1:
                found[name] = values
    return found


def _distinct(table: Path, name: str) -> str:
    """Return the values of a column that are no null: of many the first."""
    values: dict[Any, None] = {}
    for chunk in read_chunks(table, [name, "status"]):
        values |= dict.fromkeys(chunk[name].unique().drop_null().to_pylist())
        if len(values) > _VALUES_SHOWN:
            break
    shown = [f"{value:g}" if isinstance(value, float) else str(value) for value in list(values)[:_VALUES_SHOWN]]
    return ", ".join(shown) + (", ..." if len(values) > _VALUES_SHOWN else "") or "none"


def _numbers(tables: Sequence[Path], name: str, matched: Index) -> npt.NDArray[np.float64]:
    columns = (_values(table, [name], rows)[name] for table, rows in zip(tables, matched, strict=True))
    return np.stack([pc.cast(column, pa.float64()).fill_null(np.nan).to_numpy() for column in columns])


def _values(table: Path, columns: list[str], rows: Index) -> pa.Table:
    """Return columns of an `images.parquet` at these rows, in their order; a chunk of it in memory at a time."""
    order = np.argsort(rows, kind="stable")
    parts, start = [], 0
    wanted = rows[order]
    for chunk in read_chunks(table, columns):
        here = wanted[np.searchsorted(wanted, start) : np.searchsorted(wanted, start + len(chunk))]
        parts.append(chunk.take(pa.array(here - start)))
        start += len(chunk)
    back = np.empty(len(order), np.int64)
    back[order] = np.arange(len(order))
    return pa.Table.from_batches(parts).take(pa.array(back))


def _check_numeric(column: str, schemas: Sequence[pa.Schema]) -> None:
    for schema in schemas:
        check_column("by", column, schema.names)
        if not _is_number(schema.field(column).type):
            raise ConfigError([f"by: {column} is no column of numbers (it holds {schema.field(column).type})"])


def _schema(table: Path) -> pa.Schema:
    with open_table(table) as file:
        return file.schema_arrow


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_floating(kind) or pa.types.is_integer(kind))
