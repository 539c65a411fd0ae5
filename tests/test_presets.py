"""Presets agree with the pipelines of the installed diffusers; settings that a model does not take are refused."""

import pytest

from t2i_core.config import Config, RowSettings
from t2i_core.errors import ConfigError
from t2i_core.pipelines import call_defaults
from t2i_core.presets import PRESETS, find_preset, repository_of
from t2i_core.sampling import resolve_sampling, row_sampling
from t2i_core.weights import Model, bundled_identity


def model(pipeline_class="FluxPipeline", location="x/y", source="hub", identity="i", **configs):
    return Model(
        name=location, source=source, location=location, commit=None, identity=identity,
        pipeline_class=pipeline_class, files=(), configs=configs,
    )  # fmt: skip


def sampling(preset, **values):
    return resolve_sampling(Config.from_values({"dataset": "x.jsonl", "model": preset} | values), PRESETS[preset])


@pytest.mark.parametrize("preset", PRESETS.values(), ids=PRESETS)
def test_a_preset_passes_only_what_its_pipeline_takes(preset):
    takes = call_defaults(preset.pipeline_class)
    for name in ("guidance_scale", "true_cfg_scale", "max_sequence_length"):
        assert getattr(preset, name) is None or name in takes
    assert not preset.takes_negative_prompt or "negative_prompt" in takes
    assert preset.height % preset.size_multiple == preset.width % preset.size_multiple == 0
    assert sampling(preset.name).steps == preset.steps


def test_flux_dev_is_that_of_the_references_guide():
    found = sampling("flux-dev")
    assert (found.steps, found.height, found.width, found.guidance_scale) == (20, 512, 512, 3.5)


def test_a_preset_is_found_by_name_repository_identity_and_class():
    identity = bundled_identity()
    assert find_preset("flux-dev-1024", model(), identity).name == "flux-dev-1024"
    schnell = model(location="black-forest-labs/FLUX.1-schnell")
    assert find_preset("black-forest-labs/FLUX.1-schnell", schnell, identity).name == "flux-schnell"
    copy = model(location="/copy", source="folder", identity=identity)
    assert find_preset("/copy", copy, identity).name == "demo"
    for embeds, name in ((True, "flux-dev"), (False, "flux-schnell")):
        folder = model(location="/flux", source="folder", transformer={"guidance_embeds": embeds})
        assert find_preset("/flux", folder, identity).name == name
    assert repository_of("flux-dev") == "black-forest-labs/FLUX.1-dev"
    assert repository_of("demo") == "demo"
    assert repository_of("owner/name") == "owner/name"


def test_a_pipeline_without_a_preset_takes_its_defaults_from_its_code_and_configuration():
    found = find_preset(
        "/sd",
        model("StableDiffusionPipeline", unet={"sample_size": 64}, vae={"block_out_channels": [1, 2, 3, 4]}),
        "demo",
    )
    assert (found.steps, found.guidance_scale, found.height, found.width) == (50, 7.5, 512, 512)
    assert "no preset" in found.about


@pytest.mark.parametrize(
    ("preset", "values", "message"),
    [
        ("flux-schnell", {"guidance_scale": 3.5}, "guidance_scale: flux-schnell does not use it; leave it out"),
        ("sdxl", {"true_cfg_scale": 2.0}, "true_cfg_scale: sdxl does not use it"),
        ("sdxl", {"max_sequence_length": 77}, "max_sequence_length: sdxl does not use it"),
        ("flux-schnell", {"negative_prompt": "x"}, "negative_prompt: flux-schnell does not use it"),
        ("flux-dev", {"negative_prompt": "x"}, "only with true_cfg_scale above 1 (it is 1); set true_cfg_scale"),
        ("sdxl", {"negative_prompt": "x", "guidance_scale": 1.0}, "only with guidance_scale above 1"),
        ("flux-dev", {"height": 500}, "height: flux-dev takes multiples of 16; use 496 or 512 (got 500)"),
        ("flux-dev", {"true_cfg_scale": 4.0}, "true_cfg_scale: flux-dev uses it only with a negative prompt"),
        ("flux-dev", {"height": 8}, "height: flux-dev takes multiples of 16; use 16 (got 8)"),
        (
            "sana",
            {"sizes": ["1024x1024", "1000x1024"]},
            "width: sana takes multiples of 32; use 992 or 1024 (got 1000)",
        ),
    ],
)
def test_what_a_model_would_ignore_or_change_is_refused(preset, values, message):
    with pytest.raises(ConfigError) as error:
        sampling(preset, **values)
    assert message in str(error.value)
    assert len(error.value.problems) == 1


def test_settings_of_a_row_are_checked_in_the_same_way():
    run = sampling("flux-dev", true_cfg_scale=2.0, negative_prompt="")
    preset = PRESETS["flux-dev"]
    assert row_sampling(RowSettings(steps=3, negative_prompt="x"), run, preset)[1] is None
    assert "multiples of 16" in str(row_sampling(RowSettings(height=500), run, preset)[1])
    assert "does not use it" in str(
        row_sampling(RowSettings(guidance_scale=2.0), sampling("flux-schnell"), PRESETS["flux-schnell"])[1]
    )
