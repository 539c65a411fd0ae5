"""Scoring a chunk of images: decode each once, and hand it to every scorer that lacks it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from t2i_core.errors import DamagedImage, UserError
from t2i_core.scoring.interface import Score, ScoredImage, Scorer
from t2i_core.scoring.pending import ScoreItem
from t2i_core.storage.formats import read_image
from t2i_core.storage.image_store import ImageStore
from t2i_core.storage.score_table import PIXELS, PROMPT, mixed_types, prompt_digest


@dataclass(slots=True)
class Results:
    """What one scorer said of images. `failures`: key of an image -> why it has no scores."""

    items: list[ScoreItem] = field(default_factory=list)
    columns: dict[str, list[Score]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)

    def add(self, items: Sequence[ScoreItem], columns: dict[str, list[Score]]) -> None:
        """Add the scores of some images; a column that they lack, or that is new, is filled up with None."""
        for name in columns:
            self.columns.setdefault(name, [None] * len(self.items))
        for name, values in self.columns.items():
            values += columns.get(name, [None] * len(items))
        self.items += items

    def extend(self, other: "Results") -> None:
        """Add the results of other images."""
        self.add(other.items, other.columns)
        self.failures |= other.failures

    def table(self, *, reads_prompt: bool) -> pa.Table:
        """Return the scores with the columns of hashes.

        Raises:
            ConfigError: for a column that holds numbers and texts.
        """
        hashes: dict[str, list[str]] = {PIXELS: [item.pixels_sha256 for item in self.items]}
        if reads_prompt:
            hashes[PROMPT] = [prompt_digest(item.prompt) for item in self.items]
        columns = {name: pa.array(values, pa.string()) for name, values in hashes.items()}
        for name, values in self.columns.items():
            try:
                columns[name] = pa.array(values)
            except (pa.ArrowInvalid, pa.ArrowTypeError):
                raise mixed_types(name) from None
        return pa.table(columns)


@dataclass(frozen=True, slots=True)
class Decoded:
    """A batch of decoded images. `torn`: key of an image whose file is damaged -> what is wrong with it."""

    images: list[tuple[ScoreItem, ScoredImage]]
    torn: dict[str, str]


def decode(images: ImageStore, items: Sequence[ScoreItem]) -> Decoded:
    """Read the images of a batch."""
    decoded = Decoded([], {})
    for item in items:
        try:
            pixels = np.asarray(read_image(images.read(item.key) or b"").image)
            decoded.images.append((item, ScoredImage(pixels, item.prompt)))
        except DamagedImage as error:
            decoded.torn[item.key] = f"its file is damaged ({error}); run text2image, which makes it again"
    return decoded


def score_decoded(scorers: Sequence[Scorer], decoded: Decoded) -> list[Results]:
    """Return the results of each scorer for a batch. An image that one of them cannot score fails alone.

    Raises:
        UserError: where a scorer cannot be used at all.
    """
    results = []
    for scorer in scorers:
        result = Results(failures=dict(decoded.torn))
        for part in _scored(scorer, decoded.images):
            result.extend(part)
        results.append(result)
    return results


def _scored(scorer: Scorer, images: Sequence[tuple[ScoreItem, ScoredImage]]) -> Iterator[Results]:
    """Yield the scores of all images, or where that fails, of each alone."""
    if not images:
        return
    result = Results()
    try:
        columns = scorer.score([image for _, image in images])
        result.add([item for item, _ in images], {name: list(values) for name, values in columns.items()})
    except UserError:
        raise
    except Exception as error:  # whatever a model or the user's function raises
        if len(images) > 1:
            for image in images:
                yield from _scored(scorer, [image])
            return
        result.failures[images[0][0].key] = f"{type(error).__name__}: {error}"
    yield result
