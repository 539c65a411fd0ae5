"""What other programs read of an image: A1111's text, EXIF and XMP, in each format as Pillow finds them."""

import io
import json
import re
from importlib.util import find_spec
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from t2i_core.storage.formats import FORMATS, Encoding, encode_image
from t2i_core.storage.picture_texts import SAMPLERS, SOFTWARE, parameters_text
from tests.builders import image_record, image_spec

EXIF, SOFTWARE_TAG, USER_COMMENT = 0x8769, 0x0131, 0x9286
IPTC = "{http://iptc.org/std/Iptc4xmpExt/2008-02-29/}"

each_format = pytest.mark.parametrize("form", FORMATS)


def record(**spec):
    return image_record(image_spec(7, **spec)).header()


def opened(record, form, sampler="EulerDiscreteScheduler"):
    data = encode_image(np.zeros((8, 16, 3), np.uint8), record, Encoding(form), sampler).data
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


def parameters_in(image):
    """The text as A1111-style tools find it: `parameters` of a PNG, the user comment of other formats."""
    if image.format == "PNG":
        return image.info["parameters"]
    comment = image.getexif().get_ifd(EXIF)[USER_COMMENT]
    code, text = comment[:8], comment[8:]
    return text.decode({b"ASCII\0\0\0": "ascii", b"UNICODE\0": "utf-16-be"}[code])


def xmp_in(image):
    """{name: value} of the XMP."""
    (description,) = ElementTree.fromstring(image.info["xmp"])[0]
    return {element.tag: element.text for element in description}


def parse(text):
    """Return (prompt, negative prompt, {setting: value}) by the rules of A1111-style tools."""
    *lines, last = text.split("\n")
    settings = {
        name: json.loads(value) if value.startswith('"') else value
        for name, value in re.findall(r'(\w[\w /-]+): ("(?:\\.|[^"\\])*"|[^,]*)(?:, |$)', last)
    }
    at = next((i for i, line in enumerate(lines) if line.startswith("Negative prompt: ")), len(lines))
    negative = "\n".join(lines[at:]).removeprefix("Negative prompt: ")
    return "\n".join(lines[:at]), negative, settings


@each_format
@pytest.mark.parametrize("prompt", ["a fox", "a café", "一只狐狸 🦊", 'a, b: "c"\nd <e> & f'])
def test_other_tools_read_prompt_and_settings(form, prompt):
    values = record(
        prompt=prompt, negative_prompt="blurry,\nugly: ü", steps=20, seed=12, height=512, width=768, guidance_scale=7.5
    )
    values["model_name"] = 'a.safetensors, base "owner/name"'
    shown, negative, settings = parse(parameters_in(opened(values, form)))
    assert (shown, negative) == (prompt, "blurry,\nugly: ü")
    assert settings == {
        "Steps": "20",
        "Sampler": "Euler",
        "CFG scale": "7.5",
        "Seed": "12",
        "Size": "768x512",
        "Model": 'a.safetensors, base "owner/name"',
        "Version": SOFTWARE,
    }


def test_latin_text_of_a_png_is_in_the_chunk_that_every_reader_knows():
    for prompt, kind in (("a café", b"tEXtparameters\0"), ("一只狐狸", b"iTXtparameters\0")):
        data = encode_image(np.zeros((8, 8, 3), np.uint8), record(prompt=prompt), Encoding()).data
        assert kind in data


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({}, {}),
        ({"guidance_scale": 3.0}, {"CFG scale": "3"}),
        ({"true_cfg_scale": 2.5, "guidance_scale": 3.5}, {"CFG scale": "2.5", "Distilled CFG Scale": "3.5"}),
        ({"true_cfg_scale": 2.5}, {"CFG scale": "2.5"}),
    ],
)
def test_guidance_is_what_those_tools_call_it(spec, expected):
    _, negative, settings = parse(parameters_text(record(**spec)))
    assert {name: value for name, value in settings.items() if "CFG" in name} == expected
    assert negative == ""


@pytest.mark.parametrize(
    ("spec", "sampler", "expected"),
    [
        ({}, None, None),
        ({}, "FlowMatchEulerDiscreteScheduler", "Euler"),
        ({"scheduler": "UniPCMultistepScheduler"}, "FlowMatchEulerDiscreteScheduler", "UniPC"),
        ({}, "NewScheduler", "NewScheduler"),
    ],
)
def test_the_sampler_is_the_one_asked_for_or_else_the_models_own(spec, sampler, expected):
    assert parse(parameters_text(record(**spec), sampler))[2].get("Sampler") == expected


def test_karras_sigmas_are_a_schedule():
    assert "Schedule type: Karras" in parameters_text(record(scheduler_options='{"use_karras_sigmas": true}'))
    assert "Schedule type" not in parameters_text(record(scheduler_options='{"use_karras_sigmas": false}'))


def test_every_sampler_is_a_class_of_diffusers():
    folder = Path(find_spec("diffusers").origin).parent / "schedulers"
    source = "".join(path.read_text() for path in folder.glob("*.py"))
    assert [name for name in SAMPLERS if f"class {name}(" not in source] == []


@each_format
def test_xmp_says_that_a_model_made_the_picture_and_which(form):
    values = record(prompt="a <fox> & \x0b狐")
    image = opened(values, form)
    found = xmp_in(image)
    source = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
    assert found[f"{IPTC}DigitalSourceType"] == source
    assert found[f"{IPTC}AISystemUsed"] == values["model_name"]
    assert found[f"{IPTC}AIPromptInformation"] == "a <fox> & \ufffd狐"
    assert found["{http://ns.adobe.com/xap/1.0/}CreatorTool"] == SOFTWARE
    assert image.getexif()[SOFTWARE_TAG] == SOFTWARE


def test_where_a_jpeg_has_no_room_for_long_texts_it_still_says_what_made_it():
    image = opened(record(prompt="x" * 100_000), "jpeg")
    assert image.getexif()[SOFTWARE_TAG] == SOFTWARE
    assert xmp_in(image)[f"{IPTC}DigitalSourceType"].endswith("trainedAlgorithmicMedia")
