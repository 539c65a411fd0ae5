"""The perceptual hash: images that look alike have nearly equal hashes."""

import io

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from t2i_core.scoring.interface import ScoredImage
from t2i_core.scoring.perceptual_hash import PerceptualHash


def hash_of(image):
    (value,) = PerceptualHash().score([ScoredImage(np.asarray(image), "")])["score_phash"]
    assert len(value) == 16
    return int(value, 16)


def scene(seed):
    small = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), np.uint8)
    return Image.fromarray(small).resize((240, 240), Image.Resampling.BICUBIC)


def as_jpeg(image):
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=40)
    return Image.open(buffer).convert("RGB")


@pytest.mark.parametrize(
    "change",
    [lambda image: image.resize((90, 90)), as_jpeg, lambda image: ImageEnhance.Brightness(image).enhance(0.8)],
    ids=["smaller", "jpeg", "darker"],
)
def test_a_change_that_hardly_shows_changes_few_bits(change):
    assert all((hash_of(scene(seed)) ^ hash_of(change(scene(seed)))).bit_count() <= 4 for seed in range(5))


def test_other_images_differ_in_about_half_of_the_bits():
    hashes = [hash_of(scene(seed)) for seed in range(12)]
    distances = [(one ^ other).bit_count() for i, one in enumerate(hashes) for other in hashes[:i]]
    assert min(distances) > 12
    assert 24 < np.mean(distances) < 40


def test_the_bits_are_those_of_imagehash():
    y, x = np.mgrid[:64, :64]
    grey = (127 + 60 * np.sin(x / 7) + 60 * np.cos(y / 5 + x / 11)).astype(np.uint8)
    found = hash_of(np.repeat(grey[..., None], 3, axis=2))
    assert f"{found:016x}" == "e03f6a3f6ac097c0"  # by imagehash 4.3.2
