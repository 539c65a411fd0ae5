"""A stored image: its pixels as PNG, its record in the header, its health."""

import hashlib
import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, PngImagePlugin, UnidentifiedImageError

from t2i_core.errors import ImageFailure
from t2i_core.store import atomic_write

HEADER = "text2image"
# A difference below one step of an 8-bit channel is no picture.
ONE_STEP = 1 / 255

# Pillow reports every PNG chunk at debug level, record and all.
logging.getLogger("PIL").setLevel(logging.INFO)


@dataclass(frozen=True, slots=True)
class StoredImage:
    """What a decoded file says of itself."""

    record: dict[str, Any]
    pixels_sha256: str


def to_bytes(image: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """Float pixels (height, width, 3) in 0..1 -> bytes, after the checks that only floats allow.

    Raises:
        ImageFailure: for NaN or infinite, black, or constant images: what a cast to bytes would hide.
    """
    if not np.isfinite(image).all():
        raise ImageFailure(
            "the model returned NaN or infinite pixels; try dtype bfloat16 or float32, or another seed (--reseed)"
        )
    spread = float((image.max(axis=(0, 1)) - image.min(axis=(0, 1))).max())
    if spread < ONE_STEP:
        kind = "black" if float(image.max()) < ONE_STEP else "a single colour"
        raise ImageFailure(
            f"the image is {kind}; try dtype bfloat16 or float32, more steps, or another seed (--reseed)"
        )
    result: npt.NDArray[np.uint8] = (image * 255).round().astype(np.uint8)
    return result


def pixels_digest(pixels: npt.NDArray[np.uint8]) -> str:
    """SHA-256 of the shape and the raw bytes, rows first, RGB."""
    shape = "x".join(str(n) for n in pixels.shape)
    return hashlib.sha256(shape.encode() + b":" + np.ascontiguousarray(pixels).tobytes()).hexdigest()


def write_image(path: Path, pixels: npt.NDArray[np.uint8], record: dict[str, Any], compress_level: int) -> None:
    """Write a read-only PNG that carries `record` as JSON in a text chunk; atomic."""
    info = PngImagePlugin.PngInfo()
    info.add_itxt(HEADER, json.dumps(record, ensure_ascii=False, sort_keys=True))
    with atomic_write(path, read_only=True) as file:
        Image.fromarray(pixels).save(file, format="PNG", pnginfo=info, compress_level=compress_level)


def read_header(path: Path) -> dict[str, Any] | None:
    """The record in a PNG's header, or None where the file is not one of ours. Decodes no pixels."""
    try:
        with Image.open(path, formats=["PNG"]) as image:
            return _record_of(image)
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError):
        return None


def read_image(path: Path) -> StoredImage | None:
    """Decode a file fully. None where it is torn, foreign, or its pixels are not those its record names."""
    try:
        with Image.open(path, formats=["PNG"]) as image:
            record = _record_of(image)
            if record is None:
                return None
            pixels = np.asarray(image.convert("RGB"))
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError):
        # Pillow raises SyntaxError for a broken chunk and OSError for a file that ends early.
        return None
    digest = pixels_digest(pixels)
    return StoredImage(record, digest) if record.get("pixels_sha256") == digest else None


def _record_of(image: Image.Image) -> dict[str, Any] | None:
    text = image.info.get(HEADER)
    if not isinstance(text, str):
        return None
    record = json.loads(text)
    return record if isinstance(record, dict) else None
