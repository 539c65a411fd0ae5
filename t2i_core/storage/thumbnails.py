"""Thumbnails: pixels -> a small JPEG, and four numbers that say how the picture looks. Nothing here opens a path."""

import io
from dataclasses import astuple, dataclass, fields

import numpy as np
from PIL import Image

from t2i_core.storage.formats import Pixels

SIDE = 256  # pixels of the longer side, at most
QUALITY = 75
# Of a picture that is no larger than a thumbnail. It is shown enlarged, where losses would be seen.
SMALL_QUALITY = 92
# A picture that is nearly of one colour, and one with hardly an edge in it.
BLANK_CONTRAST = 0.02
LOW_DETAIL = 0.002


@dataclass(frozen=True, slots=True)
class Look:
    """How a picture looks, measured on its thumbnail. Every number is between 0 and 1.

    Attributes:
        brightness: the mean of the luma.
        contrast: the standard deviation of the luma.
        colour: the mean over the pixels of the largest channel less the smallest; 0 for a grey picture.
        detail: the mean difference of the luma between neighbouring pixels.
    """

    brightness: float
    contrast: float
    colour: float
    detail: float


LOOKS = tuple(item.name for item in fields(Look))


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """A small JPEG of a picture, and how the picture looks."""

    pixels_sha256: str  # of the picture
    data: bytes
    look: Look


def make_thumbnail(pixels: Pixels, pixels_sha256: str) -> Thumbnail:
    """Return the thumbnail of pixels (height, width, 3); a picture that is smaller than a thumbnail keeps its size."""
    picture = Image.fromarray(pixels)
    scale = SIDE / max(picture.size)
    if scale < 1:
        size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
        # The gap makes Pillow average whole pixels first: a third of the time, and no difference to be seen.
        picture = picture.resize(size, Image.Resampling.LANCZOS, reducing_gap=2.0)
    buffer = io.BytesIO()
    if scale < 1:
        picture.save(buffer, format="JPEG", quality=QUALITY)
    else:
        picture.save(buffer, format="JPEG", quality=SMALL_QUALITY, subsampling=0)
    return Thumbnail(pixels_sha256, buffer.getvalue(), _look(picture))


def _look(picture: Image.Image) -> Look:
    luma = np.asarray(picture.convert("L"), np.int16)
    channels = np.asarray(picture)
    # 0 for a single row or column of pixels, which has no neighbour in that direction.
    differences = [np.abs(np.diff(luma, axis=axis)) for axis in (0, 1) if luma.shape[axis] > 1]
    look = Look(
        brightness=float(luma.mean()) / 255,
        contrast=float(luma.std()) / 255,
        colour=float((channels.max(axis=2) - channels.min(axis=2)).mean()) / 255,
        detail=float(np.mean([values.mean() for values in differences])) / 255 if differences else 0.0,
    )
    return Look(*(round(value, 4) for value in astuple(look)))
