"""JPEG: pixels -> bytes, and texts in application segments in front of the pixels.

A segment holds 64 KiB. A longer record is divided; a prompt that is longer is left out of EXIF and XMP.
"""

import io
import struct
from collections.abc import Iterator

from PIL import Image, JpegImagePlugin

from t2i_core.storage.picture_texts import PictureTexts

_START, _START_OF_SCAN, _COMMENT = b"\xff\xd8", 0xDA, 0xFE
_JFIF, _EXIF_AND_XMP, _RECORD, _ADOBE = 0xE0, 0xE1, 0xE9, 0xEE  # application segments
_TEXTS = (*range(_EXIF_AND_XMP, _ADOBE), 0xEF, _COMMENT)
_LONGEST = 0xFFFF - 2
_EXIF, _XMP = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0"
_OURS = b"text2image\0"  # begins a segment with a part of the record


def encode(image: Image.Image, quality: int) -> bytes:
    """Return an image as a JPEG without texts, its colours in full resolution; quality 1 to 100."""
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=quality, subsampling="4:4:4", optimize=True)
    return buffer.getvalue()


def with_texts(data: bytes, texts: PictureTexts) -> bytes:
    """Return a JPEG without texts with them."""
    jfif, *rest = _segments(data)
    exif = _EXIF + texts.exif(texts.parameters)
    if len(exif) > _LONGEST:
        exif = _EXIF + texts.exif()
    xmp = _XMP + texts.xmp(_LONGEST - len(_XMP))
    segments = [_segment(_EXIF_AND_XMP, content) for content in (exif, xmp)]
    record, step = texts.record.encode(), _LONGEST - len(_OURS)
    segments += [_segment(_RECORD, _OURS + record[start : start + step]) for start in range(0, len(record), step)]
    return b"".join([_START, jfif, *segments, *rest])


def without_texts(data: bytes) -> bytes:
    """Return a JPEG without texts; the pixels are not decoded."""
    return b"".join([_START, *(segment for segment in _segments(data) if segment[1] not in _TEXTS)])


def record_text(image: Image.Image) -> object:
    """Return the record's JSON of an open JPEG; anything else where it has none."""
    if not isinstance(image, JpegImagePlugin.JpegImageFile):
        return None
    parts = [content.removeprefix(_OURS) for _, content in image.applist if content.startswith(_OURS)]
    return b"".join(parts).decode() if parts else None


def _segments(data: bytes) -> Iterator[bytes]:
    """Yield the segments of a whole JPEG; the last begins the scan, and goes on to the end of the file."""
    start = len(_START)
    while data[start + 1] != _START_OF_SCAN:
        (length,) = struct.unpack_from(">H", data, start + 2)
        yield data[start : start + 2 + length]
        start += 2 + length
    yield data[start:]


def _segment(marker: int, content: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content
