"""Health checks: what the model returned is a picture, or the image has failed.

The cast to bytes, which is done on the device, hides what is wrong with float pixels. A check that needs more of the
floats than their extremes needs another field of `Pixels`, which `engine/device.py` fills on the device.
"""

import numpy as np
import numpy.typing as npt

from t2i_core.errors import ImageFailure
from t2i_core.generation.interface import Pixels
from t2i_core.spec import ImageSpec

# A difference below one step of an 8-bit channel is no picture.
ONE_STEP = 1 / 255


def checked_pixels(image: Pixels, spec: ImageSpec) -> npt.NDArray[np.uint8]:
    """Return the pixels of an image (height, width, 3) after all checks.

    Raises:
        ImageFailure: for pixels of another size, NaN or infinite, outside 0..1, black, or of a single colour.
    """
    for check in (_check_size, _check_finite, _check_range, _check_contrast):
        check(image, spec)
    return image.values


def _check_size(image: Pixels, spec: ImageSpec) -> None:
    shape = image.values.shape
    if shape != (spec.height, spec.width, 3):
        raise ImageFailure(
            f"the model returned {shape[1]}x{shape[0]} pixels for {spec.width}x{spec.height}; ask for a size it takes"
        )


def _check_finite(image: Pixels, spec: ImageSpec) -> None:
    if not (np.isfinite(image.lowest).all() and np.isfinite(image.highest).all()):
        raise ImageFailure(
            "the model returned NaN or infinite pixels; try dtype bfloat16 or float32, or another seed (--reseed)"
        )


def _check_range(image: Pixels, spec: ImageSpec) -> None:
    low, high = float(image.lowest.min()), float(image.highest.max())
    if low < 0 or high > 1:  # a cast to bytes would wrap them around
        raise ImageFailure(
            f"the model returned pixels from {low:.2f} to {high:.2f}, not in 0..1; this pipeline is not supported"
        )


def _check_contrast(image: Pixels, spec: ImageSpec) -> None:
    if float((image.highest - image.lowest).max()) < ONE_STEP:
        kind = "black" if float(image.highest.max()) < ONE_STEP else "a single colour"
        raise ImageFailure(
            f"the image is {kind}; try dtype bfloat16 or float32, more steps, or another seed (--reseed)"
        )
