"""What a single file of weights holds, told by the names and shapes of its tensors.

Trainers and other programs each name tensors in their own way. The names that diffusers reads are those of the models'
authors, and its own; diffusers/loaders/single_file_utils.py has them.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass
from math import prod

from t2i_core.errors import ModelError
from t2i_core.models.tensor_names import Shapes

PREFIX = "model.diffusion_model."  # of a denoiser's tensors, in a file that holds other parts, too
UNET = "UNet2DConditionModel"
FLUX, SD3 = "FluxTransformer2DModel", "SD3Transformer2DModel"

# A tensor that only this class has, without the prefix -> the class; the first that fits.
CLASSES = {
    "single_stream_modulation.lin.weight": "Flux2Transformer2DModel",
    "distilled_guidance_layer.in_proj.bias": "ChromaTransformer2DModel",
    "double_blocks.0.img_attn.norm.key_norm.scale": FLUX,
    "joint_blocks.0.context_block.adaLN_modulation.1.bias": SD3,
    "double_stream_blocks.0.block.adaLN_modulation.1.bias": "HiDreamImageTransformer2DModel",
    "double_layers.0.attn.w1q.weight": "AuraFlowTransformer2DModel",
    "transformer_blocks.0.img_mod.1.weight": "QwenImageTransformer2DModel",
    "layers.0.adaLN_modulation.0.weight": "ZImageTransformer2DModel",
    "cap_embedder.0.weight": "Lumina2Transformer2DModel",
    "input_blocks.0.0.weight": UNET,
    "time_embedding.linear_1.weight": UNET,
}
# A pipeline of each class, to name in messages.
EXAMPLES = {
    FLUX: "black-forest-labs/FLUX.1-dev",
    SD3: "stabilityai/stable-diffusion-3.5-large",
    "Flux2Transformer2DModel": "black-forest-labs/FLUX.2-dev",
    "ChromaTransformer2DModel": "lodestones/Chroma1-HD",
    "HiDreamImageTransformer2DModel": "HiDream-ai/HiDream-I1-Full",
    "AuraFlowTransformer2DModel": "fal/AuraFlow-v0.3",
    "QwenImageTransformer2DModel": "Qwen/Qwen-Image",
    "ZImageTransformer2DModel": "Tongyi-MAI/Z-Image-Turbo",
    "Lumina2Transformer2DModel": "Alpha-VLLM/Lumina-Image-2.0",
    UNET: "stabilityai/stable-diffusion-xl-base-1.0",
}
# The beginning of the tensors of a part -> {class of the denoiser beside it: component}.
ENCODERS = {
    "cond_stage_model.": {UNET: "text_encoder"},
    "conditioner.embedders.0.transformer.": {UNET: "text_encoder"},
    "conditioner.embedders.1.model.": {UNET: "text_encoder_2"},
    "text_encoders.clip_l.transformer.": {SD3: "text_encoder", FLUX: "text_encoder"},
    "text_encoders.clip_g.transformer.": {SD3: "text_encoder_2"},
    "text_encoders.t5xxl.transformer.": {SD3: "text_encoder_3", FLUX: "text_encoder_2"},
}
VAES = ("first_stage_model.", "vae.")

# Channels of the denoisers that take a picture beside the noise.
PICTURE_CHANNELS = {UNET: (7, 8, 9), FLUX: (128, 384)}

LORA = re.compile(r"(^|[._])lora[._]|\.(hada|lokr)_w\d|\.(oft|boft)_")
CONTROLNET = re.compile(r"^(control_model\.|controlnet_|input_hint_block\.|control_)")
VAE_ALONE = re.compile(r"^(first_stage_model\.|vae\.)?(encoder|decoder)\.(conv_in|mid|mid_block|down|up)\b")
ENCODER_ALONE = re.compile(r"^(text_model|shared|encoder\.block|text_encoders?|token_embedding|model\.embed_tokens)\b")
# Weights that another program quantized, with scales that diffusers leaves out.
SCALED = re.compile(r"(^|\.)(scaled_fp8|scale_weight|scale_input|weight_scale|absmax|quant_state\.\w+|comfy_quant)$")


@dataclass(frozen=True, slots=True)
class Contents:
    """What a file of weights holds.

    denoiser: the class of its denoiser; None where the names do not tell.
    components: those of the pipeline that it holds; of a denoiser alone `transformer` or `unet`.
    base: the hub id of the pipeline that it is most likely made for; None where the names do not tell.
    channels, text_width: what the denoiser takes: channels of the latents, width of the texts. None: not told.
    guidance: whether a FLUX denoiser has an embedding of the guidance scale.
    predicts_v: whether its author marked it as one that predicts the velocity, not the noise.
    """

    denoiser: str | None
    components: tuple[str, ...]
    base: str | None = None
    channels: int | None = None
    text_width: int | None = None
    guidance: bool | None = None
    predicts_v: bool = False

    @property
    def example(self) -> str:
        """A pipeline that such a denoiser belongs to, or a word for one."""
        return self.base or EXAMPLES.get(self.denoiser or "", "PIPELINE")


def contents_of(option: str, name: str, shapes: Shapes) -> Contents:
    """Return what a file with these tensors holds.

    Raises:
        ModelError: for a file without a denoiser, or with weights that diffusers would read wrongly; in one line.
    """
    if any(LORA.search(tensor) for tensor in shapes):
        raise ModelError(f"{option}: {name} is a LoRA; write --lora {name}")
    if scaled := next((tensor for tensor in shapes if SCALED.search(tensor)), None):
        raise ModelError(
            f"{option}: {name} was quantized by another program ({scaled}), and diffusers would leave the scales out; "
            "take a file of plain weights, or a GGUF file"
        )
    own = {tensor.removeprefix(PREFIX): shape for tensor, shape in shapes.items() if tensor.startswith(PREFIX)}
    is_whole = bool(own)
    own = own or dict(shapes)
    if any(CONTROLNET.search(tensor) for tensor in own):
        raise ModelError(f"{option}: {name} is a ControlNet, not a text-to-image model; choose another file")
    denoiser = next((cls for tensor, cls in CLASSES.items() if tensor in own), None)
    if denoiser is None and not is_whole:
        _refuse_a_part(option, name, shapes)
    if "input_blocks.0.0.weight" in own and not is_whole:
        raise ModelError(
            f"{option}: {name} names its tensors without {PREFIX}, so diffusers cannot read them; take another file"
        )
    if _starts(shapes, "conditioner.embedders.0.model."):
        raise ModelError(
            f"{option}: {name} is the refiner of SDXL, which needs a picture; choose a text-to-image model"
        )
    channels = _channels(own, denoiser)
    if channels in PICTURE_CHANNELS.get(denoiser or "", ()):
        raise ModelError(
            f"{option}: {name} takes a picture beside the text (its denoiser has {channels} channels); "
            "choose a text-to-image model"
        )
    return Contents(
        denoiser=denoiser,
        components=("unet" if denoiser == UNET else "transformer", *_other_components(shapes, denoiser)),
        base=_base(shapes, own, denoiser),
        channels=channels,
        text_width=next((shape[1] for tensor, shape in own.items() if tensor.endswith("attn2.to_k.weight")), None),
        guidance="guidance_in.in_layer.weight" in own if denoiser == FLUX else None,
        predicts_v="v_pred" in shapes,
    )


def values_of_denoiser(shapes: Shapes) -> int:
    """Return how many values the tensors of the denoiser have, in a file with these tensors."""
    others = (*ENCODERS, *VAES)
    own = {tensor: shape for tensor, shape in shapes.items() if tensor.startswith(PREFIX)}
    own = own or {tensor: shape for tensor, shape in shapes.items() if not tensor.startswith(others)}
    return sum(prod(shape) for shape in own.values())


def check_lora(name: str, shapes: Shapes) -> None:
    """Refuse a file with these tensors as a LoRA, if it holds a whole denoiser.

    Raises:
        ModelError: with the option to write instead.
    """
    is_whole = _starts(shapes, PREFIX)
    if (is_whole or not CLASSES.keys().isdisjoint(shapes)) and not any(LORA.search(tensor) for tensor in shapes):
        option = "model" if is_whole else "transformer"
        raise ModelError(f"lora: {name} holds a whole {option}, not a LoRA; write --{option} {name}")


def _refuse_a_part(option: str, name: str, shapes: Shapes) -> None:
    if any(VAE_ALONE.search(tensor) for tensor in shapes):
        what = "holds a VAE only"
    elif any(ENCODER_ALONE.search(tensor) for tensor in shapes):
        what = "holds text encoders only"
    elif any("transformer_blocks." in tensor or "blocks." in tensor or "layers." in tensor for tensor in shapes):
        return  # a denoiser with names that are not in the table
    else:
        what = f"holds no model that is known here (its first tensor: {min(shapes)})"
    raise ModelError(f"{option}: {name} {what}; name a file with the transformer or unet of a text-to-image model")


def _other_components(shapes: Shapes, denoiser: str | None) -> list[str]:
    found = [
        component
        for beginning, components in ENCODERS.items()
        if (component := components.get(denoiser or "")) and _starts(shapes, beginning)
    ]
    return sorted({*found, *(["vae"] if any(_starts(shapes, beginning) for beginning in VAES) else [])})


def _base(shapes: Shapes, own: Shapes, denoiser: str | None) -> str | None:
    """Return the pipeline that diffusers, too, takes such a file for."""
    if denoiser == FLUX:
        return f"black-forest-labs/FLUX.1-{'dev' if 'guidance_in.in_layer.weight' in own else 'schnell'}"
    if denoiser == SD3:
        if "joint_blocks.37.x_block.mlp.fc1.weight" in own:
            return "stabilityai/stable-diffusion-3.5-large"
        medium = "3.5-medium" if _starts(own, "joint_blocks.0.x_block.attn2.") else "3-medium-diffusers"
        return f"stabilityai/stable-diffusion-{medium}"
    if denoiser != UNET:
        return EXAMPLES.get(denoiser or "")
    if "edm_mean" in shapes:
        return "playgroundai/playground-v2.5-1024px-aesthetic"
    if _starts(own, "label_emb.") or _starts(own, "add_embedding."):
        return "stabilityai/stable-diffusion-xl-base-1.0"
    # Of Stable Diffusion 2 there are models that predict the noise and ones that predict the velocity: the names do not
    # tell which, and the wrong one makes noise.
    width = next((shape[1] for tensor, shape in own.items() if tensor.endswith("attn2.to_k.weight")), 0)
    is_2 = width == 1024 or _starts(shapes, "cond_stage_model.model.")
    return None if is_2 else "stable-diffusion-v1-5/stable-diffusion-v1-5"


def _channels(own: Shapes, denoiser: str | None) -> int | None:
    names = {FLUX: ["img_in.weight"], UNET: ["input_blocks.0.0.weight", "conv_in.weight"]}.get(denoiser or "", [])
    return next((own[tensor][1] for tensor in names if tensor in own), None)


def _starts(names: Collection[str], beginning: str) -> bool:
    return any(name.startswith(beginning) for name in names)
