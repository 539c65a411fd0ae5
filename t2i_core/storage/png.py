"""PNG images that carry their record: pixels and record -> bytes, and back. Nothing here opens a path."""

import hashlib
import io
import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import Image, PngImagePlugin

from t2i_core.errors import DamagedImage
from t2i_core.options.values import SIDE_MAX

# The text chunk that holds the record as JSON.
HEADER = "text2image"

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class DecodedImage:
    """The record that a PNG carries, the digest of its pixels, which the record names, too, and the pixels."""

    record: dict[str, Any]
    pixels_sha256: str
    image: Image.Image  # RGB


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


def read_image(data: bytes) -> DecodedImage:
    """Decode a PNG of ours fully.

    Raises:
        DamagedImage: if it is torn or foreign, or if its pixels are not those its record names.
    """
    with _opened(io.BytesIO(data)) as image:
        record = _record_of(image)
        pixels = image.convert("RGB")
        digest = pixels_digest(np.asarray(pixels))
    if record.get("pixels_sha256") != digest:
        raise DamagedImage("its pixels are not those that its header names")
    return DecodedImage(record, digest, pixels)


def decode_png(data: bytes) -> DecodedImage | None:
    """Decode a PNG of ours fully; None where `read_image` finds it damaged."""
    try:
        return read_image(data)
    except DamagedImage:
        return None


def read_header(file: BinaryIO) -> dict[str, Any] | None:
    """Return the record that a PNG carries, without decoding its pixels; None if it is not one of ours."""
    try:
        with _opened(file) as image:
            return _record_of(image)
    except DamagedImage:
        return None


@contextmanager
def _opened(file: BinaryIO) -> Iterator[Image.Image]:
    """Open a PNG for the block, without Pillow's limit on the number of pixels, which images of ours may pass.

    Raises:
        DamagedImage: also for whatever Pillow, zlib and json raise within the block for a file that is damaged.
    """
    # Not `warnings.catch_warnings`, which is not safe in threads. Whether an image is whole, its pixels tell.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    try:
        with PngImagePlugin.PngImageFile(file) as image:
            if max(image.size) > SIDE_MAX:
                raise DamagedImage(f"it has {image.width}x{image.height} pixels")
            yield image
    except (DamagedImage, MemoryError):
        raise
    except Exception as error:
        reason = " ".join(str(error).split())
        raise DamagedImage(f"it is torn, or no PNG: {type(error).__name__}{f': {reason}' if reason else ''}") from error


def _record_of(image: Image.Image) -> dict[str, Any]:
    text = image.info.get(HEADER)
    record = json.loads(text) if isinstance(text, str) else None
    if not isinstance(record, dict):
        raise DamagedImage("its header holds no record of this tool")
    return record
