"""A perceptual hash of 64 bits: images that look alike differ in few of them."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

from t2i_core.hashing import digest
from t2i_core.scoring.interface import Columns, ScoredImage

VERSION = 1
_SIDE, _KEPT = 32, 8
_PLACES = np.arange(_SIDE)
# The first 8 rows of the DCT-II of 32 values.
_DCT = np.cos(np.pi / (2 * _SIDE) * np.outer(np.arange(_KEPT), 2 * _PLACES + 1))


class PerceptualHash:
    """pHash: the signs of the lowest frequencies of the image, as 16 hexadecimal digits in `score_phash`.

    The image is shrunk to 32x32 grey pixels; a bit says whether one of the 8x8 lowest coefficients of their DCT is
    above the median of all 64. The bits are those of the `phash` of the library imagehash.
    """

    name = "phash"
    version = digest(["phash", VERSION])
    reads_prompt = False

    def score(self, images: Sequence[ScoredImage]) -> Columns:
        """Return the hashes."""
        return {"score_phash": [_hash(image.pixels) for image in images]}


def _hash(pixels: npt.NDArray[np.uint8]) -> str:
    grey = Image.fromarray(pixels).convert("L").resize((_SIDE, _SIDE), Image.Resampling.LANCZOS)
    lowest = _DCT @ np.asarray(grey, np.float64) @ _DCT.T
    bits = lowest > np.median(lowest)
    return np.packbits(bits).tobytes().hex()
