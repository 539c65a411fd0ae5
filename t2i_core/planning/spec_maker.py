"""Rows -> image specs with their seeds and keys, in columns."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import numpy as np
import pyarrow as pa

from t2i_core.config import Config
from t2i_core.dataset.rows import Prompt, Row
from t2i_core.hashing import canonical_json, derive_seed
from t2i_core.options.values import parse_size
from t2i_core.planning.file_names import image_name
from t2i_core.planning.occurrences import Occurrences
from t2i_core.planning.plan import SPECS
from t2i_core.spec import GenerationSettings, ImageSpec, KeyMaker, ModelSettings, Sampling
from t2i_core.storage import tables

# What differs from image to image even where their settings are the same.
_OWN = ("row", "condition", "image", "name", "key", "source_prompt", "prompt", "seed")
# Different settings that are kept ready; rows that each have settings of their own must not pile up.
_SERIES_KEPT = 1000


@dataclass(frozen=True, slots=True)
class UsableRow:
    """A row that asks for images. `stem`: what its files are named after. `sampling`: the run's, with the row's own."""

    row: Row
    stem: str
    sampling: Sampling

    @property
    def has_own_size(self) -> bool:
        """Whether the row itself says how large its images are."""
        return self.row.settings.height is not None or self.row.settings.width is not None


class _Series:
    """Image specs that differ in prompt and seed alone. `columns`: what a row of the plan holds of the others."""

    def __init__(self, example: ImageSpec) -> None:
        self.keys = KeyMaker(example)
        self.columns = {name: value for name, value in example.to_row().items() if name not in _OWN}


class SpecMaker:
    """Makes the image specs of a data set, whose rows it is given in their order.

    A seed depends on how many equal prompts came before; of each prompt without a seed of its own, 64 bits are kept.
    """

    def __init__(self, config: Config, settings: GenerationSettings, pixels_version: int) -> None:
        self._config = config
        self._sizes = [parse_size(size) for size in config.sizes] if config.sizes else []
        shared = {item.name: getattr(settings, item.name) for item in fields(ModelSettings)}
        self._shared = shared | {"pixels_version": pixels_version}
        self._occurrences = Occurrences()
        self._series: dict[tuple[Sampling, int], _Series] = {}
        self._groups: dict[tuple[Any, ...], Any] = {}  # settings -> SHA-256 of them, to go on from with a prompt

    def chunks(self, rows: Sequence[UsableRow]) -> Iterator[pa.RecordBatch]:
        """Yield the image specs of the next rows, in chunks with the columns of `SPECS`."""
        occurrences = iter(self._occurrences.count(self._prompt_groups(rows)).tolist())
        columns: dict[str, list[Any]] = {name: [] for name in _OWN}
        series: list[_Series] = []
        for image in self._images(rows, occurrences):
            *values, its_series = image
            for name, value in zip(_OWN, values, strict=True):
                columns[name].append(value)
            series.append(its_series)
            if len(series) == tables.CHUNK_ROWS:
                yield _chunk(columns, series)
                columns, series = {name: [] for name in _OWN}, []
        if series:
            yield _chunk(columns, series)

    def _images(self, rows: Sequence[UsableRow], occurrences: Iterator[int]) -> Iterator[tuple[Any, ...]]:
        """Yield (the values of `_OWN`, the series) of each image."""
        for usable in rows:
            row, own = usable.row, usable.row.settings
            for prompt in row.prompts:
                occurrence = next(occurrences) if own.seed is None else 0
                for image in range(own.images_per_prompt or self._config.images_per_prompt):
                    seed = self._seed(prompt, own.seed, occurrence, image)
                    series = self._series_of(usable, seed)
                    yield (
                        row.index,
                        prompt.condition,
                        image,
                        image_name(usable.stem, prompt.condition, image),
                        series.keys.key(prompt.text, seed),
                        prompt.source_text if prompt.source_text != prompt.text else None,
                        prompt.text,
                        seed,
                        series,
                    )

    def _seed(self, prompt: Prompt, explicit: int | None, occurrence: int, image: int) -> int:
        if explicit is not None:
            return explicit + image
        return derive_seed(self._config.seed, prompt.text, occurrence, image)

    def _series_of(self, usable: UsableRow, seed: int) -> _Series:
        size = -1
        if self._sizes and not usable.has_own_size:
            size = derive_seed("size", seed) % len(self._sizes)
        found = self._series.get((usable.sampling, size))
        if found is None:
            if len(self._series) == _SERIES_KEPT:
                self._series.clear()
            sampling = usable.sampling
            if size >= 0:
                width, height = self._sizes[size]
                sampling = replace(sampling, width=width, height=height)
            found = _Series(ImageSpec(prompt="", seed=0, **self._shared, **asdict(sampling)))
            self._series[usable.sampling, size] = found
        return found

    def _prompt_groups(self, rows: Sequence[UsableRow]) -> "np.typing.NDArray[np.uint64]":
        """Return a number for each prompt without an explicit seed: equal where prompt and settings are equal."""
        groups = []
        for usable in rows:
            own = usable.row.settings
            if own.seed is not None:
                continue
            settings = self._settings_hash(usable)
            for prompt in usable.row.prompts:
                hashed = settings.copy()
                hashed.update(prompt.text.encode("utf-8", "surrogatepass"))
                groups.append(hashed.digest()[:8])
        return np.frombuffer(b"".join(groups), np.uint64)

    def _settings_hash(self, usable: UsableRow) -> Any:
        own = usable.row.settings
        sizes = (own.height, own.width) if self._sizes else ()
        found = self._groups.get((usable.sampling, *sizes))
        if found is None:
            if len(self._groups) == _SERIES_KEPT:
                self._groups.clear()
            found = hashlib.sha256(canonical_json([asdict(usable.sampling), sizes]).encode())
            self._groups[usable.sampling, *sizes] = found
        return found


def _chunk(columns: dict[str, list[Any]], series: list[_Series]) -> pa.RecordBatch:
    """Return image specs as a chunk; the columns that a series shares are written once for each series."""
    numbers: dict[int, int] = {}
    index = np.array([numbers.setdefault(id(one), len(numbers)) for one in series], np.int64)
    different = list({id(one): one.columns for one in series}.values())
    shared = pa.RecordBatch.from_pylist(different, pa.schema([SPECS.field(name) for name in different[0]]))
    shared = shared.take(pa.array(index))
    arrays = [
        pa.array(columns[name], SPECS.field(name).type) if name in columns else shared[name] for name in SPECS.names
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=SPECS)
