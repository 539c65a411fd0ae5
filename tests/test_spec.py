"""Keys and seeds are promises to every output ever made: literal values, never recomputed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from t2i_core.hashing import derive_seed
from t2i_core.spec import ImageSpec

PLAIN = {"model": "0" * 64, "prompt": "a fox", "seed": 7, "height": 64, "width": 64, "steps": 12, "dtype": "float32"}
FULL = {
    **PLAIN,
    "prompt": "一只狐狸 🦊",
    "negative_prompt": "",
    "guidance_scale": 3.5,
    "true_cfg_scale": 2.5,
    "max_sequence_length": 24,
    "scheduler": "EulerDiscreteScheduler",
    "adapters": (("ab" * 32, 0.8),),
}


def test_keys_of_the_first_version_never_change():
    assert ImageSpec(**PLAIN).key == "8c7d16686553613fd2f9d948605c8f50aec8817c2bbc207794b48b66e544fcbf"
    assert ImageSpec(**FULL).key == "70643fbc9924b301c238af0a7b09aef8029d1095c5ab71cc520498126cb33f44"


def test_derived_seeds_never_change():
    assert derive_seed(0, "a fox", 0, 0) == 3483141891
    assert derive_seed(0, "a fox", 1, 0) == 1570351600


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("model", "1" * 64),
        ("prompt", "a fox "),
        ("seed", 8),
        ("height", 72),
        ("width", 72),
        ("steps", 11),
        ("dtype", "bfloat16"),
        ("negative_prompt", ""),
        ("guidance_scale", 3.5),
        ("true_cfg_scale", 2.5),
        ("max_sequence_length", 24),
        ("scheduler", "EulerDiscreteScheduler"),
        ("adapters", (("ab" * 32, 1.0),)),
        ("pixels_version", 2),
    ],
)
def test_whatever_decides_the_pixels_changes_the_key(field, value):
    assert ImageSpec(**{**PLAIN, field: value}).key != ImageSpec(**PLAIN).key


def test_numbers_have_one_form():
    assert ImageSpec(**PLAIN, guidance_scale=3).key == ImageSpec(**PLAIN, guidance_scale=3.0).key
    assert ImageSpec(**PLAIN, guidance_scale=-0.0).key == ImageSpec(**PLAIN, guidance_scale=0.0).key


def test_a_field_at_its_default_is_not_in_the_key():
    assert "negative_prompt" not in ImageSpec(**PLAIN).canonical()
    assert "recipe" in ImageSpec(**PLAIN).canonical()


@given(st.integers(), st.text(), st.integers())
def test_seeds_have_32_bits(base, prompt, occurrence):
    assert 0 <= derive_seed(base, prompt, occurrence) < 2**32


def test_specs_share_a_batch_only_with_equal_call_arguments():
    one = ImageSpec(**PLAIN)
    assert one.call_group == ImageSpec(**{**PLAIN, "prompt": "b", "seed": 1}).call_group
    for field, value in [("steps", 3), ("height", 8), ("guidance_scale", 1.0), ("negative_prompt", "x")]:
        assert one.call_group != ImageSpec(**{**PLAIN, field: value}).call_group
