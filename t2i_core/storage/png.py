"""PNG images that carry their record: pixels and record -> bytes, and back. Nothing here opens a path."""

import hashlib
import io
import json
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import Image, PngImagePlugin, UnidentifiedImageError

# The text chunk that holds the record as JSON.
HEADER = "text2image"
# What Pillow raises for a file that is no PNG, ends early, or has a broken chunk; and json for a text nested too deep.
_NOT_A_PNG = (UnidentifiedImageError, OSError, ValueError, SyntaxError, RecursionError)

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class DecodedImage:
    """The record that a PNG carries, and the digest of its pixels, which is the one that the record names."""

    record: dict[str, Any]
    pixels_sha256: str


def pixels_digest(pixels: Pixels) -> str:
    """Return the SHA-256 of the shape and the raw bytes of pixels (height, width, 3), rows first."""
    shape = "x".join(str(n) for n in pixels.shape)
    return hashlib.sha256(shape.encode() + b":" + np.ascontiguousarray(pixels).tobytes()).hexdigest()


def encode_png(pixels: Pixels, record: dict[str, Any], compress_level: int) -> bytes:
    """Return pixels (height, width, 3) as a PNG that carries `record`; the level, 0 to 9, changes no pixel."""
    info = PngImagePlugin.PngInfo()
    info.add_itxt(HEADER, json.dumps(record, ensure_ascii=False, sort_keys=True))
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG", pnginfo=info, compress_level=compress_level)
    return buffer.getvalue()


def decode_png(data: bytes) -> DecodedImage | None:
    """Decode a PNG of ours fully. None if it is torn or foreign, or if its pixels are not those its record names."""
    try:
        with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            record = _record_of(image)
            if record is None:
                return None
            digest = pixels_digest(np.asarray(image.convert("RGB")))
    except _NOT_A_PNG:
        return None
    return DecodedImage(record, digest) if record.get("pixels_sha256") == digest else None


def read_header(file: BinaryIO) -> dict[str, Any] | None:
    """Return the record that a PNG carries, without decoding its pixels; None if it is not one of ours."""
    try:
        with Image.open(file, formats=["PNG"]) as image:
            return _record_of(image)
    except _NOT_A_PNG:
        return None


def _record_of(image: Image.Image) -> dict[str, Any] | None:
    text = image.info.get(HEADER)
    if not isinstance(text, str):
        return None
    record = json.loads(text)
    return record if isinstance(record, dict) else None
