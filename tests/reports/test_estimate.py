"""What a run will take is said before it starts: in numbers that follow from the work, the disk and the speed."""

from collections import namedtuple
from dataclasses import replace

import pytest

from t2i_core.generation.interface import Speed
from t2i_core.models.presets import PRESETS
from t2i_core.planning.shards import WorkEstimate
from t2i_core.reports import estimate as module
from t2i_core.reports.estimate import BYTES_PER_PIXEL, disk_space, estimate_lines, rest_line, text_line
from tests.builders import image_spec, make_catalog, store_image

WORK = WorkEstimate(images=9, batches=5, shards=1, batch_size=2, pixels=9 * 64 * 64, pixel_steps=10 * 64 * 64 * 8)
SPEED = Speed(batch_size=2, seconds=3.0, pixel_steps=64 * 64 * 4, peak_bytes=5 * 10**9, memory_share=0.5)
Usage = namedtuple("Usage", "total used free")


def lines(work=WORK, weights_bytes=10**9, needed=1, free=2, speed=None):
    """The lines by their first word."""
    return dict(line.split(maxsplit=1) for line in estimate_lines(work, weights_bytes, needed, free, speed))


def test_the_work_is_told_in_images_batches_and_shards():
    assert lines()["work"] == "9 images to make, in 5 batches of 2, 1 shards"


@pytest.mark.parametrize(("images", "told"), [(9, None), (8, "20%"), (1, "90%")])
def test_padding_is_told_where_it_is_worth_a_line(images, told):
    work = replace(WORK, images=images)
    assert work.padding == pytest.approx(1 - images / 10)
    said = lines(work).get("padding")
    assert said is None if told is None else said.startswith(f"{told} of the model's work fills up batches")


def test_disk_that_is_too_small_is_told():
    assert lines(needed=3 * 10**9, free=3 * 10**9)["disk"] == "about 3.0 GB for the images; 3.0 GB are free"
    assert lines(needed=3 * 10**9, free=10**6)["disk"] == ("about 3.0 GB for the images; 1.0 MB are free: too little")


@pytest.mark.parametrize(
    ("size", "told"), [(0, "0.0 MB"), (99_900_000, "99.9 MB"), (100_000_000, "0.1 GB"), (24_060_000_000, "24.1 GB")]
)
def test_a_size_is_told_in_megabytes_or_gigabytes(size, told):
    assert lines(weights_bytes=size)["weights"] == f"{told}, by the size of their files"


def test_the_time_goes_by_pixels_and_steps():
    said = lines(speed=SPEED)
    assert said["time"] == "about 0:01:00: 3 s for an image like the first"
    assert said["memory"] == "5.0 GB at its peak"


def test_without_a_measured_speed_there_is_neither_time_nor_memory():
    assert set(lines()) == {"work", "disk", "weights"}


FLUX = {"num_attention_heads": 24, "attention_head_dim": 128}


def text(model="flux-dev", side=512, length=512, longest_prompt=200, denoiser=FLUX):
    spec = image_spec(height=side, width=side, max_sequence_length=length)
    return text_line(spec, PRESETS[model], denoiser, longest_prompt)


def test_the_share_of_text_in_a_sequence_and_what_half_of_it_would_save_are_told():
    assert text() == (
        "text      512 of 1536 tokens of an image like the first are text, padding included: --max-sequence-length 256 "
        "would save about 18% of the denoising, and generate other images; the longest prompt here has about 66 tokens "
        "at most"
    )
    # What other models add: the tokens of CLIP, and those that keep a mask.
    assert text("sd3.5-large").startswith("text      589 of 1613 tokens")
    assert text("qwen-image").startswith("text      528 of 1552 tokens")


def test_the_saving_agrees_with_the_operations_that_were_counted_of_flux():
    # TFLOP of a denoising step with 512 text tokens, by torch's counter: 21.5 at 512x512, 74.4 at 1024x1024.
    def operations(tokens, width=3072, layers=57):
        return tokens * layers * (24 * width**2 + 4 * width * tokens) / 1e12

    assert operations(1536) == pytest.approx(21.5, rel=0.01)
    assert operations(4608) == pytest.approx(74.4, rel=0.01)
    assert f"about {1 - operations(1280) / operations(1536):.0%}" in text()
    assert f"about {1 - operations(4352) / operations(4608):.0%}" in text(side=1024)


@pytest.mark.parametrize(
    "values",
    [
        {"side": 2048},  # it would save little
        {"longest_prompt": 600},  # it would cut a prompt
        {"model": "z-image"},  # does not pad
        {"model": "sana"},  # the image attends to the text
        {"length": None},
        {"denoiser": {}},
        {"denoiser": {"num_attention_heads": None, "attention_head_dim": 8}},
        {"model": "sdxl", "denoiser": {"num_attention_heads": None, "attention_head_dim": [5, 10, 20]}},  # a UNet
    ],
)
def test_no_word_of_text_where_less_of_it_would_not_help(values):
    assert text(**values) is None


def test_after_a_preview_the_rest_is_told_with_its_time():
    made = replace(WORK, images=3, pixel_steps=1000)
    rest = replace(WORK, images=40, pixel_steps=60_000)
    again = "; run the same command without --preview"
    assert rest_line(rest, made, 2.0) == f"rest      40 images, about 0:02:00 at this speed{again}"
    assert rest_line(rest, replace(made, images=0, pixel_steps=0), 2.0) == f"rest      40 images{again}"
    assert rest_line(rest, made, 0.0) == f"rest      40 images{again}"
    assert rest_line(replace(rest, images=0, pixel_steps=0), made, 2.0) == "rest      nothing is left to make"


def test_the_bytes_of_a_pixel_are_those_of_the_images_that_there_are(workspace, monkeypatch):
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: Usage(0, 0, 777))
    records = [store_image(workspace, image_spec(i, height=8 * (1 + i))) for i in range(2)]
    catalog = make_catalog(workspace, *(image_spec(i, height=8 * (1 + i)) for i in range(4)))
    per_pixel = sum(record.file_size for record in records) / (8 * 8 + 8 * 16)
    assert disk_space(WORK, catalog) == (int(WORK.pixels * per_pixel), 777)


def test_without_an_image_they_are_those_of_a_photograph(workspace):
    needed, free = disk_space(WORK, make_catalog(workspace, image_spec(0)))
    assert needed == int(WORK.pixels * BYTES_PER_PIXEL)
    assert free > 0


def test_the_disk_is_that_of_the_output_or_of_the_nearest_folder_that_there_is(tmp_path, monkeypatch):
    from t2i_core.planning.catalog import Catalog
    from t2i_core.storage.workspace import Workspace

    asked = []
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: asked.append(path) or Usage(0, 0, 1))
    elsewhere = make_catalog(Workspace(tmp_path / "there"), image_spec(0))
    new = Catalog(Workspace(tmp_path / "new/deep/out"), elsewhere.plan, elsewhere.index, elsewhere.scan)
    monkeypatch.setattr(Catalog, "bytes_per_pixel", lambda self: 1.0)
    disk_space(WORK, new)
    disk_space(WORK, elsewhere)
    assert asked == [tmp_path, tmp_path / "there"]
