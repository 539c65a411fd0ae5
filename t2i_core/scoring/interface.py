"""The shape of a scorer: a batch of images in, columns of scores out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

# What a score may be; None: there is none for this image.
Score = float | int | bool | str | None
Columns = Mapping[str, Sequence[Score]]


@dataclass(frozen=True, slots=True, eq=False)
class ScoredImage:
    """An image to score: pixels (height, width, 3), and the prompt that it was generated from."""

    pixels: npt.NDArray[np.uint8]
    prompt: str


class Scorer(Protocol):
    """Something that scores images.

    Attributes:
        name: letters, digits and underscores; scores of the same name take each other's place in `images.parquet`.
        version: SHA-256 of what decides the scores: the version of the code, the files of the model.
        reads_prompt: whether a score belongs to the image together with its prompt, or to the image alone.
    """

    @property
    def name(self) -> str: ...  # noqa: D102

    @property
    def version(self) -> str: ...  # noqa: D102

    @property
    def reads_prompt(self) -> bool: ...  # noqa: D102

    def score(self, images: Sequence[ScoredImage]) -> Columns:
        """Return {column: a score for each image}; the names of columns begin with `score_`."""
