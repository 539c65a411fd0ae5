"""The images that an export may hold, as a stream, with the columns of their rows, facts and scores."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from t2i_core.errors import OutputError
from t2i_core.export.kinds import Kind, kind_of_column
from t2i_core.json_values import plain
from t2i_core.output.finished import AGAIN
from t2i_core.planning.catalog import Catalog, CatalogImage
from t2i_core.storage.tables import open_table, read_rows

SCORE = "score_"
# Of a key, in an id: 128 bits.
ID_DIGITS = 32
ID = np.dtype(f"S{ID_DIGITS + 8}")  # with room for a number, where rows share an image
Ids = npt.NDArray[np.bytes_]
# Of the arguments of an image: exported under their names, with their kinds.
_ARGUMENTS: dict[str, Kind] = {
    "negative_prompt": "text", "width": "int", "height": "int", "steps": "int", "guidance_scale": "float",
}  # fmt: skip
_FACTS = ("seed", "model_name", "pixels_sha256")


@dataclass(frozen=True, slots=True)
class Candidate:
    """An image of the data set with its row. `index` counts the images of the data set from 0."""

    index: int
    image: CatalogImage
    row: Mapping[str, Any]
    scores: Mapping[str, Any]

    @property
    def prompt(self) -> str:
        """The prompt as the user wrote it, before `--prompt-template`."""
        return str(self.image.arguments["source_prompt"] or self.image.arguments["prompt"])

    def settings(self) -> Iterator[tuple[str, str]]:
        """Yield (name, value) of what the image was made with."""
        arguments = self.image.arguments
        yield "size", f"{arguments['width']}x{arguments['height']}"
        for name in ("steps", "guidance_scale", "scheduler", "dtype", "quantization"):
            if arguments[name] is not None:
                yield name, f"{arguments[name]:g}" if isinstance(arguments[name], float) else str(arguments[name])

    def own(self, text_column: str, text: str) -> dict[str, Any]:
        """Return the columns of ours; `text` is what a trainer learns with the image."""
        arguments = self.image.arguments
        return {
            text_column: text,
            "prompt" if text_column != "prompt" else "image_prompt": arguments["prompt"],
            **{name: arguments[name] for name in _ARGUMENTS},
            "seed": self.image.facts["seed"],
            "model": self.image.facts["model_name"],
            "key": self.image.picture,
            **self.scores,
        }


@dataclass(frozen=True, slots=True)
class Sample:
    """An image of the export. `id` is unique in it, and the same in every export; it holds no dot."""

    id: str
    key: str
    split: int
    position: int  # among the samples, in data-set order
    text: str
    values: Mapping[str, Any]  # a row of the export: every column


class Candidates:
    """The images of a finished output, in data-set order."""

    def __init__(self, catalog: Catalog, provenance: Path) -> None:
        """`provenance`: `images.parquet`, in which the scores are; it has a row for each image of the catalog."""
        self.catalog, self._provenance = catalog, provenance
        with open_table(provenance) as table:
            schema = table.schema_arrow
        self.scores: dict[str, Kind] = {
            name: kind_of_column(schema.field(name).type) for name in schema.names if name.startswith(SCORE)
        }

    def own_columns(self, text_column: str) -> dict[str, Kind]:
        """Return name -> kind of the columns of ours, in their order."""
        prompt = "prompt" if text_column != "prompt" else "image_prompt"
        kinds: dict[str, Kind] = {text_column: "text", prompt: "text", **_ARGUMENTS}
        return {**kinds, "seed": "int", "model": "text", "key": "text", **self.scores}

    def read(self, only: npt.NDArray[np.bool_] | None = None) -> Iterator[Candidate]:
        """Yield the images; with `only`, those that it marks.

        Raises:
            OutputError: if the scores are those of other images.
        """
        index = 0
        scores = self._scores()
        for row in self.catalog.rows(_FACTS):
            values: dict[str, Any] | None = None
            for image in row.images:
                known = next(scores)
                if known.pop("key", None) not in (None, image.picture or image.key):
                    raise OutputError(f"output: {self._provenance} is not of the last run; {AGAIN}")
                if only is None or only[index]:
                    values = values if values is not None else json.loads(row.json or "{}")
                    yield Candidate(index, image, values, known)
                index += 1

    def _scores(self) -> Iterator[dict[str, Any]]:
        if not self.scores:
            while True:
                yield {}
        for row in read_rows(self._provenance, ["key", *self.scores]):
            yield {name: plain(value) for name, value in row.items()}  # a score that is no number is null
