"""Images that describe themselves, and what is no picture."""

import numpy as np
import pytest

from t2i_core.errors import ImageFailure
from t2i_core.storage.png import pixels_digest, read_header, read_image, to_bytes, write_image


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (8, 12, 3), np.uint8)


def write(path, pixels, level=1, **record):
    write_image(path, pixels, {"key": "k", "pixels_sha256": pixels_digest(pixels), **record}, level)
    return path


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.full((4, 4, 3), np.nan, np.float32), "NaN"),
        (np.full((4, 4, 3), np.inf, np.float32), "NaN or infinite"),
        (np.zeros((4, 4, 3), np.float32), "black"),
        (np.full((4, 4, 3), 0.5, np.float32), "a single colour"),
        (np.full((4, 4, 3), [0.1, 0.5, 0.9], np.float32), "a single colour"),
    ],
)
def test_what_a_cast_to_bytes_would_hide_is_a_failure(image, message):
    with pytest.raises(ImageFailure, match=message):
        to_bytes(image)


def test_one_bad_pixel_is_enough_for_nan():
    image = np.random.default_rng(0).random((4, 4, 3), np.float32)
    image[1, 1, 1] = np.nan
    with pytest.raises(ImageFailure, match="NaN"):
        to_bytes(image)


def test_floats_become_bytes_as_diffusers_does_it():
    image = np.linspace(0, 1, 48, dtype=np.float32).reshape(4, 4, 3)
    assert (to_bytes(image) == (image * 255).round().astype("uint8")).all()


def test_a_stored_image_carries_its_record_and_is_read_only(tmp_path, pixels):
    path = write(tmp_path / "ab" / "x.png", pixels, prompt="一只狐狸 🦊 \u202bשלום")
    assert read_header(path)["prompt"] == "一只狐狸 🦊 \u202bשלום"
    assert read_image(path).pixels_sha256 == pixels_digest(pixels)
    assert path.stat().st_mode & 0o777 == 0o444
    assert [p.name for p in path.parent.iterdir()] == ["x.png"]


def test_a_long_prompt_fits_into_the_header(tmp_path, pixels):
    path = write(tmp_path / "x.png", pixels, prompt="fox " * 10_000)
    assert len(read_image(path).record["prompt"]) == 40_000


def test_the_compression_level_changes_no_pixel(tmp_path, pixels):
    fast, small = (read_image(write(tmp_path / f"{n}.png", pixels, n)) for n in (0, 9))
    assert fast.pixels_sha256 == small.pixels_sha256


@pytest.mark.parametrize("damage", ["torn", "foreign", "text", "edited", "empty"])
def test_what_is_not_whole_and_ours_is_no_image(tmp_path, pixels, damage):
    path = write(tmp_path / "x.png", pixels)
    whole = path.read_bytes()
    path.chmod(0o644)
    if damage == "torn":
        path.write_bytes(whole[: len(whole) // 2])
    elif damage == "text":
        path.write_text("hello")
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "edited":
        # Other pixels under the same record: what an editor that keeps text chunks would leave.
        path.unlink()
        write_image(path, 255 - pixels, {"key": "k", "pixels_sha256": pixels_digest(pixels)}, 1)
    else:
        from PIL import Image

        Image.fromarray(pixels).save(path)
    assert read_image(path) is None
