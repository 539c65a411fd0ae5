"""What is said of an image file: of one of ours everything, of any other in one line why it tells nothing."""

import io
import re
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from t2i_core.errors import OutputError
from t2i_core.reports.picture_lines import picture_lines, read_picture_file
from t2i_core.storage.formats import FORMATS, Encoding, encode_image, pixels_digest, without_texts
from tests.builders import flip_a_byte, image_record, image_spec, picture

SPEC = image_spec(3, prompt="a fox", negative_prompt="")


def encoded(form="png", spec=SPEC, pixels=None, **facts):
    digest = pixels_digest(picture(spec))
    record = image_record(spec, **{"pixels_sha256": digest, "versions": {}} | facts).header()
    return encode_image(picture(spec) if pixels is None else pixels, record, Encoding(form)).data


@pytest.fixture
def lines(tmp_path):
    """What is said of a file with this content, as {first word: the rest}."""

    def read(data):
        path = tmp_path / "picture"
        path.write_bytes(data)
        text = picture_lines(read_picture_file(path), "text2image")
        return text, dict(re.findall(r"(?m)^(\w+) +(.*)$", text))

    return read


@pytest.mark.parametrize("form", FORMATS)
def test_a_picture_of_any_format_tells_everything(lines, form):
    facts = {"batch_size": 4, "seconds": 0.25, "vae_tiling": True, "commit": "c" * 40, "replaces": "a" * 64}
    length = {"encoder": "T5", "tokens": 80, "limit": 77, "cut": "the rest", "unknown": 2, "unread": 0.5}
    text, told = lines(encoded(form, options={"model": "m"}, prompt_lengths=[length], **facts))
    assert "DAMAGED" not in text
    assert (told["prompt"], told["seed"], told["steps"]) == ("a fox", "3", "4")
    assert told["negative_prompt"] == "(empty)"
    assert told["prompt_lengths"] == "T5: 80 of 77 tokens, 2 unknown, cut: the rest"
    assert told["key"] == SPEC.key
    assert told["pixels_sha256"] == pixels_digest(picture(SPEC))
    assert told["options"] == "model m"
    for name, value in facts.items():
        assert told[name] == str(value)
    assert f"--output=again-{SPEC.key[:12]}" in text
    assert "decoded in tiles" in text


def test_a_prompt_reaches_the_terminal_without_control_characters(lines):
    text, told = lines(encoded(spec=image_spec(0, prompt="a\x1b[31m fox\nand \u202ea cat\x07")))
    assert "\x1b" not in text and "\u202e" not in text and "\x07" not in text
    assert told["prompt"] == "a\\x1b[31m fox"
    assert "\n" + " " * 22 + "and \\u202ea cat\\x07" in text


def test_the_adapters_of_an_image_are_told_and_what_is_missing_to_make_it_again(lines):
    text, told = lines(encoded(spec=image_spec(0, adapters=(("b" * 64, 0.5),))))
    assert told["adapter"] == f"SHA-256 {'b' * 64}, weight 0.5"
    assert "note: --lora FILE:0.5" in text


def test_other_versions_and_files_that_are_not_here_are_noted(lines, tmp_path):
    here = tmp_path / "here.safetensors"
    here.touch()
    options = {"model": "./gone", "lora": [f"{here}:0.5", "/gone too:1"], "transformer": "owner/name"}
    text, _ = lines(encoded(options=options, versions={"numpy": np.__version__, "pillow": "0.1", "nowhere": "1"}))
    notes = [line.removeprefix("note: ") for line in text.splitlines() if line.startswith("note: ")]
    assert [note.split(";")[0] for note in notes] == [
        "model ./gone is not here",
        "lora /gone too is not here",
        "made with nowhere 1",
        "made with pillow 0.1",
    ]


@pytest.mark.parametrize("form", FORMATS)
def test_a_damaged_file_says_so_and_tells_what_it_carries(lines, form):
    data = encoded(form, spec=image_spec(3, height=64, width=64))
    if form == "webp":  # its texts are behind the pixels
        at = data.index(b"VP8L") + 200
        data = data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :]
    _, told = lines(data if form == "webp" else data[:-200])
    assert "DAMAGED: " in told["file"]
    assert told["prompt"] == "p3"


def test_a_changed_byte_and_edited_pixels_are_damage(lines, tmp_path):
    path = tmp_path / "stored.png"
    path.write_bytes(encoded())
    flip_a_byte(path)
    assert "DAMAGED" in lines(path.read_bytes())[1]["file"]
    assert "its pixels are not those" in lines(encoded(pixels=255 - picture(SPEC)))[1]["file"]


def test_a_record_that_was_changed_is_damage(lines):
    data = encoded("jpeg")
    assert b'"prompt": "a fox"' in data
    _, told = lines(data.replace(b'"prompt": "a fox"', b'"prompt": "a cat"'))
    assert "its record was changed" in told["file"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "no PNG, WebP or JPEG"),
        (b"hello", "no PNG, WebP or JPEG"),
        (without_texts(encoded(), "png"), "no record of this tool"),
        (encode_image(picture(SPEC), {"key": "k"}, Encoding()).data, "does not say what the image was made from"),
        (encode_image(picture(SPEC), {"spec": {"seed": 1}}, Encoding()).data, "does not say what"),
    ],
)
def test_a_file_that_tells_nothing_is_refused_in_one_line(lines, content, reason):
    with pytest.raises(OutputError, match=reason) as error:
        lines(content)
    assert "\n" not in str(error.value)


def test_a_picture_of_another_program_is_refused(lines):
    buffer = io.BytesIO()
    Image.fromarray(picture(SPEC)).save(buffer, "JPEG")
    with pytest.raises(OutputError, match="Another program made it"):
        lines(buffer.getvalue())


def test_a_folder_and_a_file_that_is_not_there_are_refused(tmp_path):
    (tmp_path / "sample0.png").touch()
    for name, reason in ((".", "cannot be read: Is a directory"), ("sample1.png", "does not exist")):
        with pytest.raises(OutputError, match=reason):
            read_picture_file(tmp_path / name)


@pytest.mark.parametrize("release", ["before-0.1.0", "0.1.0"])
def test_pictures_of_earlier_versions_tell_what_they_know(lines, release):
    with tarfile.open(Path(__file__).parent.parent / "data" / f"{release}.tar.gz") as archive:
        data = next(archive.extractfile(item).read() for item in archive if item.name.endswith(".png") and item.isreg())
    text, told = lines(data)
    assert "DAMAGED" not in text
    assert told["model"].startswith("demo, ")
    assert "--model=demo --dtype=float32 --height=32 --width=32" in text
    assert "options" not in told
