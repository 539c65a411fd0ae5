"""Statistics of pixels as scores, without weights and without the prompt."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

from t2i_core.hashing import digest
from t2i_core.scoring.interface import Columns, ScoredImage

# Raised when a number changes: scores of earlier versions are then computed again.
VERSION = 1

# Of `text_free`: the longer side that an image is shrunk to, the shortest side that can hold lines of text, and the
# height and width of a tile.
_TEXT_SIDE, _LEAST_SIDE, _TILE = 512, 256, (24, 64)
# A row of a tile with so many strong edges crosses letters; one with no more than the second lies between two lines.
_EDGE, _IN_LETTERS, _BETWEEN_LINES = 40, 10, 1

Luma = npt.NDArray[np.uint8]


class Statistics:
    """Sharpness, brightness, contrast, entropy, colourfulness, and how much of the image is free of text.

    All are of the image in its own size. What each number is stands in docs/scores.md.
    """

    name = "stats"
    version = digest(["stats", VERSION])
    reads_prompt = False

    def score(self, images: Sequence[ScoredImage]) -> Columns:
        """Return a column for each statistic."""
        rows = [_statistics(image.pixels) for image in images]
        return {f"score_{name}": [row[name] for row in rows] for name in rows[0]}


def _statistics(pixels: npt.NDArray[np.uint8]) -> dict[str, float | None]:
    luma = np.asarray(Image.fromarray(pixels).convert("L"))
    values: dict[str, float | None] = {
        "sharpness": _sharpness(luma),
        "brightness": float(luma.mean()) / 255,
        "contrast": float(luma.std()) / 255,
        "entropy": _entropy(luma),
        "colorfulness": _colorfulness(pixels),
        "text_free": _text_free(luma),
    }
    return {name: None if value is None else round(value, 6) for name, value in values.items()}


def _sharpness(luma: Luma) -> float:
    """Return the variance of the Laplacian (four neighbours) of luma in 0..255; 0 for images below 3x3."""
    if min(luma.shape) < 3:
        return 0.0
    grey = luma.astype(np.int16)
    inside = -4 * grey[1:-1, 1:-1]
    inside += grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:]
    return float(inside.var(dtype=np.float64))


def _entropy(luma: Luma) -> float:
    """Return Shannon's entropy of the 256 levels of luma, in bits."""
    shares = np.bincount(luma.ravel(), minlength=256) / luma.size
    shares = shares[shares > 0]
    return float(max(0.0, -(shares * np.log2(shares)).sum()))


def _colorfulness(pixels: npt.NDArray[np.uint8]) -> float:
    """Return the measure of Hasler and Süsstrunk (2003): 0 for grey, about 33 average, above 80 very colourful."""
    red, green, blue = (pixels[..., channel].astype(np.float32) for channel in range(3))
    red_green, yellow_blue = red - green, (red + green) / 2 - blue
    spread = np.hypot(red_green.std(dtype=np.float64), yellow_blue.std(dtype=np.float64))
    mean = np.hypot(red_green.mean(dtype=np.float64), yellow_blue.mean(dtype=np.float64))
    return float(spread + 0.3 * mean)


def _text_free(luma: Luma) -> float | None:
    """Return the share of tiles that do not look like lines of text; None for images that are too small for text.

    A line of text is a strip of rows with many strong upright edges, between strips without any; grass and noise have
    edges in all rows.
    """
    height, width = luma.shape
    if min(height, width) < _LEAST_SIDE:
        return None
    scale = _TEXT_SIDE / max(height, width)
    if scale < 1:
        size = max(1, round(width * scale)), max(1, round(height * scale))
        luma = np.asarray(Image.fromarray(luma).resize(size, Image.Resampling.BOX))
    edges = np.abs(np.diff(luma.astype(np.int16), axis=1, prepend=luma[:, :1])) > _EDGE
    rows, columns = (side // tile for side, tile in zip(edges.shape, _TILE, strict=True))
    if not rows or not columns:
        return None
    tiles = edges[: rows * _TILE[0], : columns * _TILE[1]].reshape(rows, _TILE[0], columns, _TILE[1]).sum(axis=3)
    letters, empty = tiles >= _IN_LETTERS, tiles <= _BETWEEN_LINES
    text = (letters.sum(axis=1) >= 3) & (empty.sum(axis=1) >= 3)
    return float(1 - text.mean())
