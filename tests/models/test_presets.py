"""Presets agree with the pipelines of the installed diffusers, and each model finds its own."""

import pytest

from t2i_core.models.identity import ResolvedModel, bundled_identity
from t2i_core.models.pipeline_signature import call_defaults
from t2i_core.models.preset_choice import find_preset
from t2i_core.models.presets import PRESETS, repository_of, similar_model


def model(pipeline_class="FluxPipeline", location="x/y", source="hub", identity="i", **configs):
    return ResolvedModel(
        name=location, source=source, location=location, commit=None, identity=identity,
        pipeline_class=pipeline_class, files=(), configs=configs,
    )  # fmt: skip


@pytest.mark.parametrize("preset", PRESETS.values(), ids=PRESETS)
def test_a_preset_passes_only_what_its_pipeline_takes(preset):
    takes = call_defaults(preset.pipeline_class)
    for name in ("guidance_scale", "true_cfg_scale", "max_sequence_length"):
        assert getattr(preset, name) is None or name in takes
    assert "negative_prompt" not in preset.optional or "negative_prompt" in takes
    assert preset.height % preset.size_multiple == preset.width % preset.size_multiple == 0


def test_flux_dev_is_that_of_the_references_guide():
    found = PRESETS["flux-dev"]
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
    assert found.is_guess
    assert "no preset" in found.reason


@pytest.mark.parametrize(
    ("pipeline_class", "configs", "side", "multiple"),
    [
        # It generates pixels, not latents.
        ("IFPipeline", {"unet": {"sample_size": 64}}, 64, 1),
        ("PRXPixelPipeline", {"transformer": {"sample_size": 1024, "patch_size": 32}}, 1024, 32),
        # Four latents make a token, which no configuration says.
        ("FluxKontextPipeline", {"transformer": {"sample_size": 128, "patch_size": 1}}, 1024, 16),
        ("Kandinsky3Pipeline", {}, 1024, 64),
        ("PixArtAlphaPipeline", {"transformer": {"sample_size": 64, "patch_size": 2}}, 512, 16),
    ],
)
def test_sizes_without_a_preset_are_those_of_the_pipelines_own_kind(pipeline_class, configs, side, multiple):
    found = find_preset("/m", model(pipeline_class, **configs), "demo")
    assert (found.width, found.height, found.size_multiple) == (side, side, multiple)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("flux-dve", "flux-dev"),
        ("flux_dev", "flux-dev"),
        ("Flux Dev", "flux-dev"),
        ("FLUX-schnell", "flux-schnell"),
        ("schnell", "flux-schnell"),
        ("sd3.5", "sd3.5-large"),
        ("qwen", "qwen-image"),
        ("sdxl-base", "sdxl"),
        ("black-forest-labs/FLUX.1-de", "black-forest-labs/FLUX.1-dev"),
        ("my-own-model", None),
        ("bundled", None),
        ("x", None),
        ("", None),
    ],
)
def test_a_name_that_is_like_a_presets_is_told_which(name: str, meant: str | None) -> None:
    assert similar_model(name) == (f"; did you mean {meant}?" if meant else "")
