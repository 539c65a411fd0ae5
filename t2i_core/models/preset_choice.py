"""The choice of a model's settings: its own preset, else a guess from presets of its class, its files and its code.

A guess says whose settings were taken and why, refuses nothing that the pipeline's call takes, and takes sizes from the
model's own configuration. It has no licence: that is the model's own, if its card states one.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from t2i_core.errors import ModelError
from t2i_core.models.as_asked import LATENTS_A_TOKEN
from t2i_core.models.few_steps import FewSteps, few_steps, is_undistilled, names_of, steps_in_name
from t2i_core.models.hub import repository_of_snapshot
from t2i_core.models.identity import ResolvedModel
from t2i_core.models.names import denoiser_config
from t2i_core.models.pipeline_signature import call_defaults, init_parameters
from t2i_core.models.presets import PRESETS, Preset
from t2i_core.options.values import DEMO
from t2i_core.spec import SHARED_ARGUMENTS

# What pipelines call the part that turns latents into pixels. A pipeline without one (IF) works on pixels.
DECODERS = {"vae", "vqvae", "vqgan", "movq"}
# Pipelines that have a VAE check for multiples of 8 in their code, whatever the VAE is.
LEAST_MULTIPLE = 8
# Settings of models that have no repository of their own here. `--model` does not know them.
UNNAMED: tuple[Preset, ...] = (
    Preset(
        name="FLUX.1 without distilled guidance",
        repository="",
        pipeline_class="FluxPipeline",
        steps=28,
        true_cfg_scale=3.5,
        negative_prompt="",
        max_sequence_length=512,
        fingerprint={"transformer.guidance_embeds": False},
    ),
    Preset(
        name="Qwen-Image distilled to few steps",
        repository="",
        pipeline_class="QwenImagePipeline",
        steps=8,
        true_cfg_scale=1.0,
        negative_prompt=" ",
        max_sequence_length=512,
        # These values are what programs write into the scheduler of such a model; no repository's file was read.
        fingerprint={"scheduler.max_shift": math.log(3), "scheduler.shift_terminal": None},
    ),
)


def find_preset(name: str, model: ResolvedModel, demo_identity: str) -> Preset:
    """Return the preset that is the model's own: by name, identity or repository; else a guess.

    Raises:
        ModelError: for a pipeline whose code says no number of steps.
    """
    if name in PRESETS:
        return PRESETS[name]
    if model.identity == demo_identity:
        return PRESETS[DEMO]
    # With weights from a checkpoint that was distilled, the model is no longer the one of its repository's preset.
    supplied = [checkpoint.name for checkpoint in model.checkpoints]
    is_distilled = few_steps({}, names_of(supplied, {})) is not None
    repository = model.location if model.source == "hub" else repository_of_snapshot(model.location)
    for preset in PRESETS.values():
        same = repository is not None and preset.repository.casefold() == repository.casefold()
        if same and preset.pipeline_class == model.pipeline_class and not is_distilled:
            return preset
    names = names_of([*supplied, model.name, model.location], model.configs)
    few = few_steps(model.configs, names)
    guess = _closest_preset(model, names, few) or _from_code(model)
    if few and not guess.few_steps:
        guess = _in_few_steps(guess, few, model.configs)
    elif guess.few_steps and (number := steps_in_name(names)):
        guess = replace(guess, steps=number[0], reason=f"{guess.reason}, and {number[1]}")
    return guess


def licence_of(model: ResolvedModel, preset: Preset) -> str:
    """Return the licence of a model: the preset's word for its own model, else what the model's own card states.

    Of a checkpoint no card is read.
    """
    own = preset.licence_note or model.licence or "not stated"
    others = ", ".join(checkpoint.name for checkpoint in model.checkpoints)
    return f"{own}; of {others}: not stated" if others else own


def model_title(name: str, preset: Preset) -> str:
    """Return a model as its user named it, with what its settings are."""
    own = [] if preset.is_guess or name == preset.name else [f"preset {preset.name}"]
    more = ", ".join([*own, *([preset.about] if preset.about else [])])
    return f"{name} ({more})" if more else name


def _closest_preset(model: ResolvedModel, names: Sequence[str], few: FewSteps | None) -> Preset | None:
    """Return a guess from the preset of the model's class that its configuration and names fit best, if there is one.

    A preset fits better if it agrees about few steps, then if the model is named after it, then by its fingerprint.
    The scheduler counts for nothing where a name says few steps: fine-tunes are saved with any scheduler.
    """
    same_class = [
        preset
        for preset in (*PRESETS.values(), *UNNAMED)
        if preset.pipeline_class == model.pipeline_class and preset.name != DEMO
    ]
    undistilled = is_undistilled(names)
    called = {part.casefold() for name in names for part in (name, name.rpartition("/")[2])}

    def fits(preset: Preset) -> bool:
        by_name = preset.few_steps and few is not None and few.by_name
        return preset.fits(model.configs, scheduler=not by_name) and not (undistilled and preset.few_steps)

    def named(preset: Preset) -> bool:
        own = {preset.name, preset.repository, preset.repository.rpartition("/")[2]} - {""}
        return bool(called & {name.casefold() for name in own})

    candidates = [preset for preset in same_class if fits(preset)] or same_class[:1]
    if not candidates:
        return None
    best = max(  # the first of those that fit equally well
        candidates,
        key=lambda preset: (
            few is None or preset.few_steps,
            named(preset),
            len(preset.known_fingerprint(model.configs)),
        ),
    )
    if named(best):
        reason = f"named like {best.repository}"
    elif (known := best.known_fingerprint(model.configs)) and best.fits(model.configs):
        reason = ", ".join(f"{field} {_shown(value)}" for field, value in known.items())
        reason = reason.replace("index.", "model_index.json: ")
    else:
        reason = f"both are a {best.pipeline_class}"
    if few and few.by_name and best.few_steps:
        reason += f"; {few.why}"
    about = f"settings of preset {best.name}" if best.repository else f"settings for {best.name}"
    return _fitted(best, model, about, reason)


def _fitted(preset: Preset, model: ResolvedModel, about: str, reason: str) -> Preset:
    """Return a preset as a guess for a model: every argument of the call, sizes of the model's own, no licence."""
    call = call_defaults(model.pipeline_class)
    scale = _vae_scale(model.configs) or preset.vae_scale
    size = (preset.width * scale // preset.vae_scale, preset.height * scale // preset.vae_scale)
    width, height = _native_size(model.configs, scale) or size
    return replace(
        preset,
        repository="",
        width=width,
        height=height,
        size_multiple=_multiple(max(LEAST_MULTIPLE, preset.size_multiple * scale // preset.vae_scale), width, height),
        optional=tuple(name for name, keyword in _arguments().items() if keyword in call),
        licence_note="",
        about=about,
        reason=reason,
        fingerprint={},
    )


def _from_code(model: ResolvedModel) -> Preset:
    """Return a preset with the defaults of the pipeline's call and the size that its configuration implies."""
    call = call_defaults(model.pipeline_class)
    latent = bool(DECODERS & init_parameters(model.pipeline_class))
    scale = (_vae_scale(model.configs) or 8) if latent else 1
    native = _native_size(model.configs, scale) or (0, 0)

    def default(name: str) -> Any:
        value = call.get(name)
        return None if value is Ellipsis else value

    if default("num_inference_steps") is None:
        raise ModelError(f"{model.name}: {model.pipeline_class} has no num_inference_steps; this tool cannot run it")
    patch = denoiser_config(model.configs).get("patch_size")
    token = max(patch if isinstance(patch, int) else 1, LATENTS_A_TOKEN.get(model.pipeline_class, 1), 1)
    multiple = max(scale * token, LEAST_MULTIPLE if latent else 1)
    width, height = default("width") or native[0], default("height") or native[1]
    return Preset(
        name=model.pipeline_class,
        repository="",
        pipeline_class=model.pipeline_class,
        steps=int(default("num_inference_steps")),
        height=height,
        width=width,
        guidance_scale=default("guidance_scale"),
        true_cfg_scale=default("true_cfg_scale"),
        optional=tuple(name for name, keyword in _arguments().items() if keyword in call and default(keyword) is None),
        max_sequence_length=default("max_sequence_length"),
        dtype=model.dtype or "float32",
        size_multiple=_multiple(multiple, width, height),
        about=f"settings of {model.pipeline_class}'s own code",
        reason="no preset is of its class; the dtype is "
        + ("that of its files" if model.dtype else "a guess, for no weights are at hand that tell it"),
    )


def _in_few_steps(guess: Preset, few: FewSteps, configs: Mapping[str, Any]) -> Preset:
    """Return a guess for a model distilled to few steps: without guidance, unless the denoiser takes it as an input."""
    scale = guess.guidance_scale
    if configs.get("unet", {}).get("time_cond_proj_dim"):
        scale = 8.0  # as in the guide to latent consistency models
    elif scale is not None and not denoiser_config(configs).get("guidance_embeds"):
        scale = 0.0
    return replace(
        guess,
        steps=few.steps,
        guidance_scale=scale,
        true_cfg_scale=None if guess.true_cfg_scale is None else 1.0,
        about=f"{guess.about} with few steps",
        reason=f"{guess.reason}; {few.why}",
    )


def _arguments() -> dict[str, str]:
    return {"negative_prompt": "negative_prompt", **SHARED_ARGUMENTS}


def _vae_scale(configs: Mapping[str, Any]) -> int | None:
    """Return how many pixels a side one latent stands for, or None where the VAE's configuration does not tell."""
    vae = configs.get("vae", {})
    for key, steps in (("encoder_block_out_channels", -1), ("block_out_channels", -1), ("temperal_downsample", 0)):
        if isinstance(levels := vae.get(key), list) and levels:
            return int(2 ** (len(levels) + steps))
    return None


def _native_size(configs: Mapping[str, Any], scale: int) -> tuple[int, int] | None:
    """Return (width, height) in pixels that the denoiser's configuration states, if it does."""
    sample = denoiser_config(configs).get("sample_size")
    height, width = sample if isinstance(sample, list) and len(sample) == 2 else (sample, sample)
    if type(height) is type(width) is int and height > 0 and width > 0:  # a bool is no size
        return width * scale, height * scale
    return None


def _multiple(pixels: int, width: int, height: int) -> int:
    """Return what sides must be multiples of; never more than the model's own size allows."""
    return math.gcd(pixels, width, height) if width and height else pixels


def _shown(value: object) -> str:
    return str(value) if isinstance(value, str) else json.dumps(value)
