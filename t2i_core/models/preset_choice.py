"""The choice of a model's preset: one of the table, or one made from the code and configuration of its pipeline."""

from collections.abc import Mapping
from typing import Any

from t2i_core.config import DEMO
from t2i_core.errors import ModelError
from t2i_core.models.as_asked import LATENTS_A_TOKEN
from t2i_core.models.identity import ResolvedModel
from t2i_core.models.pipeline_signature import call_defaults, init_parameters
from t2i_core.models.presets import PRESETS, Preset
from t2i_core.spec import SHARED_ARGUMENTS

# What pipelines call the part that turns latents into pixels. A pipeline without one (IF) works on pixels.
DECODERS = {"vae", "vqvae", "vqgan", "movq"}


def find_preset(name: str, model: ResolvedModel, demo_identity: str) -> Preset:
    """Return the preset of a model: by name, identity, repository or pipeline class, else one made from the code."""
    if name in PRESETS:
        return PRESETS[name]
    if model.identity == demo_identity:
        return PRESETS[DEMO]
    for preset in PRESETS.values():
        if model.source == "hub" and preset.repository == model.location:
            return preset
    embeds = model.configs.get("transformer", {}).get("guidance_embeds")
    for preset in PRESETS.values():
        same_class = preset.pipeline_class == model.pipeline_class and preset.name != DEMO
        if same_class and preset.guidance_embeds in (None, embeds):
            return preset
    return _from_code(model)


def _from_code(model: ResolvedModel) -> Preset:
    """Return a preset with the defaults of the pipeline's call and the size that its configuration implies."""
    call = call_defaults(model.pipeline_class)
    side, multiple = _native_side(model)

    def default(name: str) -> Any:
        value = call.get(name)
        return None if value is Ellipsis else value

    arguments = {"negative_prompt": "negative_prompt", **SHARED_ARGUMENTS}
    if default("num_inference_steps") is None:
        raise ModelError(f"{model.name}: {model.pipeline_class} has no num_inference_steps; this tool cannot run it")
    return Preset(
        name=model.pipeline_class,
        repository="",
        pipeline_class=model.pipeline_class,
        steps=int(default("num_inference_steps")),
        height=default("height") or side,
        width=default("width") or side,
        guidance_scale=default("guidance_scale"),
        true_cfg_scale=default("true_cfg_scale"),
        optional=tuple(name for name, keyword in arguments.items() if keyword in call and default(keyword) is None),
        max_sequence_length=default("max_sequence_length"),
        dtype="float32",
        size_multiple=multiple,
        about=f"no preset; the defaults of {model.pipeline_class}'s own code",
    )


def _native_side(model: ResolvedModel) -> tuple[int, int]:
    """Return (default side, size multiple) in pixels, from the configurations; the side is 0 where none is stated."""
    blocks: list[int] = model.configs.get("vae", {}).get("block_out_channels") or [0] * 4
    latent = DECODERS & init_parameters(model.pipeline_class)
    scale = 2 ** (len(blocks) - 1) if latent else 1
    denoiser: Mapping[str, Any] = model.configs.get("transformer") or model.configs.get("unet") or {}
    sample = denoiser.get("sample_size") or 0
    patch = denoiser.get("patch_size") if isinstance(denoiser.get("patch_size"), int) else 1
    token = max(1, patch or 1, LATENTS_A_TOKEN.get(model.pipeline_class, 1))
    return (sample if isinstance(sample, int) else 0) * scale, scale * token
