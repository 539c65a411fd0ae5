"""PNG: pixels -> bytes, and texts in chunks between the header and the pixels, where a reader finds them at once."""

import io
import struct
import zlib
from collections.abc import Iterator

from PIL import Image

from t2i_core.storage.picture_texts import PictureTexts

# The chunk that holds the record as JSON.
HEADER = "text2image"
_XMP = "XML:com.adobe.xmp"
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_TEXTS = (b"tEXt", b"iTXt", b"zTXt", b"eXIf")


def encode(image: Image.Image, compress_level: int) -> bytes:
    """Return an image as a PNG without texts; the level, 0 to 9, changes no pixel."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", compress_level=compress_level)
    return buffer.getvalue()


def with_texts(data: bytes, texts: PictureTexts) -> bytes:
    """Return a PNG without texts with them."""
    header, *rest = _chunks(data)
    chunks = [_international(HEADER, texts.record), _text("parameters", texts.parameters)]
    chunks += [_international(_XMP, texts.xmp().decode()), _chunk(b"eXIf", texts.exif())]
    return b"".join([_SIGNATURE, header, *chunks, *rest])


def without_texts(data: bytes) -> bytes:
    """Return a PNG without texts and EXIF; the pixels are not decoded."""
    return b"".join([_SIGNATURE, *(chunk for chunk in _chunks(data) if chunk[4:8] not in _TEXTS)])


def record_text(image: Image.Image) -> object:
    """Return the record's JSON of an open PNG; anything else where it has none."""
    return image.info.get(HEADER)


def _chunks(data: bytes) -> Iterator[bytes]:
    """Yield the chunks of a whole PNG, with length, type and checksum."""
    start = len(_SIGNATURE)
    while start < len(data):
        (length,) = struct.unpack_from(">I", data, start)
        if start + length + 12 > len(data):
            raise ValueError("the PNG is torn")
        yield data[start : start + length + 12]
        start += length + 12


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _text(keyword: str, text: str) -> bytes:
    """Return a text as latin-1, which every reader knows, or else as UTF-8."""
    try:
        return _chunk(b"tEXt", keyword.encode() + b"\0" + text.encode("latin-1"))
    except UnicodeEncodeError:
        return _international(keyword, text)


def _international(keyword: str, text: str) -> bytes:
    # Not compressed, no language, no translated keyword.
    return _chunk(b"iTXt", keyword.encode() + b"\0\0\0\0\0" + text.encode())
