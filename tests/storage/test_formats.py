"""Images that describe themselves: pixels and record -> bytes of a format, and back."""

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
from t2i_core.storage import webp
from t2i_core.storage.formats import (
    FORMATS,
    Encoding,
    decode_image,
    encode_image,
    pixels_digest,
    read_header,
    read_image,
    without_texts,
)
from t2i_core.storage.png import HEADER

PILLOW = {"png": "PNG", "webp": "WEBP", "jpeg": "JPEG"}  # Pillow's names

each_format = pytest.mark.parametrize("form", FORMATS)
lossless = pytest.mark.parametrize("form", ["png", "webp"])


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (8, 12, 3), np.uint8)


def encode(pixels, form="png", **record):
    record = {"key": "k", "pixels_sha256": pixels_digest(pixels), **record}
    return encode_image(pixels, record, Encoding(form)).data


def picture(pixels, form):
    """A picture of another program."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format=PILLOW[form])
    return buffer.getvalue()


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


@each_format
@pytest.mark.parametrize(
    "prompt", ["一只狐狸 🦊 \u202bשלום", "a <b> & \"c\" ]]> 'd'", "a\r\n\tb", "\ufffe\uffff\x7f\x85"]
)
def test_an_image_carries_its_record_in_any_script(pixels, form, prompt):
    data = encode(pixels, form, prompt=prompt)
    image = decode_image(data)
    assert image.record == read_header(io.BytesIO(data))
    assert image.record["prompt"] == prompt
    assert image.pixels_sha256 == pixels_digest(pixels)


@each_format
def test_people_read_headers_too_so_that_nothing_is_escaped_without_need(pixels, form):
    assert "一只狐狸".encode() in encode(pixels, form, prompt="一只狐狸")


@lossless
def test_any_viewer_shows_the_pixels(pixels, form):
    with Image.open(io.BytesIO(encode(pixels, form))) as image:
        assert image.format == PILLOW[form]
        assert image.mode == "RGB"
        assert (np.asarray(image) == pixels).all()


def test_a_jpeg_says_which_pixels_it_was_made_from_and_which_it_shows(pixels):
    smooth = np.kron(pixels[:2, :3], np.ones((16, 16, 1), np.uint8))
    encoded = encode_image(smooth, {"key": "k", "pixels_sha256": pixels_digest(smooth)}, Encoding("jpeg"))
    image = decode_image(encoded.data)
    assert image.pixels_sha256 == image.record["pixels_sha256"] == pixels_digest(smooth)
    assert image.record == encoded.record
    with Image.open(io.BytesIO(encoded.data)) as shown:
        assert image.record["decoded_sha256"] == pixels_digest(np.asarray(shown)) != image.pixels_sha256
        assert shown.format == "JPEG"
        assert shown.size == (48, 32)
        assert np.abs(np.asarray(shown).astype(int) - smooth).mean() < 4


def test_the_quality_of_a_jpeg_is_what_was_asked_for(pixels):
    pixels = np.kron(pixels, np.ones((8, 8, 1), np.uint8))
    low, high = (encode_image(pixels, {}, Encoding("jpeg", jpeg_quality=q)).data for q in (30, 99))
    assert len(low) < len(high)


@each_format
def test_a_long_prompt_fits_into_the_header(pixels, form):
    data = encode(pixels, form, spec={"prompt": "fox " * 40_000})
    assert len(decode_image(data).record["spec"]["prompt"]) == 160_000


@each_format
def test_equal_records_make_equal_bytes(pixels, form):
    one = encode_image(pixels, {"a": 1, "b": 2}, Encoding(form)).data
    assert one == encode_image(pixels, {"b": 2, "a": 1}, Encoding(form)).data


def test_the_compression_level_changes_the_size_and_no_pixel():
    pixels = np.zeros((64, 64, 3), np.uint8)
    record = {"key": "k", "pixels_sha256": pixels_digest(pixels)}
    fast, small = (encode_image(pixels, record, Encoding(png_compress_level=level)).data for level in (0, 9))
    assert decode_image(fast).pixels_sha256 == decode_image(small).pixels_sha256
    assert len(fast) > 64 * 64 * 3 > len(small)


@each_format
@pytest.mark.parametrize("length", [1, 2, 70_000])
def test_without_its_texts_a_file_is_what_the_encoder_made_of_the_pixels(pixels, form, length):
    data = encode(pixels, form, spec={"prompt": "x" * length})
    bare = without_texts(data, form)
    assert bare == FORMATS[form].encode(Image.fromarray(pixels), Encoding(form))
    assert read_header(io.BytesIO(bare)) is None
    with Image.open(io.BytesIO(bare)) as image, Image.open(io.BytesIO(data)) as whole:
        assert (np.asarray(image) == np.asarray(whole)).all()
        assert not image.getexif()
        assert not {"xmp", "exif", "parameters", HEADER, "comment"} & set(image.info)


@each_format
@pytest.mark.parametrize("damage", ["torn", "foreign", "edited", "no digest"])
def test_what_is_not_whole_and_ours_is_no_image(pixels, form, damage):
    whole = encode(pixels, form)
    digest = pixels_digest(pixels)
    other = FORMATS[form].encode(Image.fromarray(255 - pixels), Encoding(form))
    texts = {"key": "k", "pixels_sha256": digest} | ({"decoded_sha256": digest} if form == "jpeg" else {})
    data = {
        "torn": whole[: len(whole) // 2],
        "foreign": picture(pixels, form),
        # Other pixels under the same record: what an editor that keeps texts would leave.
        "edited": encode_image(255 - pixels, texts, Encoding(form)).data
        if form != "jpeg"
        else whole.replace(without_texts(whole, form)[20:], other[20:]),
        "no digest": encode_image(pixels, {"key": "k"}, Encoding(form)).data,
    }[damage]
    if damage != "no digest" or form != "jpeg":  # of a lossy file the digest of what it decodes to is enough
        assert decode_image(data) is None


@pytest.mark.parametrize("damage", ["text", "empty", "no object", "no JSON", "too deep", "another format"])
def test_what_is_no_image_of_ours_is_none(pixels, damage):
    data = {
        "text": b"hello",
        "empty": b"",
        "no object": with_header(pixels, '["key"]'),
        "no JSON": with_header(pixels, "key"),
        "too deep": with_header(pixels, "[" * 100_000),
        "another format": with_header(pixels, "{}", "TIFF"),
    }[damage]
    assert decode_image(data) is None


def test_a_broken_chunk_is_no_image(pixels):
    data = bytearray(encode(pixels))
    data[data.index(b"IDAT") + 8] ^= 0xFF  # the checksum no longer holds
    assert decode_image(bytes(data)) is None


@pytest.mark.parametrize(("form", "pixels_begin"), [("png", b"IDAT"), ("jpeg", b"\xff\xda")])
def test_a_header_is_read_without_the_pixels(pixels, form, pixels_begin):
    """Names are checked by header: a run over 100,000 images must not decode them all."""
    data = encode(pixels, form, prompt="a fox")
    torn = data[: data.index(pixels_begin) + 20]
    assert read_header(io.BytesIO(torn))["prompt"] == "a fox"
    assert decode_image(torn) is None


def test_a_png_that_an_optimiser_packed_tighter_is_the_same_image():
    grey = np.repeat(np.arange(96, dtype=np.uint8).reshape(8, 12, 1), 3, axis=2)
    record = json.dumps({"key": "k", "pixels_sha256": pixels_digest(grey)})
    assert decode_image(with_header(grey[:, :, 0], record)).pixels_sha256 == pixels_digest(grey)


def test_no_decoder_but_those_of_the_formats_sees_a_file(monkeypatch):
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
    assert decode_image(b"GIF89a") is None
    assert read_header(io.BytesIO(b"GIF89a")) is None
    assert seen == []


@pytest.mark.parametrize("data", [b"", b"hello", b"\x89PNG no", b"RIFF\4\0\0\0WEBP", b"\xff\xd8\xff"])
def test_what_is_no_image_has_no_record(data):
    assert read_header(io.BytesIO(data)) is None


def test_pictures_of_others_and_other_json_have_no_record(pixels):
    deep = with_header(pixels, "[" * 100_000)
    others = [picture(pixels, form) for form in FORMATS]
    for data in (*others, with_header(pixels, "[1]"), with_header(pixels, "{"), deep):
        assert read_header(io.BytesIO(data)) is None


@pytest.mark.parametrize(
    "xmp",
    [
        "no XML",
        "<a><b></a>",
        '<!DOCTYPE a [<!ENTITY e "{}">]><a xmlns:t="urn:text2image:1.0"><t:record>&e;</t:record></a>',
        '<a xmlns:t="urn:other"><t:record>{}</t:record></a>',
        '<a xmlns:t="urn:text2image:1.0"><t:record/></a>',
    ],
)
def test_xmp_of_another_kind_has_no_record_and_declares_no_entities(pixels, xmp):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="WEBP", lossless=True, xmp=xmp.encode())
    assert read_header(io.BytesIO(buffer.getvalue())) is None


def test_the_record_of_a_webp_whose_xmp_another_program_rewrote_is_found(pixels):
    xmp = f"<a xmlns:other='{webp.RECORD_NAMESPACE}' other:record='{{\"key\": 5}}'/>"
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="WEBP", lossless=True, xmp=xmp.encode())
    assert read_header(io.BytesIO(buffer.getvalue())) == {"key": 5}


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
        assert decode_image(data) is None
        assert read_header(io.BytesIO(data)) in (None, {"key": "k", "pixels_sha256": "0"})
    assert shown == []


@each_format
@pytest.mark.parametrize("seed", range(8))
def test_bytes_changed_at_random_are_one_error_and_no_warning(pixels, form, seed):
    """Some changes are behind whole checksums, as a program that writes PNGs badly would leave them."""
    random = Random(seed)
    whole = encode(pixels, form)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(200):
            data = bytearray(whole)
            for _ in range(random.choice([1, 1, 3])):
                data[random.randrange(len(data))] = random.randrange(256)
            if form == "png" and random.random() < 0.7:
                data = with_right_checksums(bytes(data))
            image, header = decode_image(bytes(data)), read_header(io.BytesIO(bytes(data)))
            # The record of a JPEG has no checksum, and does not follow from its pixels.
            assert image is None or form == "jpeg" or image.pixels_sha256 == pixels_digest(pixels)
            assert header is None or isinstance(header, dict)


def with_right_checksums(data):
    result, at = data[:8], 8
    while at + 12 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        result += chunk(data[at + 4 : at + 8], data[at + 8 : at + 8 + length])
        at += 12 + length
    return result


@each_format
def test_an_image_with_more_pixels_than_pillow_likes_is_read(monkeypatch, pixels, form):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50)  # as an image of 9,600² pixels is to the real limit
    data = encode(pixels, form)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_image(data).pixels_sha256 == pixels_digest(pixels)
        assert read_header(io.BytesIO(data)) is not None


@pytest.mark.parametrize(("width", "height"), [(16384, 8), (14_000, 14_000)])
def test_what_a_webp_cannot_hold_or_pillow_cannot_read_back_is_refused(width, height):
    image = Image.new("1", (width, height))
    with pytest.raises(ValueError, match=f"{width}x{height} is too large for WebP; use --image-format png"):
        FORMATS["webp"].encode(image, Encoding("webp"))
