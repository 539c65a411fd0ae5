"""Lossless WebP: pixels -> bytes, and texts in EXIF and XMP behind the pixels; the record is a property of the XMP."""

import io
import struct
from collections.abc import Iterator
from xml.etree import ElementTree

from PIL import Image

from t2i_core.storage.picture_texts import RECORD_NAMESPACE, PictureTexts

# Effort of libwebp's lossless encoder, 0 to 6, and within it 0 to 100: docs/output.md has what others cost.
METHOD, EFFORT = 1, 20
SIDE_MAX, PIXELS_MAX = 16383, 178_000_000  # of the format; that Pillow reads back
_HAS_EXIF, _HAS_XMP = 0x08, 0x04  # flags of the extended header


def encode(image: Image.Image) -> bytes:
    """Return an image as a lossless WebP without texts.

    Raises:
        ValueError: for an image that is too large for it.
    """
    if max(image.size) > SIDE_MAX or image.width * image.height > PIXELS_MAX:
        raise ValueError(f"{image.width}x{image.height} is too large for WebP; use --image-format png")
    buffer = io.BytesIO()
    image.save(buffer, format="WEBP", lossless=True, method=METHOD, quality=EFFORT)
    return buffer.getvalue()


def with_texts(data: bytes, texts: PictureTexts, size: tuple[int, int]) -> bytes:
    """Return a WebP without texts, of `size` (width, height), with them."""
    width, height = (struct.pack("<I", side - 1)[:3] for side in size)
    header = _chunk(b"VP8X", bytes([_HAS_EXIF | _HAS_XMP, 0, 0, 0]) + width + height)
    metadata = [_chunk(b"EXIF", texts.exif(texts.parameters)), _chunk(b"XMP ", texts.xmp_with_record())]
    return _file([header, *_chunks(data), *metadata])


def without_texts(data: bytes) -> bytes:
    """Return a WebP without EXIF and XMP; the pixels are not decoded. It has no other features that need VP8X."""
    return _file([chunk for chunk in _chunks(data) if chunk[:4] not in (b"VP8X", b"EXIF", b"XMP ")])


def record_text(image: Image.Image) -> object:
    """Return the record's JSON of an open WebP; anything else where it has none."""
    xmp = image.info.get("xmp")
    if not isinstance(xmp, bytes) or b"<!" in xmp:  # XMP declares no entities: they are what makes XML dangerous
        return None
    try:
        tree = ElementTree.fromstring(xmp)  # noqa: S314
    except ElementTree.ParseError:
        return None
    name = f"{{{RECORD_NAMESPACE}}}record"
    for element in tree.iter():  # programs that rewrite XMP make attributes of properties
        if element.tag == name:
            return element.text
        if name in element.attrib:
            return element.attrib[name]
    return None


def _chunks(data: bytes) -> Iterator[bytes]:
    """Yield the chunks of a whole WebP, with type, length and padding."""
    start = 12
    while start < len(data):
        (length,) = struct.unpack_from("<I", data, start + 4)
        end = start + 8 + length + length % 2
        if end > len(data):
            raise ValueError("the WebP is torn")
        yield data[start:end]
        start = end


def _chunk(kind: bytes, content: bytes) -> bytes:
    return kind + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2)


def _file(chunks: list[bytes]) -> bytes:
    content = b"WEBP" + b"".join(chunks)
    return b"RIFF" + struct.pack("<I", len(content)) + content
