"""Image files that carry their record: pixels and record -> bytes, and back. Nothing here opens a path.

The formats are `png.py`, `webp.py` and `jpeg.py`. Each makes a file without texts, puts texts into it, takes them out
again without a look at the pixels, and finds the record.
"""

import hashlib
import io
import json
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile, JpegImagePlugin, PngImagePlugin, WebPImagePlugin

from t2i_core.errors import DamagedImage
from t2i_core.options.values import SIDE_MAX
from t2i_core.storage import jpeg, png, webp
from t2i_core.storage.picture_texts import PictureTexts
from t2i_core.storage.suffixes import PNG

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Encoding:
    """How a run stores its images: one of the formats, and what each of them lets choose."""

    format: str = PNG
    png_compress_level: int = 1
    jpeg_quality: int = 95


@dataclass(frozen=True, slots=True)
class Format:
    """What a format can do. `starts`: the first bytes of its files; `file`: what reads them."""

    starts: bytes
    file: type[ImageFile.ImageFile]
    lossless: bool
    encode: Callable[[Image.Image, Encoding], bytes]
    with_texts: Callable[[bytes, PictureTexts, tuple[int, int]], bytes]  # size: (width, height)
    without_texts: Callable[[bytes], bytes]
    record_text: Callable[[Image.Image], object]


FORMATS = {
    PNG: Format(
        b"\x89PNG",
        PngImagePlugin.PngImageFile,
        lossless=True,
        encode=lambda image, encoding: png.encode(image, encoding.png_compress_level),
        with_texts=lambda data, texts, size: png.with_texts(data, texts),
        without_texts=png.without_texts,
        record_text=png.record_text,
    ),
    "webp": Format(
        b"RIFF",
        WebPImagePlugin.WebPImageFile,
        lossless=True,
        encode=lambda image, encoding: webp.encode(image),
        with_texts=webp.with_texts,
        without_texts=webp.without_texts,
        record_text=webp.record_text,
    ),
    "jpeg": Format(
        b"\xff\xd8",
        JpegImagePlugin.JpegImageFile,
        lossless=False,
        encode=lambda image, encoding: jpeg.encode(image, encoding.jpeg_quality),
        with_texts=lambda data, texts, size: jpeg.with_texts(data, texts),
        without_texts=jpeg.without_texts,
        record_text=jpeg.record_text,
    ),
}


@dataclass(frozen=True, slots=True)
class EncodedImage:
    """An image as a file, and the record that it carries."""

    data: bytes
    record: dict[str, Any]


@dataclass(frozen=True, slots=True)
class DecodedImage:
    """The record that a file carries, the digest of the pixels that were generated, and the pixels as they are now."""

    record: dict[str, Any]
    pixels_sha256: str
    image: Image.Image  # RGB


def pixels_digest(pixels: Pixels) -> str:
    """Return the SHA-256 of the shape and the raw bytes of pixels (height, width, 3), rows first."""
    shape = "x".join(str(n) for n in pixels.shape)
    return hashlib.sha256(shape.encode() + b":" + np.ascontiguousarray(pixels).tobytes()).hexdigest()


def encode_image(
    pixels: Pixels, record: dict[str, Any], encoding: Encoding, sampler: str | None = None
) -> EncodedImage:
    """Return pixels (height, width, 3) as a file that carries `record`, for this tool and for others.

    In a lossy format the record also names the pixels that the file decodes to. `sampler`: the class of the model's own
    scheduler, where no other was asked for.
    """
    format, image = FORMATS[encoding.format], Image.fromarray(pixels)
    data = format.encode(image, encoding)
    if not format.lossless:
        with format.file(io.BytesIO(data)) as decoded:
            record = record | {"decoded_sha256": pixels_digest(np.asarray(decoded))}
    return EncodedImage(format.with_texts(data, PictureTexts.of(record, sampler), image.size), record)


def read_image(data: bytes) -> DecodedImage:
    """Decode a file of ours fully.

    Raises:
        DamagedImage: if it is torn or foreign, or if its pixels are not those its record names.
    """
    with _opened(io.BytesIO(data)) as (image, record):
        pixels = image.convert("RGB")
        digest = pixels_digest(np.asarray(pixels))
    if record.get("decoded_sha256", record.get("pixels_sha256")) != digest or "pixels_sha256" not in record:
        raise DamagedImage("its pixels are not those that its header names")
    return DecodedImage(record, record["pixels_sha256"], pixels)


def decode_image(data: bytes) -> DecodedImage | None:
    """Decode a file of ours fully; None where `read_image` finds it damaged."""
    try:
        return read_image(data)
    except DamagedImage:
        return None


def read_header(file: BinaryIO) -> dict[str, Any] | None:
    """Return the record that a file carries, without decoding its pixels; None if it is not one of ours."""
    try:
        with _opened(file) as (_, record):
            return record
    except DamagedImage:
        return None


def without_texts(data: bytes, format: str) -> bytes:
    """Return an image file of ours without its record and all other texts, with the same pixels."""
    return FORMATS[format].without_texts(data)


@contextmanager
def _opened(file: BinaryIO) -> Iterator[tuple[Image.Image, dict[str, Any]]]:
    """Open a file for the block, without Pillow's limit on the number of pixels, which images of ours may pass.

    Raises:
        DamagedImage: also for whatever Pillow, zlib and json raise within the block for a file that is damaged.
    """
    # Not `warnings.catch_warnings`, which is not safe in threads. Whether an image is whole, its pixels tell.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    try:
        start = file.read(4)
        file.seek(0)
        format = next((format for format in FORMATS.values() if start.startswith(format.starts)), None)
        if format is None:
            raise DamagedImage("it is no PNG, WebP or JPEG")
        with format.file(file) as image:
            if max(image.size) > SIDE_MAX:
                raise DamagedImage(f"it has {image.width}x{image.height} pixels")
            yield image, _record_in(format.record_text(image))
    except (DamagedImage, MemoryError):
        raise
    except Exception as error:
        reason = " ".join([f"{type(error).__name__}:", *str(error).split()]).rstrip(":")
        raise DamagedImage(f"it is torn, or no image: {reason}") from error


def _record_in(text: object) -> dict[str, Any]:
    record = json.loads(text) if isinstance(text, str) else None
    if not isinstance(record, dict):
        raise DamagedImage("its header holds no record of this tool")
    return record
