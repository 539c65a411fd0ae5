"""Thumbnails: their size, and the numbers that say how a picture looks."""

import io

import numpy as np
import pytest
from PIL import Image

from t2i_core.storage.thumbnails import BLANK_CONTRAST, LOW_DETAIL, SIDE, make_thumbnail

HASH = "a" * 64


def gray(height, width, value):
    return np.full((height, width, 3), value, np.uint8)


def stripes(height, width):
    pixels = gray(height, width, 0)
    pixels[:, ::2] = 255
    return pixels


@pytest.mark.parametrize(
    ("size", "expected"),
    [((1024, 1024), (256, 256)), ((512, 1024), (256, 128)), ((2000, 8), (1, 256)), ((64, 48), (48, 64))],
)
def test_the_longer_side_is_as_long_as_a_thumbnail_s_and_small_pictures_keep_their_size(size, expected):
    with Image.open(io.BytesIO(make_thumbnail(gray(*size, 90), HASH).data)) as image:
        assert image.size == expected
        assert image.format == "JPEG"
    assert max(expected) <= SIDE


def test_a_small_picture_is_kept_nearly_as_it_is():
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    with Image.open(io.BytesIO(make_thumbnail(pixels, HASH).data)) as image:
        difference = np.abs(np.asarray(image, int) - pixels)
    assert difference.mean() < 12


@pytest.mark.parametrize(
    ("pixels", "look"),
    [
        (gray(8, 8, 0), (0, 0, 0, 0)),
        (gray(8, 8, 255), (1, 0, 0, 0)),
        (stripes(8, 8), (0.5, 0.5, 0, 0.5)),  # every neighbour to the side differs wholly, none below
        (gray(1, 1, 255), (1, 0, 0, 0)),
    ],
)
def test_how_a_picture_looks(pixels, look):
    found = make_thumbnail(pixels, HASH).look
    assert (found.brightness, found.contrast, found.colour, found.detail) == pytest.approx(look, abs=0.01)


def test_colour_is_the_difference_between_channels():
    pixels = gray(8, 8, 0)
    pixels[..., 0] = 255
    assert make_thumbnail(pixels, HASH).look.colour == 1


def test_a_flat_picture_is_blank_and_a_smooth_one_has_little_detail_and_noise_neither():
    slope = np.repeat(np.linspace(60, 200, 1024)[None, :, None], 1024, axis=0).repeat(3, axis=2).astype(np.uint8)
    noise = np.random.default_rng(0).integers(0, 256, (512, 512, 3), np.uint8)
    flat, smooth, rough = (make_thumbnail(pixels, HASH).look for pixels in (gray(512, 512, 90), slope, noise))
    assert flat.contrast < BLANK_CONTRAST < smooth.contrast
    assert smooth.detail < LOW_DETAIL < rough.detail
