"""Images that describe themselves: pixels and record -> bytes, and back."""

import hashlib
import io
import json

import numpy as np
import pytest
from PIL import Image, PngImagePlugin, UnidentifiedImageError

from t2i_core.storage.png import HEADER, decode_png, encode_png, pixels_digest, read_header


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
