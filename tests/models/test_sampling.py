"""Sampling settings: row over configuration over preset, and the refusal of what a model would ignore or change."""

from dataclasses import asdict, replace

import pytest

from t2i_core.config import Config, RowSettings
from t2i_core.errors import ConfigError
from t2i_core.models.presets import PRESETS, Preset
from t2i_core.models.sampling import resolve_sampling, row_sampling
from t2i_core.spec import Sampling

# A made-up model: it takes every argument, and a negative prompt with guidance_scale.
PRESET = Preset(
    name="model",
    repository="owner/model",
    pipeline_class="Pipeline",
    steps=20,
    height=512,
    width=256,
    guidance_scale=3.5,
    optional=("negative_prompt",),
    max_sequence_length=77,
    size_multiple=16,
)
# One that takes a negative prompt with true_cfg_scale, as FLUX.1-dev does.
TRUE_CFG = replace(PRESET, true_cfg_scale=1.0)
# One that takes neither guidance, nor a text length, nor a negative prompt.
BARE = replace(PRESET, guidance_scale=None, max_sequence_length=None, optional=())


def resolve(preset: Preset = PRESET, **values: object) -> Sampling:
    return resolve_sampling(Config.from_values({"dataset": "x.jsonl", "model": "owner/model"} | values), preset)


def problems(preset: Preset = PRESET, **values: object) -> list[str]:
    with pytest.raises(ConfigError) as error:
        resolve(preset, **values)
    return error.value.problems


def row_problem(preset: Preset = PRESET, run: Sampling | None = None, **values: object) -> str | None:
    return row_sampling(RowSettings.model_validate(values), run or resolve(preset), preset)[1]


def test_without_settings_they_are_the_presets() -> None:
    assert resolve() == Sampling(height=512, width=256, steps=20, guidance_scale=3.5, max_sequence_length=77)


def test_the_configuration_goes_before_the_preset() -> None:
    values = {
        "height": 64, "width": 128, "steps": 3, "guidance_scale": 2.0, "max_sequence_length": 10,
        "negative_prompt": "blurry", "scheduler": "EulerDiscreteScheduler",
    }  # fmt: skip
    assert asdict(resolve(**values)) == values | {"true_cfg_scale": None, "scheduler_options": None}


def test_a_row_goes_before_the_configuration_and_the_preset() -> None:
    run = resolve(steps=3, height=64)
    sampling, problem = row_sampling(RowSettings(steps=5, guidance_scale=7.0, negative_prompt="x"), run, PRESET)
    assert problem is None
    assert sampling == replace(run, steps=5, guidance_scale=7.0, negative_prompt="x")
    assert (sampling.height, sampling.width) == (64, 256)


def test_zero_and_an_empty_text_are_settings() -> None:
    assert resolve(guidance_scale=0.0).guidance_scale == 0
    assert resolve(negative_prompt="").negative_prompt == ""
    assert row_sampling(RowSettings(guidance_scale=0.0), resolve(), PRESET)[0].guidance_scale == 0


@pytest.mark.parametrize("settings", [RowSettings(), RowSettings(seed=7, images_per_prompt=3), RowSettings(steps=None)])
def test_a_row_without_sampling_settings_has_the_object_of_the_run(settings: RowSettings) -> None:
    run = resolve()
    sampling, problem = row_sampling(settings, run, PRESET)
    assert sampling is run
    assert problem is None


@pytest.mark.parametrize(
    ("name", "value"), [("guidance_scale", 3.5), ("true_cfg_scale", 2.0), ("max_sequence_length", 64)]
)
def test_an_argument_that_the_model_does_not_take_is_refused(name: str, value: float) -> None:
    assert f"{name}: model does not use it; leave it out" in problems(BARE, **{name: value})


def test_every_argument_that_the_model_does_not_take_has_its_own_line() -> None:
    found = problems(BARE, guidance_scale=3.5, max_sequence_length=64, height=500)
    assert [line.partition(":")[0] for line in found] == ["guidance_scale", "max_sequence_length", "height"]


def test_an_argument_that_the_model_does_not_take_is_refused_for_a_row() -> None:
    assert row_problem(BARE, guidance_scale=2.0) == "guidance_scale: model does not use it; leave it out"
    assert row_problem(PRESET, guidance_scale=2.0) is None


def test_all_problems_of_a_row_are_one_line() -> None:
    assert row_problem(BARE, guidance_scale=2.0, width=100) == (
        "guidance_scale: model does not use it; leave it out; "
        "width: model takes multiples of 16; use 96 or 112 (got 100)"
    )


@pytest.mark.parametrize(
    ("preset", "values", "message"),
    [
        (BARE, {"negative_prompt": "x"}, "negative_prompt: model does not use it; leave it out"),
        (BARE, {"negative_prompt": ""}, "negative_prompt: model does not use it; leave it out"),
        (PRESET, {"negative_prompt": "x", "guidance_scale": 1.0},
         "negative_prompt: model uses it only with guidance_scale above 1 (it is 1); set guidance_scale"),
        (TRUE_CFG, {"negative_prompt": "x"},
         "negative_prompt: model uses it only with true_cfg_scale above 1 (it is 1); set true_cfg_scale"),
        (TRUE_CFG, {"true_cfg_scale": 4.0},
         "true_cfg_scale: model uses it only with a negative prompt; set negative_prompt (may be empty)"),
    ],
)  # fmt: skip
def test_a_negative_prompt_without_effect_is_refused(preset: Preset, values: dict[str, object], message: str) -> None:
    assert problems(preset, **values) == [message]


def test_a_negative_prompt_with_effect_is_taken() -> None:
    assert resolve(PRESET, negative_prompt="x").negative_prompt == "x"
    assert resolve(TRUE_CFG, negative_prompt="", true_cfg_scale=4.0).negative_prompt == ""
    assert resolve(replace(PRESET, guidance_scale=None), negative_prompt="x").negative_prompt == "x"


def test_the_presets_own_negative_prompt_is_never_refused() -> None:
    preset = replace(TRUE_CFG, negative_prompt=" ", true_cfg_scale=4.0)
    assert resolve(preset).negative_prompt == " "
    assert resolve(preset, true_cfg_scale=1.0).negative_prompt == " "


def test_the_negative_prompt_of_a_row_follows_the_same_rules() -> None:
    assert row_problem(BARE, negative_prompt="x") == "negative_prompt: model does not use it; leave it out"
    assert "only with true_cfg_scale above 1 (it is 1)" in str(row_problem(TRUE_CFG, negative_prompt="x"))
    assert "only with guidance_scale above 1 (it is 0.5)" in str(
        row_problem(PRESET, resolve(negative_prompt="x"), guidance_scale=0.5)
    )
    run = resolve(TRUE_CFG, negative_prompt="", true_cfg_scale=4.0)
    assert row_problem(TRUE_CFG, run, negative_prompt="x") is None


@pytest.mark.parametrize(
    ("values", "lines"),
    [
        ({"height": 500}, ["height: model takes multiples of 16; use 496 or 512 (got 500)"]),
        ({"width": 17}, ["width: model takes multiples of 16; use 16 or 32 (got 17)"]),
        ({"width": 8}, ["width: model takes multiples of 16; use 16 (got 8)"]),
        ({"width": 100, "height": 9}, ["width: model takes multiples of 16; use 96 or 112 (got 100)",
                                       "height: model takes multiples of 16; use 16 (got 9)"]),
        ({"sizes": ["512x512", "512x40"]}, ["height: model takes multiples of 16; use 32 or 48 (got 40)"]),
    ],
)  # fmt: skip
def test_a_side_that_is_no_multiple_names_both_nearest(values: dict[str, object], lines: list[str]) -> None:
    assert problems(**values) == lines
    if "sizes" not in values:
        assert row_problem(**values) == "; ".join(lines)


def test_every_size_in_a_list_is_taken_if_it_is_a_multiple() -> None:
    assert resolve(sizes=["512x512", "1216x832"]) == resolve()


def test_a_model_without_a_default_size_asks_for_one() -> None:
    preset = replace(PRESET, height=0, width=0)
    assert problems(preset, height=64) == ["width: model states no default; set width"]
    assert resolve(preset, height=64, width=64).width == 64
    assert resolve(preset, sizes=["64x64"]).steps == 20


@pytest.mark.parametrize("preset", PRESETS.values(), ids=PRESETS)
def test_the_defaults_of_every_preset_are_accepted(preset: Preset) -> None:
    sampling = resolve(preset)
    assert (sampling.steps, sampling.height, sampling.width) == (preset.steps, preset.height, preset.width)
    assert row_sampling(RowSettings(steps=1), sampling, preset)[1] is None


@pytest.mark.parametrize(
    ("preset", "values", "message"),
    [
        ("flux-schnell", {"guidance_scale": 3.5}, "guidance_scale: flux-schnell does not use it; leave it out"),
        ("sdxl", {"true_cfg_scale": 2.0}, "true_cfg_scale: sdxl does not use it"),
        ("sdxl", {"max_sequence_length": 77}, "max_sequence_length: sdxl does not use it"),
        ("flux-schnell", {"negative_prompt": "x"}, "negative_prompt: flux-schnell does not use it"),
        ("flux-dev", {"negative_prompt": "x"}, "only with true_cfg_scale above 1 (it is 1); set true_cfg_scale"),
        ("sdxl", {"negative_prompt": "x", "guidance_scale": 1.0}, "only with guidance_scale above 1"),
        ("flux-dev", {"true_cfg_scale": 4.0}, "true_cfg_scale: flux-dev uses it only with a negative prompt"),
        ("flux-dev", {"height": 500}, "height: flux-dev takes multiples of 16; use 496 or 512 (got 500)"),
        (
            "sana",
            {"sizes": ["1024x1024", "1000x1024"]},
            "width: sana takes multiples of 32; use 992 or 1024 (got 1000)",
        ),
    ],
)
def test_the_presets_refuse_what_their_models_would_ignore_or_change(
    preset: str, values: dict[str, object], message: str
) -> None:
    (problem,) = problems(PRESETS[preset], **values)
    assert message in problem


def test_an_optional_argument_is_passed_only_when_a_user_sets_it() -> None:
    """So a new argument changes the key of no image that was made before it existed."""
    preset = replace(PRESET, guidance_scale=None, optional=("guidance_scale",))
    assert resolve(preset).guidance_scale is None
    assert resolve(preset, guidance_scale=2.0).guidance_scale == 2.0
    assert problems(replace(preset, optional=()), guidance_scale=2.0) == [
        "guidance_scale: model does not use it; leave it out"
    ]


def test_a_size_that_the_model_replaces_by_another_is_refused_with_that_one() -> None:
    hidream = replace(PRESET, pipeline_class="HiDreamImagePipeline", height=1024, width=1024)
    assert resolve(hidream).width == 1024
    told = "width and height: model generates 1024x1024 for 512x512; ask for 1024x1024"
    assert problems(hidream, height=512, width=512) == [told]
    assert problems(hidream, sizes=["1024x1024", "512x512"]) == [told]
    assert row_problem(hidream, resolve(hidream), height=512, width=512) == told
    # Where a side is no multiple, that is said first.
    (problem,) = problems(hidream, height=1000, width=1024)
    assert "multiples of 16" in problem
