"""The plan of a data set: every row as it came, and every image it asks for, on disk as two Parquet files.

Written once for an input and its settings, then read as a stream or by column; prompts never pile up in memory.
"""

import json
import os
import re
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from t2i_core.config import Config, parse_size
from t2i_core.errors import DatasetError, shorten
from t2i_core.presets import Preset
from t2i_core.rows import Rejection, Row
from t2i_core.sampling import Sampling, row_sampling
from t2i_core.spec import ImageSpec, derive_seed, digest
from t2i_core.store import atomic_write

CHUNK = 4096

ROWS = pa.schema(
    [
        ("row", pa.int64()),
        ("line", pa.int64()),
        ("record", pa.string()),  # the row as it came, as JSON
        ("stem", pa.string()),  # what its files are named after
        ("has_images", pa.bool_()),
        ("rejection", pa.string()),  # JSON of Rejection
        ("prompts", pa.string()),  # JSON of [[condition, text, source text], ...]
        ("settings", pa.string()),  # JSON of what the row sets: its Sampling, seed, images_per_prompt
    ]
)
SPECS = pa.schema(
    [
        ("row", pa.int64()),
        ("condition", pa.int32()),
        ("image", pa.int32()),
        ("name", pa.string()),
        ("key", pa.string()),
        ("source_prompt", pa.string()),
        ("model", pa.string()),
        ("prompt", pa.string()),
        ("seed", pa.int64()),
        ("height", pa.int32()),
        ("width", pa.int32()),
        ("steps", pa.int32()),
        ("dtype", pa.string()),
        ("recipe", pa.int32()),
        ("negative_prompt", pa.string()),
        ("guidance_scale", pa.float64()),
        ("true_cfg_scale", pa.float64()),
        ("max_sequence_length", pa.int32()),
        ("scheduler", pa.string()),
        ("adapters", pa.string()),  # JSON of [[sha256, weight], ...]
        ("quantization", pa.string()),
        ("prepare", pa.string()),
    ]
)
SPEC_FIELDS = [name for name in SPECS.names if name in ImageSpec.__dataclass_fields__]

# The part of a recipe that goes into every spec as it is.
RECIPE_FIELDS = ("model", "dtype", "adapters", "quantization", "prepare")

_SAFE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True, slots=True)
class Plan:
    """A reference to a plan on disk, with its totals; small enough for a task result."""

    digest: str
    rows: int
    usable: int
    skipped: int
    rejected: int
    prompts: int
    images: int

    def rows_file(self, plans: Path) -> Path:
        """Where the rows are."""
        return plans / f"{self.digest}.rows.parquet"

    def specs_file(self, plans: Path) -> Path:
        """Where the image specs are, in data-set order."""
        return plans / f"{self.digest}.specs.parquet"

    def exists(self, plans: Path) -> bool:
        """Both files are there."""
        return self.rows_file(plans).is_file() and self.specs_file(plans).is_file()


@dataclass(frozen=True, slots=True)
class Recipe:
    """What all images of a run share: the part of their specs that no row can change."""

    model: str
    dtype: str
    adapters: tuple[tuple[str, float], ...]
    sampling: Sampling
    quantization: str | None = None
    prepare: str | None = None  # SHA-256 of its source


def write_plan(name: str, rows: Iterable[Row], plans: Path, config: Config, recipe: Recipe, preset: Preset) -> Plan:
    """Stream `rows` into `plans/<name>.rows.parquet` and `.specs.parquet`.

    Two passes: a seed depends on how many equal prompts came before, which the first pass learns as one 64-bit number a
    prompt and pandas counts in columns.

    Raises:
        DatasetError: when no row is usable; its message shows the first rejections.
    """
    plan = Plan(name, rows=0, usable=0, skipped=0, rejected=0, prompts=0, images=0)
    with atomic_write(plan.rows_file(plans)) as file:
        rows_writer = _RowsPass(config, recipe, preset)
        write_table(file, ROWS, rows_writer.run(rows))
    counts = rows_writer.counts
    if not counts["usable"] and not counts["skipped"]:
        plan.rows_file(plans).unlink()
        shown = "".join(f"\n  {config.dataset}: {rejection}" for rejection in rows_writer.first_rejections)
        raise DatasetError(f"{config.dataset}: no usable row among {counts['rows']}{shown}")
    with atomic_write(plan.specs_file(plans)) as file:
        images = write_table(file, SPECS, _specs(plan.rows_file(plans), rows_writer.groups, config, recipe))
    return Plan(name, images=images, **counts)


class _RowsPass:
    """First pass: rows as they came, checked against the model, plus a number that is equal for equal prompts."""

    def __init__(self, config: Config, recipe: Recipe, preset: Preset) -> None:
        self.config, self.recipe, self.preset = config, recipe, preset
        self.counts = dict.fromkeys(("rows", "usable", "skipped", "rejected", "prompts"), 0)
        self.groups = array("Q")
        self.first_rejections: list[Rejection] = []
        self._output = Path(os.path.normpath(Path(config.output).absolute()))
        self._stems: set[str] = set()  # only filled where an id column names the files

    def run(self, rows: Iterable[Row]) -> Iterator[dict[str, Any]]:
        for row in rows:
            self.counts["rows"] += 1
            rejection, sampling = row.rejection, self.recipe.sampling
            stem = f"sample{row.index}" if row.id is None else safe_id(row.id)
            if rejection is None and row.id is not None:
                rejection = self._duplicate(row, stem)
            if rejection is None and row.has_images:
                rejection = self._own_image(row)
            if rejection is None:
                sampling, problem = row_sampling(row.settings, sampling, self.preset)
                if problem:
                    rejection = Rejection(row.index, row.line, self.config.settings_key, "", problem)
            if rejection is not None:
                self.counts["rejected"] += 1
                if len(self.first_rejections) < 3:
                    self.first_rejections.append(rejection)
            elif row.has_images:
                self.counts["skipped"] += 1
            else:
                self.counts["usable"] += 1
                self.counts["prompts"] += len(row.prompts)
                self._count_prompts(row, sampling)
            yield {
                "row": row.index,
                "line": row.line,
                "record": row.record,
                "stem": stem,
                "has_images": row.has_images and rejection is None,
                "rejection": json.dumps(asdict(rejection)) if rejection else None,
                "prompts": json.dumps([[p.condition, p.text, p.source_text] for p in row.prompts])
                if rejection is None and row.prompts
                else None,
                "settings": json.dumps(_row_arguments(row, sampling))
                if row.settings.model_fields_set and rejection is None
                else None,
            }

    def _own_image(self, row: Row) -> Rejection | None:
        """Images of this very output may get other names, or be pruned, by the run: no row may rely on them."""
        values = json.loads(row.record or "{}").get(self.config.image_key)
        for path in [values] if isinstance(values, str) else values:
            if isinstance(path, str) and Path(os.path.normpath(Path(path).absolute())).is_relative_to(self._output):
                return Rejection(
                    row.index,
                    row.line,
                    self.config.image_key,
                    shorten(path),
                    "lies in this run's own output, where names change their meaning; choose another --output",
                )
        return None

    def _duplicate(self, row: Row, stem: str) -> Rejection | None:
        # Compared without case: Windows and macOS would write both into one file.
        if stem.casefold() in self._stems:
            return Rejection(
                row.index,
                row.line,
                str(self.config.id_key),
                repr(row.id),
                "an earlier row has this id; make ids unique (letter case does not count)",
            )
        self._stems.add(stem.casefold())
        return None

    def _count_prompts(self, row: Row, sampling: Sampling) -> None:
        if row.settings.seed is not None:
            return
        arguments = asdict(sampling)
        if self.config.sizes:
            arguments |= {"height": row.settings.height, "width": row.settings.width}
        for prompt in row.prompts:
            self.groups.append(int(digest([prompt.text, arguments])[:16], 16))


def _row_arguments(row: Row, sampling: Sampling) -> dict[str, Any]:
    """What a row that sets something for itself asks for, resolved."""
    own = row.settings
    return {
        "seed": own.seed,
        "images_per_prompt": own.images_per_prompt,
        "fixed_size": own.height is not None or own.width is not None,
        "sampling": asdict(sampling),
    }


def _specs(rows_file: Path, groups: "array[int]", config: Config, recipe: Recipe) -> Iterator[dict[str, Any]]:
    """Second pass: the image specs of every usable row, in data-set order."""
    series = pd.Series(np.array(groups, np.uint64))
    occurrences = iter(series.groupby(series).cumcount())
    sizes = [parse_size(size) for size in config.sizes] if config.sizes else None
    shared: dict[str, Any] = {name: getattr(recipe, name) for name in RECIPE_FIELDS}
    shared_json = {"adapters": json.dumps(recipe.adapters)}
    run_sampling = asdict(recipe.sampling)
    for row in stream(rows_file, ["row", "stem", "prompts", "settings"]):
        if row["prompts"] is None:
            continue
        own = json.loads(row["settings"]) if row["settings"] else {}
        explicit_seed = own.get("seed")
        count = own.get("images_per_prompt") or config.images_per_prompt
        arguments = own.get("sampling", run_sampling)
        for condition, text, source in json.loads(row["prompts"]):
            occurrence = int(next(occurrences)) if explicit_seed is None else 0
            for image in range(count):
                seed = (
                    explicit_seed + image
                    if explicit_seed is not None
                    else derive_seed(config.seed, text, occurrence, image)
                )
                if sizes and not own.get("fixed_size"):
                    width, height = sizes[derive_seed("size", seed) % len(sizes)]
                    arguments = arguments | {"width": width, "height": height}
                spec = ImageSpec(prompt=text, seed=seed, **shared, **arguments)
                yield {
                    "row": row["row"],
                    "condition": condition,
                    "image": image,
                    "name": image_name(row["stem"], condition, image),
                    "key": spec.key,
                    "source_prompt": source if source != text else None,
                    **{name: getattr(spec, name) for name in SPEC_FIELDS},
                    **shared_json,
                }


def spec_of(row: dict[str, Any]) -> ImageSpec:
    """A row of the specs file -> the spec."""
    values = {name: row[name] for name in SPEC_FIELDS}
    values["adapters"] = tuple((sha256, weight) for sha256, weight in json.loads(row["adapters"]))
    return ImageSpec(**values)


def image_name(stem: str, condition: int, image: int) -> str:
    """`sample0_condition0/sample0_condition0_0.png`, as DataFlow-MM names it."""
    folder = f"{stem}_condition{condition}"
    return f"{folder}/{folder}_{image}.png"


def safe_id(value: str) -> str:
    """An id as part of a file name. What had to be replaced is made up for by a hash, so that no two ids meet."""
    if _SAFE_ID.fullmatch(value):
        return value
    readable = re.sub(r"[^A-Za-z0-9._-]+", "_", value).strip("._-")[:60]
    return f"{readable or 'id'}-{digest(value)[:12]}"


def batches_of(file: Path, columns: list[str] | None = None) -> Iterator[pa.RecordBatch]:
    """A Parquet file as batches of a few thousand rows, one in memory at a time; columns in the order asked for."""
    with pq.ParquetFile(file) as parquet:
        for batch in parquet.iter_batches(CHUNK, columns=columns):
            yield batch.select(columns) if columns else batch


def stream(file: Path, columns: list[str] | None = None) -> Iterator[dict[str, Any]]:
    """The rows of a Parquet file as dicts, a chunk in memory at a time."""
    for batch in batches_of(file, columns):
        yield from batch.to_pylist()


def write_table(file: Any, schema: pa.Schema, rows: Iterable[dict[str, Any]]) -> int:
    """Stream dicts into a Parquet file, a chunk in memory at a time; returns how many."""
    count = 0
    with pq.ParquetWriter(file, schema, compression="zstd") as writer:
        chunk: list[dict[str, Any]] = []
        for row in rows:
            count += 1
            chunk.append(row)
            if len(chunk) == CHUNK:
                writer.write_batch(pa.RecordBatch.from_pylist(chunk, schema))
                chunk.clear()
        if chunk:
            writer.write_batch(pa.RecordBatch.from_pylist(chunk, schema))
    return count
