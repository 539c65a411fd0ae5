"""The settings of a model that is no preset's own: whose they are, why, what they refuse, and how large it is.

The configurations are those of the repositories on the hub, as far as a choice looks at them.
"""

import math
from dataclasses import replace

import pytest

from t2i_core.config import Config
from t2i_core.errors import ConfigError
from t2i_core.models.identity import Checkpoint, ResolvedModel
from t2i_core.models.pipeline_signature import call_defaults
from t2i_core.models.preset_choice import find_preset, licence_of, model_title
from t2i_core.models.presets import PRESETS
from t2i_core.models.sampling import doubtful_settings, resolve_sampling
from t2i_core.spec import SHARED_ARGUMENTS

FLUX, SDXL, SD = "FluxPipeline", "StableDiffusionXLPipeline", "StableDiffusionPipeline"
SD3, KLEIN, QWEN = "StableDiffusion3Pipeline", "Flux2KleinPipeline", "QwenImagePipeline"
Z_IMAGE, CHROMA = "ZImagePipeline", "ChromaPipeline"
VAE = {"block_out_channels": [128, 256, 512, 512]}  # 8 pixels a latent
DC_AE = {"encoder_block_out_channels": [128, 256, 512, 512, 1024, 1024]}  # 32 pixels
LEADING = {"_class_name": "EulerDiscreteScheduler", "timestep_spacing": "leading", "prediction_type": "epsilon"}
TRAILING = LEADING | {"timestep_spacing": "trailing"}
ANCESTRAL = TRAILING | {"_class_name": "EulerAncestralDiscreteScheduler"}
FLOW = {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0}
DYNAMIC = FLOW | {"use_dynamic_shifting": True}
UNET = {"sample_size": 128, "time_cond_proj_dim": None}
LARGE = {"num_layers": 38, "qk_norm": "rms_norm", "sample_size": 128}
MEDIUM_35 = LARGE | {"num_layers": 24}
MEDIUM = {"num_layers": 24, "qk_norm": None, "sample_size": 128}
LIGHTNING = {"base_shift": math.log(3), "max_shift": math.log(3), "shift_terminal": None}
V_PREDICTION = TRAILING | {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True}


def model(pipeline_class, name="/models/mine", licence=None, dtype=None, **configs):
    source = "folder" if name.startswith(("/", ".")) else "hub"
    return ResolvedModel(
        name=name, source=source, location=name, commit=None, identity="i", pipeline_class=pipeline_class, files=(),
        licence=licence, configs={"vae": VAE} | configs, dtype=dtype,
    )  # fmt: skip


def guess(pipeline_class, name="/models/mine", **values):
    found = find_preset(name, model(pipeline_class, name, **values), "demo's")
    assert found.is_guess
    return found


CASES = {
    # from fields of the configuration alone
    "klein": (KLEIN, {"index": {"is_distilled": True}}, "flux2-klein", 4, None, 1024),
    "klein base": (KLEIN, {"index": {}}, "flux2-klein-base", 50, 4.0, 1024),
    "klein base, saved": (KLEIN, {"index": {"is_distilled": False}}, "flux2-klein-base", 50, 4.0, 1024),
    "Z-Image": (Z_IMAGE, {"scheduler": FLOW | {"shift": 6.0, "use_dynamic_shifting": False}}, "z-image", 50, 5.0, 1024),
    "Z-Image-Turbo": (Z_IMAGE, {"scheduler": FLOW | {"use_dynamic_shifting": False}}, "z-image-turbo", 8, 0.0, 1024),
    "SDXL": (SDXL, {"scheduler": LEADING, "unet": UNET}, "sdxl", 50, 5.0, 1024),
    "SDXL, small": (SDXL, {"scheduler": LEADING, "unet": UNET | {"sample_size": 32}}, "sdxl", 50, 5.0, 256),
    "SDXL-Turbo": (SDXL, {"scheduler": ANCESTRAL, "unet": UNET | {"sample_size": 64}}, "sdxl-turbo", 1, 0.0, 512),
    "SDXL-Lightning": (SDXL, {"scheduler": TRAILING, "unet": UNET}, "sdxl", 4, 0.0, 1024),
    "SDXL, Hyper": (SDXL, {"scheduler": TRAILING | {"_class_name": "DDIMScheduler"}, "unet": UNET}, "sdxl", 4, 0, 1024),
    "SDXL, TCD": (SDXL, {"scheduler": LEADING | {"_class_name": "TCDScheduler"}, "unet": UNET}, "sdxl", 4, 0.0, 1024),
    "SDXL, v-prediction": (SDXL, {"scheduler": V_PREDICTION, "unet": UNET}, "sdxl", 50, 5.0, 1024),
    "LCM LoRA": (SDXL, {"scheduler": LEADING | {"_class_name": "LCMScheduler"}, "unet": UNET}, "sdxl", 4, 0.0, 1024),
    "LCM SDXL": (
        SDXL,
        {"scheduler": {"_class_name": "LCMScheduler"}, "unet": UNET | {"time_cond_proj_dim": 256}},
        "sdxl", 4, 8.0, 1024,
    ),
    "Playground v2.5": (
        SDXL,
        {"scheduler": LEADING | {"_class_name": "EDMDPMSolverMultistepScheduler"}, "unet": UNET},
        "playground-v2.5", 50, 3.0, 1024,
    ),
    "SD3.5 large": (SD3, {"scheduler": FLOW, "transformer": LARGE}, "sd3.5-large", 28, 7.0, 1024),
    "SD3.5 medium": (SD3, {"scheduler": FLOW, "transformer": MEDIUM_35}, "sd3.5-medium", 28, 7.0, 1024),
    "SD3 medium": (SD3, {"scheduler": FLOW, "transformer": MEDIUM}, "sd3-medium", 28, 7.0, 1024),
    "FLUX.1-dev": (FLUX, {"scheduler": DYNAMIC, "transformer": {"guidance_embeds": True}}, "flux-dev", 20, 3.5, 512),
    "FLUX.1-schnell": (
        FLUX,
        {"scheduler": FLOW | {"shift": 1.0, "use_dynamic_shifting": False}, "transformer": {"guidance_embeds": False}},
        "flux-schnell", 4, None, 1024,
    ),
    "de-distilled FLUX": (
        FLUX,
        {"scheduler": DYNAMIC, "transformer": {"guidance_embeds": False}},
        "FLUX.1 without distilled guidance", 28, None, 1024,
    ),
    "Qwen-Image": (
        QWEN,
        {"scheduler": {"max_shift": 0.9, "shift_terminal": 0.02}, "vae": {"temperal_downsample": [False, True, True]}},
        "qwen-image", 50, None, 1024,
    ),
    "Qwen-Image-Lightning": (QWEN, {"scheduler": LIGHTNING}, "Qwen-Image distilled to few steps", 8, None, 1024),
    "PixArt-Sigma 512": ("PixArtSigmaPipeline", {"transformer": {"sample_size": 64}}, "pixart-sigma", 20, 4.5, 512),
    "PixArt-Sigma 2K": ("PixArtSigmaPipeline", {"transformer": {"sample_size": 256}}, "pixart-sigma", 20, 4.5, 2048),
    "Sana 512": ("SanaPipeline", {"transformer": {"sample_size": 16}, "vae": DC_AE}, "sana", 20, 4.5, 512),
    "Sana 4K": ("SanaPipeline", {"transformer": {"sample_size": 128}, "vae": DC_AE}, "sana", 20, 4.5, 4096),
    "Sana Sprint": (
        "SanaSprintPipeline",
        {"transformer": {"sample_size": 32}, "vae": DC_AE},
        "sana-sprint", 2, 4.5, 1024,
    ),
    "Lumina 2": ("Lumina2Pipeline", {"transformer": {"sample_size": 128}}, "lumina2", 30, 4.0, 1024),
    "Chroma": (CHROMA, {"scheduler": FLOW}, "chroma", 35, 5.0, 1024),
    # from the code of the pipeline
    "SD 1.5": (SD, {"scheduler": {"_class_name": "PNDMScheduler"}, "unet": {"sample_size": 64}}, SD, 50, 7.5, 512),
    "SD 2.1": (SD, {"scheduler": {"_class_name": "DDIMScheduler"}, "unet": {"sample_size": 96}}, SD, 50, 7.5, 768),
    "SD-Turbo": (SD, {"scheduler": TRAILING, "unet": {"sample_size": 64}}, SD, 4, 0.0, 512),
    "Kolors": ("KolorsPipeline", {"scheduler": LEADING, "unet": UNET}, "KolorsPipeline", 50, 5.0, 1024),
    "PixArt-LCM": (
        "PixArtAlphaPipeline",
        {"scheduler": {"_class_name": "LCMScheduler"}, "transformer": {"sample_size": 128}},
        "PixArtAlphaPipeline", 4, 0.0, 1024,
    ),
    "Krea 2 Turbo": ("Krea2Pipeline", {"index": {"is_distilled": True}}, "Krea2Pipeline", 8, 0.0, 1024),
    "Krea 2": ("Krea2Pipeline", {"index": {"is_distilled": False}}, "Krea2Pipeline", 28, 4.5, 1024),
}  # fmt: skip


@pytest.mark.parametrize(("pipeline_class", "configs", "whose", "steps", "scale", "side"), CASES.values(), ids=CASES)
def test_settings_follow_the_configuration(pipeline_class, configs, whose, steps, scale, side):
    found = guess(pipeline_class, **configs)
    assert (found.name, found.steps, found.guidance_scale) == (whose, steps, scale)
    assert (found.width, found.height) == (side, side)
    assert found.licence_note == ""


@pytest.mark.parametrize(
    ("pipeline_class", "name", "configs", "steps", "scale"),
    [
        (SDXL, "RunDiffusion/Juggernaut-XL-Lightning", {"scheduler": LEADING, "unet": UNET}, 4, 0.0),
        (SDXL, "/m/sdxl_lightning_8steps", {"scheduler": LEADING, "unet": UNET}, 8, 0.0),
        (SDXL, "/m/SDXL-Lightning-2step", {"scheduler": TRAILING, "unet": UNET}, 2, 0.0),
        (SDXL, "./DreamShaperXL Turbo v2", {"scheduler": LEADING, "unet": UNET}, 4, 0.0),
        (SDXL, "/m/sdxl-hyper", {"scheduler": LEADING, "unet": UNET}, 8, 0.0),
        (SDXL, "/m/HyperRealistic-XL", {"scheduler": LEADING, "unet": UNET}, 50, 5.0),
        (SDXL, "/turbo/lightning-lab/plain", {"scheduler": LEADING, "unet": UNET}, 50, 5.0),
        (SDXL, "turbo-ai/realistic-xl", {"scheduler": LEADING, "unet": UNET}, 50, 5.0),
        (SD3, "stabilityai/stable-diffusion-3.5-large", {"transformer": LARGE}, 28, 7.0),
        (SD3, "/m/stable-diffusion-3.5-large-turbo", {"transformer": LARGE}, 4, 0.0),
        (SD3, "someone/sd3.5-large-turbo-ungated", {"transformer": LARGE}, 4, 0.0),
        (SD3, "tensorart/stable-diffusion-3.5-medium-turbo", {"transformer": MEDIUM_35}, 4, 0.0),
        (Z_IMAGE, "/m/Z-Image-Turbo", {"scheduler": FLOW | {"shift": 7.0}}, 8, 0.0),
        (Z_IMAGE, "/m/Z-Image-De-Turbo", {"scheduler": FLOW}, 50, 5.0),
        (FLUX, "jimmycarter/LibreFLUX", {"scheduler": FLOW, "transformer": {"guidance_embeds": False}}, 28, None),
        (FLUX, "/m/FLUX.1-Hyper-8step", {"scheduler": DYNAMIC, "transformer": {"guidance_embeds": True}}, 8, 3.5),
        (FLUX, "Freepik/flux.1-lite-8B", {"scheduler": DYNAMIC, "transformer": {"guidance_embeds": True}}, 20, 3.5),
        (FLUX, "/m/FLUX.1-Krea-dev", {"scheduler": DYNAMIC, "transformer": {"guidance_embeds": True}}, 28, 3.5),
        (QWEN, "/m/Qwen-Image-Lightning-4steps", {"scheduler": LIGHTNING}, 4, None),
        (QWEN, "/m/qwen-image-lightning", {"scheduler": {"max_shift": 0.9, "shift_terminal": 0.02}}, 8, None),
        (CHROMA, "lodestones/Chroma1-Flash", {"scheduler": FLOW}, 8, 0.0),
        (SD, "stabilityai/sd-turbo", {"scheduler": LEADING}, 4, 0.0),
        # what the files were saved from
        (SDXL, "/m/mine", {"unet": UNET, "index": {"_name_or_path": "Lykon/dreamshaper-xl-turbo"}}, 4, 0.0),
        (SD, "/m/mine", {"unet": {"_name_or_path": "/c/models--stabilityai--sd-turbo/snapshots/1681/unet"}}, 4, 0.0),
        (Z_IMAGE, "/m/mine", {"index": {"_name_or_path": "/c/models--Tongyi-MAI--Z-Image-Turbo/snapshots/04cc"}}, 8, 0),
        (SD3, "/c/models--me--sd-3.5-large-turbo/snapshots/04cc", {"transformer": LARGE}, 4, 0.0),
        (SD3, "/local/stabilityai--stable-diffusion-3.5-large-turbo", {"transformer": LARGE}, 4, 0.0),
    ],
)  # fmt: skip
def test_a_name_tells_what_a_configuration_does_not(pipeline_class, name, configs, steps, scale):
    if name in {preset.repository for preset in PRESETS.values()}:
        found = find_preset(name, model(pipeline_class, name, **configs), "demo's")
    else:
        found = guess(pipeline_class, name, **configs)
    assert (found.steps, found.guidance_scale) == (steps, scale)


def test_where_a_part_has_no_configuration_the_first_preset_of_the_class_is_taken():
    assert [guess(name).name for name in (FLUX, SDXL, SD3, Z_IMAGE)] == ["flux-dev", "sdxl", "sd3.5-large", "z-image"]
    assert guess(FLUX).reason == "both are a FluxPipeline"


def test_few_steps_turn_true_cfg_off():
    found = guess(QWEN, scheduler=LIGHTNING)
    assert (found.true_cfg_scale, found.negative_prompt) == (1.0, " ")
    assert guess(FLUX, "/m/LibreFLUX", transformer={"guidance_embeds": False}).true_cfg_scale == 3.5


@pytest.mark.parametrize("preset", [p for p in PRESETS.values() if p.name != "demo"], ids=lambda p: p.name)
def test_a_presets_own_repository_is_no_guess(preset):
    own = model(preset.pipeline_class, preset.repository)
    assert find_preset(preset.repository, own, "demo's").repository == preset.repository
    assert find_preset(preset.name, own, "demo's") is preset
    shouted = preset.repository.upper()
    assert not find_preset(shouted, model(preset.pipeline_class, shouted), "demo's").is_guess
    snapshot = f"/cache/models--{preset.repository.replace('/', '--')}/snapshots/{'0a' * 20}"
    cached = find_preset(snapshot, model(preset.pipeline_class, snapshot), "demo's")
    assert cached.repository == preset.repository
    assert find_preset(snapshot + "/x", model(preset.pipeline_class, snapshot + "/x"), "demo's").is_guess
    assert find_preset(snapshot, model(SD, snapshot, unet={"sample_size": 64}), "demo's").is_guess


CLASSES = sorted({preset.pipeline_class for preset in PRESETS.values()} | {SD, "KolorsPipeline"})


@pytest.mark.parametrize("pipeline_class", CLASSES)
def test_a_guess_refuses_no_argument_that_the_call_takes(pipeline_class):
    found = guess(pipeline_class, unet={"sample_size": 64})
    call = call_defaults(pipeline_class)
    values = {"guidance_scale": 4.0, "true_cfg_scale": 3.0, "max_sequence_length": 64, "negative_prompt": "x"}
    taken = {name: value for name, value in values.items() if SHARED_ARGUMENTS.get(name, name) in call}
    config = Config.from_values({"dataset": "x.jsonl", "model": "/m"} | taken)
    sampling = resolve_sampling(config, found)
    assert {name: getattr(sampling, name) for name in taken} == taken
    for name in set(values) - set(taken):
        with pytest.raises(ConfigError, match=f"{name}: {pipeline_class} does not use it"):
            resolve_sampling(Config.from_values({"dataset": "x.jsonl", "model": "/m", name: values[name]}), found)


def test_a_setting_without_effect_is_doubted_where_the_preset_itself_would_refuse_it():
    found = guess(KLEIN, index={"is_distilled": True})
    config = Config.from_values({"dataset": "x.jsonl", "model": "/m", "guidance_scale": 4.0})
    (doubt,) = doubtful_settings(config, resolve_sampling(config, found), found)
    assert doubt.startswith("guidance_scale: the settings of preset flux2-klein have none")
    schnell = guess(FLUX, transformer={"guidance_embeds": False}, scheduler=FLOW)
    config = Config.from_values({"dataset": "x.jsonl", "model": "/m", "negative_prompt": "x"})
    (doubt,) = doubtful_settings(config, resolve_sampling(config, schnell), schnell)
    assert "only with true_cfg_scale above 1 (it is not set)" in doubt
    with pytest.raises(ConfigError, match="guidance_scale: flux2-klein does not use it"):
        resolve_sampling(
            Config.from_values({"dataset": "x.jsonl", "model": "flux2-klein", "guidance_scale": 4.0}),
            PRESETS["flux2-klein"],
        )


def test_a_guess_says_whose_settings_it_takes_and_why():
    found = guess(Z_IMAGE, scheduler=FLOW)
    assert (found.about, found.reason) == (
        "settings of preset z-image-turbo",
        "scheduler.shift 3.0, scheduler.use_dynamic_shifting false",
    )
    assert guess(KLEIN, index={}).reason == "model_index.json: is_distilled false"
    assert guess(SDXL).reason == "both are a StableDiffusionXLPipeline"
    few = guess(SDXL, "/m/my-lightning", unet=UNET)
    assert few.about == "settings of preset sdxl with few steps"
    assert few.reason == "both are a StableDiffusionXLPipeline; lightning in its name my-lightning"
    assert guess(SD3, "/m/stable-diffusion-3.5-large-turbo", transformer=LARGE).reason.startswith(
        "named like stabilityai/stable-diffusion-3.5-large-turbo; turbo in its name"
    )
    assert guess(SD).about == "settings of StableDiffusionPipeline's own code"


def test_a_model_without_a_preset_has_the_dtype_of_its_files():
    assert guess(SD, dtype="float16").dtype == "float16"
    assert guess(SD, dtype="bfloat16").dtype == "bfloat16"
    unknown = guess(SD)
    assert unknown.dtype == "float32"
    assert "the dtype is a guess" in unknown.reason


@pytest.mark.parametrize(("levels", "side", "multiple"), [(4, 1024, 16), (2, 256, 8), (5, 2048, 32)])
def test_where_the_denoiser_states_no_size_that_of_the_preset_follows_the_vae(levels, side, multiple):
    found = guess(Z_IMAGE, vae={"block_out_channels": [8] * levels})
    assert (found.width, found.height, found.size_multiple) == (side, side, multiple)


def test_a_size_that_is_no_square_is_height_and_width():
    found = guess(SDXL, unet={"sample_size": [64, 96]}, scheduler=LEADING)
    assert (found.height, found.width) == (512, 768)


@pytest.mark.parametrize("sample_size", [None, 0, "64", [64], True, {"a": 1}])
def test_a_size_that_is_none_is_that_of_the_preset(sample_size):
    found = guess(SDXL, unet={"sample_size": sample_size}, scheduler=LEADING)
    assert (found.width, found.height) == (1024, 1024)


def test_a_licence_is_the_models_own():
    dev, stated = model(FLUX, licence=None), model(FLUX, licence="mit")
    found = guess(FLUX)
    assert licence_of(dev, found) == "not stated"
    assert licence_of(stated, found) == "mit"
    assert "non-commercial" in licence_of(stated, PRESETS["flux-dev"])


def test_a_model_is_called_what_its_user_calls_it():
    assert model_title("./mine", guess(SDXL, "./mine")) == "./mine (settings of preset sdxl)"
    assert model_title("flux-schnell", PRESETS["flux-schnell"]) == "flux-schnell"
    repository = "black-forest-labs/FLUX.1-schnell"
    assert model_title(repository, PRESETS["flux-schnell"]) == f"{repository} (preset flux-schnell)"


@pytest.mark.parametrize(
    ("file", "name", "steps"),
    [("/m/mine.safetensors", "sdxl", 50), ("/m/sdxl_lightning_4step.safetensors", "sdxl", 4)],
)
def test_a_single_file_is_known_by_its_own_name_and_has_a_licence_of_its_own(file, name, steps):
    base = PRESETS["sdxl"].repository
    checkpoint = Checkpoint(file, ("unet", "vae"), "/m", "x.safetensors", ())
    plain = model(SDXL, base, scheduler=LEADING, unet=UNET)
    found = find_preset(base, replace(plain, checkpoints=(checkpoint,)), "demo's")
    assert (found.name, found.steps) == (name, steps)
    assert licence_of(replace(plain, checkpoints=(checkpoint,)), found).endswith(f"; of {file}: not stated")
    assert "; of " not in licence_of(plain, PRESETS["sdxl"])
