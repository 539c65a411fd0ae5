"""Rows -> image specs with their keys: the writer of a plan."""

import json
import logging
import os
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from t2i_core.config import Config
from t2i_core.dataset.rows import Rejection, Row
from t2i_core.errors import DatasetError, shorten
from t2i_core.hashing import derive_seed, digest
from t2i_core.models.as_asked import pixels_version
from t2i_core.models.presets import Preset
from t2i_core.models.sampling import doubtful_settings, row_sampling
from t2i_core.options.values import parse_size
from t2i_core.planning.file_names import image_name, safe_id
from t2i_core.planning.plan import ROWS, SPECS, Plan
from t2i_core.spec import GenerationSettings, ImageSpec, ModelSettings, Sampling
from t2i_core.storage.files import atomic_write
from t2i_core.storage.tables import read_rows, write_rows

log = logging.getLogger(__name__)

REJECTIONS_SHOWN = 3


def write_plan(
    name: str, rows: Iterable[Row], plans: Path, config: Config, settings: GenerationSettings, preset: Preset
) -> Plan:
    """Stream `rows` into the files of the plan `name` in the folder `plans`, and return the plan.

    Two passes: a seed depends on how many equal prompts came before, which the first pass learns as one 64-bit number a
    prompt and pandas counts in columns.

    Raises:
        DatasetError: when no row is usable; its message shows the first rejections.
    """
    plan = Plan(name, rows=0, usable=0, skipped=0, rejected=0, prompts=0, images=0)
    with atomic_write(plan.rows_file(plans)) as file:
        first_pass = _RowsPass(config, settings, preset)
        write_rows(file, ROWS, first_pass.run(rows))
    counts = first_pass.counts
    for doubt in first_pass.doubts:
        log.warning("settings  %s", doubt)
    if not counts["usable"] and not counts["skipped"]:
        plan.rows_file(plans).unlink()
        shown = "".join(f"\n  {rejection}" for rejection in first_pass.first_rejections)
        raise DatasetError(f"{config.dataset_title}: no usable row among {counts['rows']}{shown}")
    with atomic_write(plan.specs_file(plans)) as file:
        version = pixels_version(preset.pipeline_class)
        specs = _specs(plan.rows_file(plans), first_pass.prompt_groups, config, settings, version)
        images = write_rows(file, SPECS, specs)
    return Plan(name, images=images, **counts)


class _RowsPass:
    """First pass: rows as they came, checked against the model.

    `prompt_groups` has a number for each prompt without an explicit seed, equal for equal prompts.
    """

    def __init__(self, config: Config, settings: GenerationSettings, preset: Preset) -> None:
        self.config, self.settings, self.preset = config, settings, preset
        self.counts = dict.fromkeys(("rows", "usable", "skipped", "rejected", "prompts"), 0)
        self.prompt_groups = array("Q")
        self.first_rejections: list[str] = []
        self.doubts: list[str] = []  # the first row's
        self._output = Path(os.path.normpath(Path(config.output).absolute()))
        self._stems: set[str] = set()  # only filled where an id column names the files

    def run(self, rows: Iterable[Row]) -> Iterator[dict[str, Any]]:
        """Yield the rows of the rows file."""
        for row in rows:
            stem = f"sample{row.index}" if row.id is None else safe_id(row.id)
            rejection, sampling = self._check(row, stem)
            self._count(row, rejection)
            usable = rejection is None and not row.has_images
            if usable:
                self._group_prompts(row, sampling)
            prompts = [[prompt.condition, prompt.text, prompt.source_text] for prompt in row.prompts]
            yield {
                "row": row.index,
                "line": row.line,
                "file": row.file,
                "json": row.json,
                "stem": stem,
                "has_images": row.has_images and rejection is None,
                "rejection": json.dumps(asdict(rejection)) if rejection else None,
                "prompts": json.dumps(prompts) if usable else None,
                "settings": json.dumps(_own_settings(row, sampling))
                if usable and row.settings.model_fields_set
                else None,
            }

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

    def _group_prompts(self, row: Row, sampling: Sampling) -> None:
        if row.settings.seed is not None:
            return
        arguments = asdict(sampling)
        if self.config.sizes:
            arguments |= {"height": row.settings.height, "width": row.settings.width}
        for prompt in row.prompts:
            self.prompt_groups.append(int(digest([prompt.text, arguments])[:16], 16))


def _own_settings(row: Row, sampling: Sampling) -> dict[str, Any]:
    """Return what a row that sets something for itself asks for, resolved."""
    own = row.settings
    return {
        "seed": own.seed,
        "images_per_prompt": own.images_per_prompt,
        "fixed_size": own.height is not None or own.width is not None,
        "sampling": asdict(sampling),
    }


def _specs(
    rows_file: Path, prompt_groups: "array[int]", config: Config, settings: GenerationSettings, version: int
) -> Iterator[dict[str, Any]]:
    """Yield the image specs of every usable row, in data-set order: the second pass. `version`: that of the pixels."""
    series = pd.Series(np.array(prompt_groups, np.uint64))
    occurrences = iter(series.groupby(series).cumcount())
    sizes = [parse_size(size) for size in config.sizes] if config.sizes else None
    shared = {item.name: getattr(settings, item.name) for item in fields(ModelSettings)}
    run_sampling = asdict(settings.sampling)
    for row in read_rows(rows_file, ["row", "stem", "prompts", "settings"]):
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
                spec = ImageSpec(prompt=text, seed=seed, pixels_version=version, **shared, **arguments)
                yield {
                    "row": row["row"],
                    "condition": condition,
                    "image": image,
                    "name": image_name(row["stem"], condition, image),
                    "key": spec.key,
                    "source_prompt": source if source != text else None,
                    **spec.to_row(),
                }
