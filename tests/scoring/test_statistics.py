"""The statistics of pixels: each number rises with what its name says, and is what docs/scores.md says."""

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from t2i_core.bundled import CAPTION_FONT
from t2i_core.scoring.interface import ScoredImage
from t2i_core.scoring.statistics import Statistics

NOISE = np.random.default_rng(0).integers(0, 256, (256, 256, 3), np.uint8)


def stats(pixels):
    columns = Statistics().score([ScoredImage(np.asarray(pixels, np.uint8), "")])
    return {name.removeprefix("score_"): values[0] for name, values in columns.items()}


def plain(*colour, side=256):
    return np.broadcast_to(np.array(colour, np.uint8), (side, side, 3))


def checkers(low, high):
    """Return squares of two greys in equal numbers."""
    grid = (np.indices((64, 64)).sum(axis=0) // 8) % 2
    return np.where(grid[..., None], high, low).repeat(3, axis=2)


def test_a_plain_image_has_no_sharpness_contrast_entropy_or_colour():
    found = stats(plain(51, 51, 51))
    assert found == {
        "sharpness": 0, "brightness": 0.2, "contrast": 0, "entropy": 0, "colorfulness": 0, "text_free": 1,
    }  # fmt: skip


def test_brightness_contrast_and_entropy_are_those_of_the_levels():
    found = stats(checkers(0, 255))
    assert (found["brightness"], found["contrast"], found["entropy"]) == (0.5, 0.5, 1)
    assert stats(checkers(64, 128))["contrast"] == pytest.approx(32 / 255, abs=1e-6)


def test_sharpness_is_the_variance_of_the_laplacian_and_falls_when_an_image_is_blurred():
    row = np.array([0, 0, 90, 0, 0], np.uint8)
    pixels = np.broadcast_to(row[None, :, None], (3, 5, 3))
    assert stats(pixels)["sharpness"] == pytest.approx(np.var([90, -180, 90]))
    blurred = Image.fromarray(NOISE).filter(ImageFilter.GaussianBlur(2))
    assert stats(blurred)["sharpness"] < stats(NOISE)["sharpness"] / 50
    assert stats(plain(1, 2, 3, side=2))["sharpness"] == 0


def test_colourfulness_is_zero_for_grey_and_rises_with_colours():
    halves = np.concatenate([plain(255, 0, 0), plain(0, 0, 255)])
    assert stats(np.repeat(NOISE[..., :1], 3, axis=2))["colorfulness"] == 0
    assert stats(halves)["colorfulness"] > 80 > stats((halves // 4).astype(np.uint8) + 96)["colorfulness"] > 0


def page(size, lines):
    image = Image.fromarray(np.tile(np.linspace(60, 200, 512, dtype=np.uint8)[None, :, None], (512, 1, 3)))
    draw, font = ImageDraw.Draw(image), ImageFont.truetype(str(CAPTION_FONT), size)
    for line in range(lines):
        draw.text(
            (16, 16 + line * size * 1.5), "The quick brown fox jumps over the lazy dog " * 2, font=font, fill="black"
        )
    return image


@pytest.mark.parametrize("size", [12, 18, 24])
def test_lines_of_text_are_seen_whatever_their_size(size):
    full = stats(page(size, int(480 / size / 1.5)))["text_free"]
    caption = stats(page(size, 2))["text_free"]
    assert full < 0.5 < caption < 1


def test_noise_stripes_and_gradients_are_no_text():
    stripes = np.broadcast_to((np.arange(512) // 5 % 2 * 255)[None, :, None], (512, 512, 3))
    assert [stats(pixels)["text_free"] for pixels in (NOISE, stripes, page(12, 0))] == [1, 1, 1]


def test_an_image_too_small_for_text_says_nothing_of_it():
    assert stats(NOISE[:255])["text_free"] is None
