"""The numbers of the report: `report.json`, and what the gallery's report page shows of them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from t2i_core.planning.catalog import ImageState
from t2i_core.reports.gallery.data import GalleryData, Source, looks_shown
from t2i_core.reports.gallery.packing import prompt_lengths
from t2i_core.storage.keys import as_keys
from t2i_core.storage.tables import open_table, read_chunks
from t2i_core.storage.thumbnails import LOOKS

BINS = 30
# Errors are listed up to here, the most frequent first.
ERRORS = 20


def report_numbers(source: Source, gallery: GalleryData, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return what `report.json` holds. One column of the table is in memory at a time.

    Args:
        facts: what is known of the run: data set, model and rows, which come first.
    """
    counts = gallery.counts
    statuses = {state.value: counts.statuses.get(state.value, 0) for state in ImageState}
    images = {"images": counts.images, **statuses, **counts.flags, "without_thumbnail": counts.without_thumbnail}
    seconds = _numbers(source.table, "seconds")
    sizes = sorted(counts.sizes.items(), key=lambda item: -item[1])
    errors = sorted(counts.errors.items(), key=lambda item: -item[1])
    return {
        **facts,
        "images": images,
        "prompts": counts.prompts,
        "seeds": _distinct(source.table, "seed"),
        "sizes": [{"size": size, "images": number} for size, number in sizes],
        "models": counts.models,
        "errors": [{"error": error, "images": number} for error, number in errors[:ERRORS]],
        "file_bytes": int(_numbers(source.table, "file_size").sum()),
        "runs": _runs(source.table),
        "images_per_second": round(len(seconds) / total, 4) if (total := float(seconds.sum())) else None,
        "seconds": distribution(seconds),
        "tokens": distribution(_tokens(source.table)),
        **_looks(source, looks_shown(gallery.scores)),
        "scores": {name: distribution(_numbers(source.table, name)) for name in gallery.scores},
    }


def distribution(values: npt.NDArray[Any]) -> dict[str, Any] | None:
    """Return mean, percentiles and a histogram of numbers; None where there are none."""
    values = values[np.isfinite(values)]
    if not len(values):
        return None
    low, p5, median, p95, high = np.percentile(values, [0, 5, 50, 95, 100]).tolist()
    whole = bool((values == np.round(values)).all())
    counts, edges = np.histogram(values, _edges(low, high, whole=whole))
    return {
        "images": len(values),
        "mean": _short(values.mean()),
        "standard_deviation": _short(values.std()),
        **{
            name: _short(value)
            for name, value in (("lowest", low), ("p5", p5), ("median", median), ("p95", p95), ("highest", high))
        },
        "histogram": {"edges": [_short(edge) for edge in edges], "images": counts.tolist()},
    }


def _edges(low: float, high: float, *, whole: bool) -> npt.NDArray[np.float64]:
    """Return the edges of up to `BINS` bins; whole numbers get bins of whole numbers, one number in the middle."""
    if whole:
        width = max(1, int(np.ceil((high - low + 1) / BINS)))
        return np.arange(low, high + width + 1, width)[: BINS + 1] - 0.5
    return np.linspace(low, high if high > low else low + 1e-3, BINS + 1)


def _numbers(table: Path, column: str) -> npt.NDArray[np.float64]:
    """Return the values of a column of the images that have a picture, nulls left out."""
    parts = []
    for chunk in read_chunks(table, [column, "path"]):
        values = chunk[column].filter(pc.is_valid(chunk["path"])).drop_null().cast(pa.float64())
        parts.append(values.to_numpy())
    return np.concatenate(parts) if parts else np.empty(0)


def _distinct(table: Path, column: str) -> int:
    with open_table(table) as file:
        return int(pc.count_distinct(file.read([column])[column]).as_py())


def _tokens(table: Path) -> npt.NDArray[np.int32]:
    parts = [prompt_lengths(chunk["prompt_lengths"])[0] for chunk in read_chunks(table, ["prompt_lengths"])]
    tokens = np.concatenate(parts) if parts else np.empty(0, np.int32)
    return tokens[tokens >= 0]


def _looks(source: Source, names: Sequence[str]) -> dict[str, Any]:
    """Return how the pictures look, by `names` of `LOOKS`."""
    found = []
    for chunk in read_chunks(source.table, ["pixels_sha256"]):
        rows = source.thumbnails.find(as_keys(chunk["pixels_sha256"].fill_null("")))
        found.append(rows[rows >= 0])
    rows = np.concatenate(found) if found else np.empty(0, np.int64)
    return {name: distribution(source.thumbnails.looks[rows, LOOKS.index(name)]) for name in names}


def _runs(table: Path) -> list[dict[str, Any]]:
    """Return for each run: how many pictures are its, from when to when it made them, and the device's seconds."""
    runs: dict[str, dict[str, Any]] = {}
    for chunk in read_chunks(table, ["run", "created", "seconds", "path"]):
        made = chunk.filter(pc.is_valid(chunk["path"]))
        totals = (
            pa.Table.from_batches([made])
            .group_by("run")
            .aggregate([("created", "min"), ("created", "max"), ("seconds", "sum"), ("run", "count")])
        )
        for row in totals.to_pylist():
            run = runs.setdefault(row["run"], {"images": 0, "first": None, "last": None, "device_seconds": 0.0})
            run["images"] += row["run_count"]
            run["first"] = min(filter(None, (run["first"], row["created_min"])), default=None)
            run["last"] = max(filter(None, (run["last"], row["created_max"])), default=None)
            run["device_seconds"] += row["seconds_sum"] or 0.0
    return [
        {"run": name, **values, "device_seconds": round(values["device_seconds"], 3)}
        for name, values in sorted(runs.items(), key=lambda item: item[1]["first"] or "")
    ]


def _short(value: float) -> float:
    return float(f"{value:.6g}")
