"""Images that describe themselves: pixels and record -> bytes, and back."""

import hashlib
import io
import json
import struct
import warnings
import zlib
from random import Random

import numpy as np
import pytest
from PIL import Image, PngImagePlugin, UnidentifiedImageError

from t2i_core.errors import DamagedImage
from t2i_core.storage.png import HEADER, decode_png, encode_png, pixels_digest, read_header, read_image


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (8, 12, 3), np.uint8)


def encode(pixels, level=1, **record):
    return encode_png(pixels, {"key": "k", "pixels_sha256": pixels_digest(pixels), **record}, level)


def with_header(pixels, text, form="PNG"):
    """A picture of another program that carries `text` under our name."""
    info = PngImagePlugin.PngInfo()
    info.add_itxt(HEADER, text)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format=form, pnginfo=info)
    return buffer.getvalue()


def test_the_digest_of_pixels_is_a_promise(pixels):
    """It is in every header and every provenance table ever written."""
    assert pixels_digest(pixels) == hashlib.sha256(b"8x12x3:" + pixels.tobytes()).hexdigest()
    assert pixels_digest(pixels.reshape(12, 8, 3)) != pixels_digest(pixels)


def test_the_digest_is_about_pixels_not_about_their_order_in_memory(pixels):
    assert pixels_digest(pixels[:, ::-1]) == pixels_digest(pixels[:, ::-1].copy())


def test_an_image_carries_its_record_in_any_script(pixels):
    data = encode(pixels, prompt="一只狐狸 🦊 \u202bשלום")
    image = decode_png(data)
    assert image.record == read_header(io.BytesIO(data))
    assert image.record["prompt"] == "一只狐狸 🦊 \u202bשלום"
    assert image.pixels_sha256 == pixels_digest(pixels)
    assert "一只狐狸".encode() in data  # people read headers, too: no escapes


def test_any_viewer_shows_the_pixels(pixels):
    with Image.open(io.BytesIO(encode(pixels))) as image:
        assert image.format == "PNG"
        assert (np.asarray(image) == pixels).all()


def test_a_long_prompt_fits_into_the_header(pixels):
    assert len(decode_png(encode(pixels, prompt="fox " * 10_000)).record["prompt"]) == 40_000


def test_equal_records_make_equal_bytes(pixels):
    one = encode_png(pixels, {"a": 1, "b": 2}, 1)
    assert one == encode_png(pixels, {"b": 2, "a": 1}, 1)


def test_the_compression_level_changes_the_size_and_no_pixel():
    pixels = np.zeros((64, 64, 3), np.uint8)
    fast, small = encode(pixels, level=0), encode(pixels, level=9)
    assert decode_png(fast).pixels_sha256 == decode_png(small).pixels_sha256
    assert len(fast) > 64 * 64 * 3 > len(small)


@pytest.mark.parametrize(
    "damage",
    ["torn", "foreign", "text", "edited", "empty", "no digest", "no object", "no JSON", "too deep", "another format"],
)
def test_what_is_not_whole_and_ours_is_no_image(pixels, damage):
    whole = encode(pixels)
    foreign = io.BytesIO()
    Image.fromarray(pixels).save(foreign, format="PNG")
    data = {
        "torn": whole[: len(whole) // 2],
        "foreign": foreign.getvalue(),
        "text": b"hello",
        # Other pixels under the same record: what an editor that keeps text chunks would leave.
        "edited": encode_png(255 - pixels, {"key": "k", "pixels_sha256": pixels_digest(pixels)}, 1),
        "empty": b"",
        "no digest": encode_png(pixels, {"key": "k"}, 1),
        "no object": with_header(pixels, '["key"]'),
        "no JSON": with_header(pixels, "key"),
        "too deep": with_header(pixels, "[" * 100_000),
        "another format": with_header(pixels, "{}", "TIFF"),
    }[damage]
    assert decode_png(data) is None


def test_a_broken_chunk_is_no_image(pixels):
    data = bytearray(encode(pixels))
    data[data.index(b"IDAT") + 8] ^= 0xFF  # the checksum no longer holds
    assert decode_png(bytes(data)) is None


def test_a_header_is_read_without_the_pixels(pixels):
    """Names are checked by header: a run over 100,000 images must not decode them all."""
    data = encode(pixels, prompt="a fox")
    torn = data[: data.index(b"IDAT") + 10]
    assert read_header(io.BytesIO(torn))["prompt"] == "a fox"
    assert decode_png(torn) is None


def test_a_png_that_an_optimiser_packed_tighter_is_the_same_image():
    grey = np.repeat(np.arange(96, dtype=np.uint8).reshape(8, 12, 1), 3, axis=2)
    record = json.dumps({"key": "k", "pixels_sha256": pixels_digest(grey)})
    assert decode_png(with_header(grey[:, :, 0], record)).pixels_sha256 == pixels_digest(grey)


def test_no_decoder_but_that_of_png_sees_a_file(monkeypatch):
    """Pillow brings decoders for dozens of formats; a file in the output must not choose one of them."""
    seen = []

    def accept(prefix):
        seen.append(prefix)
        return False

    monkeypatch.setitem(Image.OPEN, "OTHER", (lambda file, name: None, accept))
    monkeypatch.setattr(Image, "ID", ["OTHER", *Image.ID])
    with pytest.raises(UnidentifiedImageError):
        Image.open(io.BytesIO(b"GIF89a"))
    assert seen
    seen.clear()
    assert decode_png(b"GIF89a") is None
    assert read_header(io.BytesIO(b"GIF89a")) is None
    assert seen == []


@pytest.mark.parametrize("data", [b"", b"hello", b"\x89PNG no"])
def test_what_is_no_png_has_no_header(data):
    assert read_header(io.BytesIO(data)) is None


def test_another_format_and_other_json_have_no_header(pixels):
    jpeg = io.BytesIO()
    deep = with_header(pixels, "[" * 100_000)
    Image.fromarray(pixels).save(jpeg, format="JPEG")
    for data in (jpeg.getvalue(), with_header(pixels, "[1]"), with_header(pixels, "{"), deep):
        assert read_header(io.BytesIO(data)) is None


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def header_of(width, height, *extra):
    """Return the beginning of a PNG with whole chunks, which says that it has so many pixels."""
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)) + b"".join(extra)
    )


RECORD = chunk(b"iTXt", HEADER.encode() + b"\0\0\0\0\0" + json.dumps({"key": "k", "pixels_sha256": "0"}).encode())
BODY = chunk(b"IDAT", b"no zlib") + chunk(b"IEND", b"")

DAMAGED = {
    "says it has more pixels than memory": header_of(2**31 - 1, 2**31 - 1, RECORD, BODY),
    "says it has more pixels than Pillow likes": header_of(14_000, 14_000, RECORD, BODY),
    "says it has no pixels": header_of(0, 0, RECORD, BODY),
    "short header": b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", b"") + RECORD + BODY,
    "header twice": header_of(8, 8, chunk(b"IHDR", b"\0" * 5), RECORD, BODY),
    "short gamma": header_of(8, 8, chunk(b"gAMA", b""), RECORD, BODY),
    "short primaries": header_of(8, 8, chunk(b"cHRM", b"\0" * 3), RECORD, BODY),
    "short resolution": header_of(8, 8, chunk(b"pHYs", b"\0"), RECORD, BODY),
    "short profile": header_of(8, 8, chunk(b"iCCP", b"a"), RECORD, BODY),
    "short rendering": header_of(8, 8, chunk(b"sRGB", b""), RECORD, BODY),
    "an animation of nothing": header_of(8, 8, chunk(b"acTL", b"\0" * 8), RECORD, BODY),
    "two animations": header_of(8, 8, chunk(b"acTL", b"\0\0\0\1" * 2), chunk(b"acTL", b"\0\0\0\1" * 2), RECORD, BODY),
    "a frame of no animation": header_of(8, 8, chunk(b"fcTL", b"\0" * 26), RECORD, BODY),
    "a text that bursts": header_of(
        8, 8, chunk(b"iTXt", HEADER.encode() + b"\0\1\0\0\0" + zlib.compress(b" " * (1 << 24))), BODY
    ),
    "a text that is no zlib": header_of(8, 8, chunk(b"iTXt", HEADER.encode() + b"\0\1\0\0\0no zlib"), BODY),
    "no pixels": header_of(8, 8, RECORD),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_whatever_is_damaged_is_one_error_and_no_warning(damage):
    data = DAMAGED[damage]
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        with pytest.raises(DamagedImage):
            read_image(data)
        assert decode_png(data) is None
        assert read_header(io.BytesIO(data)) in (None, {"key": "k", "pixels_sha256": "0"})
    assert shown == []


@pytest.mark.parametrize("seed", range(8))
def test_bytes_changed_at_random_are_one_error_and_no_warning(pixels, seed):
    """Some changes are behind whole checksums, as a program that writes PNGs badly would leave them."""
    random = Random(seed)
    whole = encode(pixels)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(200):
            data = bytearray(whole)
            for _ in range(random.choice([1, 1, 3])):
                data[random.randrange(len(data))] = random.randrange(256)
            if random.random() < 0.7:
                data = with_right_checksums(bytes(data))
            image, header = decode_png(bytes(data)), read_header(io.BytesIO(bytes(data)))
            assert image is None or image.pixels_sha256 == pixels_digest(pixels)
            assert header is None or isinstance(header, dict)


def with_right_checksums(data):
    result, at = data[:8], 8
    while at + 12 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        result += chunk(data[at + 4 : at + 8], data[at + 8 : at + 8 + length])
        at += 12 + length
    return result


def test_an_image_with_more_pixels_than_pillow_likes_is_read(monkeypatch, pixels):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)  # as an image of 9,600² pixels is to the real limit
    data = encode(pixels)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_image(data).pixels_sha256 == pixels_digest(pixels)
        assert read_header(io.BytesIO(data)) is not None
