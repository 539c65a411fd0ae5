"""Keys and seeds are promises to every output ever made: literal values, never recomputed."""

from dataclasses import MISSING, fields, replace

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from t2i_core.hashing import derive_seed
from t2i_core.spec import ARGUMENTS, SHARED_ARGUMENTS, Argument, ImageSpec, KeyMaker

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
        ("scheduler_options", '{"use_karras_sigmas": true}'),
        ("adapters", (("ab" * 32, 1.0),)),
        ("attention", "flash3"),
        ("tf32", True),
        ("step_cache", "taylorseer"),
        ("pixels_version", 2),
    ],
)
def test_whatever_decides_the_pixels_changes_the_key(field, value):
    assert ImageSpec(**{**PLAIN, field: value}).key != ImageSpec(**PLAIN).key


def test_numbers_have_one_form():
    assert ImageSpec(**PLAIN, guidance_scale=3).key == ImageSpec(**PLAIN, guidance_scale=3.0).key
    assert ImageSpec(**PLAIN, guidance_scale=-0.0).key == ImageSpec(**PLAIN, guidance_scale=0.0).key
    for weights in ((1, 1.0), (0.0, -0.0)):
        one, other = (ImageSpec(**PLAIN, adapters=(("ab" * 32, weight),)) for weight in weights)
        assert one.key == other.key


def test_a_field_at_its_default_is_not_in_the_key():
    assert "negative_prompt" not in ImageSpec(**PLAIN).canonical()
    assert "recipe" in ImageSpec(**PLAIN).canonical()


@settings(deadline=None)
@given(st.integers(), st.text(), st.integers())
def test_seeds_have_32_bits(base, prompt, occurrence):
    assert 0 <= derive_seed(base, prompt, occurrence) < 2**32


def test_specs_share_a_batch_only_with_equal_call_arguments():
    one = ImageSpec(**PLAIN)
    assert one.call_group == ImageSpec(**{**PLAIN, "prompt": "b", "seed": 1}).call_group
    for field, value in [("steps", 3), ("height", 8), ("guidance_scale", 1.0), ("negative_prompt", "x")]:
        assert one.call_group != ImageSpec(**{**PLAIN, field: value}).call_group


def test_every_field_says_how_it_is_stored_and_called():
    assert ARGUMENTS.keys() == {item.name for item in fields(ImageSpec)}
    assert all(isinstance(argument, Argument) for argument in ARGUMENTS.values())
    assert list(ARGUMENTS)[:2] == ["prompt", "seed"]  # what people look for in a table


def test_the_call_takes_each_shared_argument_under_its_keyword():
    """The keywords of diffusers."""
    assert SHARED_ARGUMENTS == {
        "height": "height",
        "width": "width",
        "steps": "num_inference_steps",
        "guidance_scale": "guidance_scale",
        "true_cfg_scale": "true_cfg_scale",
        "max_sequence_length": "max_sequence_length",
    }


@pytest.mark.parametrize("field", SHARED_ARGUMENTS)
def test_specs_that_differ_in_a_shared_argument_do_not_share_a_batch(field):
    one = ImageSpec(**FULL)
    assert one.call_group != replace(one, **{field: getattr(one, field) + 1}).call_group


def test_arguments_of_single_images_do_not_keep_them_apart():
    one = ImageSpec(**FULL)
    own = {"prompt": "b", "seed": 1, "negative_prompt": "blurry"}
    assert one.call_group == replace(one, **own).call_group


def test_a_new_field_at_its_default_changes_no_key():
    """Every field has such a default but those of the first version, which are in every key."""
    first = {"model", "dtype", "prompt", "seed", "height", "width", "steps"}
    assert {item.name for item in fields(ImageSpec) if item.default is MISSING} == first
    assert ImageSpec(**PLAIN).canonical().keys() == first | {"recipe"}


@st.composite
def specs(draw):
    """Specs with any value in any field, as their columns can hold them."""
    values = {
        pa.bool_(): st.booleans(),
        pa.string(): st.text(st.characters(exclude_categories=["Cs"])),
        pa.int32(): st.integers(1, 2**31 - 1),
        pa.int64(): st.integers(-(2**63), 2**63 - 1),
        pa.float64(): st.floats(allow_nan=False, allow_infinity=False),
    }
    made = {}
    for item in fields(ImageSpec):
        value = values[ARGUMENTS[item.name].column]
        if item.name == "adapters":
            value = st.lists(st.tuples(st.text("0123456789abcdef"), st.floats(-4, 4))).map(tuple)
        made[item.name] = draw(value if item.default is MISSING else st.just(item.default) | value)
    return ImageSpec(**made)


@settings(deadline=None)
@given(specs())
def test_a_spec_survives_its_row_with_its_key(spec):
    row = spec.to_row()
    assert row.keys() == ARGUMENTS.keys()
    assert ImageSpec.from_row(row | {"another": "column"}) == spec
    schema = pa.schema([(name, argument.column) for name, argument in ARGUMENTS.items()])
    (stored,) = pa.Table.from_pylist([row], schema).to_pylist()
    again = ImageSpec.from_row(stored)
    assert again == spec
    assert again.key == spec.key


OTHERS = {"negative_prompt": "x", "tf32": True, "guidance_scale": 3, "adapters": (("ab" * 32, 1),)}


@pytest.mark.parametrize("values", [PLAIN, FULL, PLAIN | OTHERS, PLAIN | {"prompt": '"seed":1,', "pixels_version": 2}])
def test_keys_made_by_the_million_are_those_of_specs(values):
    example = ImageSpec(**values)
    keys = KeyMaker(example)
    for prompt, seed in (("a fox", 0), ('"seed":1,', 2**32), ("Füchse \U0001f98a\ud800\n", 7)):
        assert keys.key(prompt, seed) == replace(example, prompt=prompt, seed=seed).key
