"""Rows -> image specs with their keys: the writer of a plan."""

import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from itertools import chain, islice
from pathlib import Path
from typing import Any

import pyarrow as pa

from t2i_core.config import Config
from t2i_core.dataset.rows import Rejection, Row
from t2i_core.errors import DatasetError, shorten
from t2i_core.models.as_asked import pixels_version
from t2i_core.models.presets import Preset
from t2i_core.models.sampling import doubtful_settings, row_sampling
from t2i_core.planning.file_names import safe_id
from t2i_core.planning.plan import ROWS, SPECS, Plan, rows_file, segment_rows, specs_file
from t2i_core.planning.spec_maker import SpecMaker, UsableRow
from t2i_core.spec import GenerationSettings, Sampling
from t2i_core.storage import tables
from t2i_core.storage.tables import table_writer

log = logging.getLogger(__name__)

REJECTIONS_SHOWN = 3

# A row as the plan keeps it, and what it asks for: None where that is nothing.
CheckedRow = tuple[dict[str, Any], UsableRow | None]


def write_plan(
    name: str,
    rows: Iterable[Row],
    plans: Path,
    config: Config,
    settings: GenerationSettings,
    preset: Preset,
    on_segment: Callable[[int, int], None] = lambda segments, images: None,
) -> Plan:
    """Stream `rows` into the files of the plan `name` in the folder `plans`, and return the plan.

    `on_segment` is told how many segments of the plan are written, and how many images they have, after each.

    Raises:
        DatasetError: when no row is usable; its message shows the first rejections.
    """
    checks = _RowChecks(config, settings, preset)
    specs = SpecMaker(config, settings, pixels_version(preset.pipeline_class))
    checked = checks.run(rows)
    segments, images = 0, 0
    for first in checked:
        rest = islice(checked, segment_rows(segments) - 1)
        with (
            # Parts that start together all write them.
            table_writer(rows_file(plans, name, segments), ROWS, keep_equal=True) as rows_writer,
            table_writer(specs_file(plans, name, segments), SPECS, keep_equal=True) as specs_writer,
        ):
            for chunk in _chunks(chain([first], rest)):
                rows_writer.write_batch(pa.RecordBatch.from_pylist([row for row, _ in chunk], ROWS))
                for batch in specs.chunks([usable for _, usable in chunk if usable]):
                    specs_writer.write_batch(batch)
                    images += len(batch)
        segments += 1
        on_segment(segments, images)
    for doubt in checks.doubts:
        log.warning("settings  %s", doubt)
    counts = checks.counts
    plan = Plan(name, images=images, segments=segments, **counts)
    if not counts["usable"] and not counts["skipped"]:
        for path in plan.files(plans):
            path.unlink(missing_ok=True)  # another part may have met the same
        shown = "".join(f"\n  {rejection}" for rejection in checks.first_rejections)
        raise DatasetError(f"{config.dataset_title}: no usable row among {counts['rows']}{shown}")
    return plan


def _chunks(rows: Iterator[CheckedRow]) -> Iterator[list[CheckedRow]]:
    while chunk := list(islice(rows, tables.CHUNK_ROWS)):
        yield chunk


class _RowChecks:
    """Rows as they came, checked against the model, counted."""

    def __init__(self, config: Config, settings: GenerationSettings, preset: Preset) -> None:
        self.config, self.settings, self.preset = config, settings, preset
        self.counts = dict.fromkeys(("rows", "usable", "skipped", "rejected", "prompts"), 0)
        self.first_rejections: list[str] = []
        self.doubts: list[str] = []  # the first row's
        self._output = Path(os.path.normpath(Path(config.output).absolute()))
        self._stems: set[str] = set()  # only filled where an id column names the files

    def run(self, rows: Iterable[Row]) -> Iterator[CheckedRow]:
        """Yield each row as the plan keeps it, and what it asks for."""
        for row in rows:
            stem = f"sample{row.index}" if row.id is None else safe_id(row.id)
            rejection, sampling = self._check(row, stem)
            self._count(row, rejection)
            usable = rejection is None and not row.has_images
            kept = {
                "row": row.index,
                "line": row.line,
                "file": row.file,
                "json": row.json,
                "has_images": row.has_images and rejection is None,
                "rejection": json.dumps(asdict(rejection)) if rejection else None,
            }
            yield kept, UsableRow(row, stem, sampling) if usable else None

    def _check(self, row: Row, stem: str) -> tuple[Rejection | None, Sampling]:
        """Return why a row cannot be used, or None; and its sampling settings."""
        rejection, sampling = row.rejection, self.settings.sampling
        if rejection is None and row.has_images:
            rejection = self._image_of_this_output(row)
        if rejection is None:
            sampling, problem = row_sampling(row.settings, sampling, self.preset)
            if problem:
                rejection = Rejection(row.index, row.line, self.config.settings_key, "", problem)
            elif sampling is not self.settings.sampling and not self.doubts:
                self.doubts = [f"row {row.index}: {doubt}" for doubt in self._doubts(row, sampling)]
        # Last: a row that is rejected for something else does not take its id from a later one.
        if rejection is None and row.id is not None:
            rejection = self._duplicate_id(row, stem)
        return rejection, sampling

    def _doubts(self, row: Row, sampling: Sampling) -> list[str]:
        """Return what of a row's own settings may have no effect, and what the run was not warned of already."""
        known = doubtful_settings(self.config, self.settings.sampling, self.preset)
        return [doubt for doubt in doubtful_settings(row.settings, sampling, self.preset) if doubt not in known]

    def _count(self, row: Row, rejection: Rejection | None) -> None:
        self.counts["rows"] += 1
        if rejection is not None:
            self.counts["rejected"] += 1
            if len(self.first_rejections) < REJECTIONS_SHOWN:
                self.first_rejections.append(f"{row.file or self.config.dataset_title}: {rejection}")
        elif row.has_images:
            self.counts["skipped"] += 1
        else:
            self.counts["usable"] += 1
            self.counts["prompts"] += len(row.prompts)

    def _image_of_this_output(self, row: Row) -> Rejection | None:
        """Reject a row that names images of this very output: the run may rename or delete them."""
        values = json.loads(row.json or "{}").get(self.config.image_key)
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

    def _duplicate_id(self, row: Row, stem: str) -> Rejection | None:
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
