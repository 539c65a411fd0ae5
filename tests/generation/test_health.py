"""What the model returned is a picture, or the image has failed."""

import numpy as np
import pytest

from t2i_core.errors import ImageFailure
from t2i_core.generation.health import checked_pixels
from tests.builders import image_spec, rounded

SPEC = image_spec(height=4, width=6)


def pixels(height=4, width=6):
    return np.random.default_rng(0).random((height, width, 3), np.float32)


def filled(colour):
    return np.full((4, 6, 3), colour, np.float32)


def failure(image):
    with pytest.raises(ImageFailure) as caught:
        checked_pixels(rounded(image), SPEC)
    return str(caught.value)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (filled(np.nan), "NaN or infinite pixels"),
        (filled(np.inf), "NaN or infinite pixels"),
        (filled(0), "the image is black"),
        (filled(0.5), "the image is a single colour"),
        (filled(1), "the image is a single colour"),
        (filled([0.1, 0.5, 0.9]), "the image is a single colour"),
        (filled([0, 0, 1]), "the image is a single colour"),
    ],
)
def test_what_a_cast_to_bytes_would_hide_is_a_failure(image, message):
    assert message in failure(image)
    assert "--reseed" in failure(image)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_one_bad_pixel_is_enough(value):
    image = pixels()
    image[1, 1, 1] = value
    assert "NaN or infinite" in failure(image)


@pytest.mark.parametrize(("low", "high"), [(-1, 1), (0, 2), (-0.001, 0.5)])
def test_pixels_outside_0_to_1_would_wrap_around_and_are_a_failure(low, high):
    image = pixels() * (high - low) + low
    image[0, 0], image[1, 1] = low, high
    assert failure(image).startswith(f"the model returned pixels from {low:.2f} to {high:.2f}, not in 0..1")


def test_pixels_of_another_size_are_a_failure_that_names_both():
    assert failure(pixels(4, 8)) == "the model returned 8x4 pixels for 6x4; ask for a size it takes"
    assert "4x6 pixels for 6x4" in failure(pixels(6, 4))
    assert "6x4 pixels for 6x4" in failure(pixels()[:, :, :2])


def test_a_difference_of_one_step_of_a_channel_is_a_picture():
    image = filled(0)
    image[2, 3, 1] = 1 / 255
    assert checked_pixels(rounded(image), SPEC).sum() == 1
    image[2, 3, 1] = 0.9 / 255
    assert "black" in failure(image)
    image = filled(0.5)
    image[0, 0, 2] += 1.5 / 255
    assert checked_pixels(rounded(image), SPEC).shape == (4, 6, 3)


def test_colours_that_differ_between_channels_only_are_no_picture():
    """Spread is looked at by channel: a red image is as empty as a grey one."""
    image = filled([1, 0, 0])
    image[:, 3:] = [1, 0, 0.3 / 255]
    assert "a single colour" in failure(image)
