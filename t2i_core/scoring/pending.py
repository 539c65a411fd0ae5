"""The images of a data set that still lack scores, in chunks."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from t2i_core.hashing import digest
from t2i_core.planning.catalog import Catalog
from t2i_core.storage.score_table import PIXELS, Scores, prompt_digest


@dataclass(frozen=True, slots=True)
class ScoreItem:
    """A picture to score: its key, the hash of its pixels, and its prompt."""

    key: str
    pixels_sha256: str
    prompt: str


@dataclass(frozen=True, slots=True)
class ScoreChunk:
    """Pictures that lack the scores of the same scorers; `scorers` are indices."""

    scorers: tuple[int, ...]
    items: tuple[ScoreItem, ...]

    @property
    def title(self) -> str:
        """What a person reads of it."""
        return f"{len(self.items)} images"

    @property
    def digest(self) -> str:
        """The name of its results."""
        return digest([[item.key, prompt_digest(item.prompt)] for item in self.items])[:32]


def pending_chunks(catalog: Catalog, known: Sequence[Scores], size: int) -> Iterator[ScoreChunk]:
    """Yield what lacks scores of any of several scorers, up to `size` pictures at a time; each picture once.

    Args:
        known: the scores that each scorer has already.
    """
    open_chunks: dict[tuple[int, ...], list[ScoreItem]] = {}
    for missing, item in _pending(catalog, known):
        items = open_chunks.setdefault(missing, [])
        items.append(item)
        if len(items) == size:
            yield ScoreChunk(missing, tuple(items))
            items.clear()
    yield from (ScoreChunk(missing, tuple(items)) for missing, items in open_chunks.items() if items)


def count_pending(catalog: Catalog, known: Sequence[Scores]) -> int:
    """Return how many pictures lack scores of any of several scorers."""
    return sum(1 for _ in _pending(catalog, known))


def _pending(catalog: Catalog, known: Sequence[Scores]) -> Iterator[tuple[tuple[int, ...], ScoreItem]]:
    """Yield (which scorers lack it, picture)."""
    with_prompt = any(scores.reads_prompt for scores in known)
    hashes = catalog.index.facts([PIXELS])[PIXELS]
    seen: set[bytes] = set()  # 32 bytes a picture at most, only of what is pending
    for chunk in catalog.chunks(["prompt"]):
        rows = pa.array(chunk.index[chunk.present])
        pixels = hashes.take(rows)
        prompts = chunk.specs["prompt"].filter(pa.array(chunk.present))
        missing = np.stack([scores.find(pixels, prompts) < 0 for scores in known])
        wanted = np.flatnonzero(missing.any(axis=0))
        keys = catalog.index.keys[chunk.index[chunk.present]][wanted].tolist()
        texts = (column.take(pa.array(wanted)).to_pylist() for column in (pixels, prompts))
        for number, key, sha256, prompt in zip(wanted.tolist(), keys, *texts, strict=True):
            image = bytes.fromhex(sha256)[:16] + (bytes.fromhex(prompt_digest(prompt))[:16] if with_prompt else b"")
            if image not in seen:
                seen.add(image)
                lacking = tuple(np.flatnonzero(missing[:, number]).tolist())
                yield lacking, ScoreItem(key.decode(), sha256, prompt)
