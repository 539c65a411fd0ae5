"""Pipelines of full size with random weights, made on the device: nothing is downloaded.

    python -m benchmarks.random_models flux-quarter FOLDER [--device cuda]

writes one as a folder that `--model FOLDER` takes: to try a GPU with this tool before the weights are there.

The sizes are those of the models' published configurations, where they differ from the defaults of diffusers and
transformers; `flux-quarter` is FLUX.1-dev with a quarter of its blocks. The tokenizer is the demo model's, which does
not change what a step costs. `tiny` makes pipelines of the same classes that a CPU runs in seconds.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderKLQwenImage,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    QwenImagePipeline,
    QwenImageTransformer2DModel,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
    ZImagePipeline,
    ZImageTransformer2DModel,
)
from transformers import (
    AutoTokenizer,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen3Config,
    Qwen3Model,
    T5Config,
    T5EncoderModel,
)

from t2i_core.bundled import DEMO_MODEL

SPECIAL_TOKENS = {"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2}


def make(name: str, device: torch.device, dtype: torch.dtype, *, tiny: bool) -> Any:
    """Return the pipeline of a key of `MODELS` on its device, with random weights."""
    with _on(device, dtype):
        pipeline = MODELS[name](tiny)
    pipeline.set_progress_bar_config(disable=True)
    return _ready(pipeline)


def renew_denoiser(pipeline: Any, device: torch.device, dtype: torch.dtype) -> None:
    """Make the denoiser and the VAE anew, so that nothing is left of what was done to them."""
    name = "unet" if hasattr(pipeline, "unet") else "transformer"
    parts = {part: (type(getattr(pipeline, part)), getattr(pipeline, part).config) for part in (name, "vae")}
    for part in parts:
        setattr(pipeline, part, None)  # out of memory before the new one is made
    if device.type == "cuda":
        torch.cuda.empty_cache()
    with _on(device, dtype):
        for part, (kind, config) in parts.items():
            pipeline.register_modules(**{part: kind.from_config(config)})
    _ready(pipeline)


class _on:
    """A context in which modules are made on `device` with weights of `dtype`, always the same ones."""

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        self.device, self.dtype, self.before = device, dtype, torch.get_default_dtype()

    def __enter__(self) -> None:
        torch.manual_seed(0)
        torch.set_default_dtype(self.dtype)
        self.device.__enter__()

    def __exit__(self, *error: object) -> None:
        self.device.__exit__(*error)
        torch.set_default_dtype(self.before)


def _ready(pipeline: Any) -> Any:
    for part in pipeline.components.values():
        if isinstance(part, torch.nn.Module):
            part.eval().requires_grad_(False)
    return pipeline


def _flux(tiny: bool, *, guidance: bool, part: int = 1) -> Any:
    """Return a FLUX.1 with one in `part` of its blocks."""
    full = {"num_layers": 19 // part, "num_single_layers": 38 // part}
    sizes = {"num_layers": 1, "num_single_layers": 1, "num_attention_heads": 2, "joint_attention_dim": 32}
    sizes |= {"attention_head_dim": 16, "pooled_projection_dim": 32, "axes_dims_rope": (4, 6, 6)}
    shift = {"shift": 3.0, "use_dynamic_shifting": True, "max_shift": 1.15} if guidance else {"shift": 1.0}
    return FluxPipeline(
        transformer=FluxTransformer2DModel(guidance_embeds=guidance, **(sizes if tiny else full)),
        scheduler=_scheduler(FlowMatchEulerDiscreteScheduler, **shift),
        vae=_vae(tiny, latent_channels=16, scaling_factor=0.3611, shift_factor=0.1159),
        text_encoder=CLIPTextModel(_clip_l(tiny)),
        tokenizer=_tokenizer(),
        text_encoder_2=T5EncoderModel(_t5_xxl(tiny, 24 // part)),
        tokenizer_2=_tokenizer(),
    )


def _qwen_image(tiny: bool) -> Any:
    sizes = {"num_layers": 1, "attention_head_dim": 16, "num_attention_heads": 2, "joint_attention_dim": 32}
    sizes |= {"axes_dims_rope": (4, 6, 6)}
    text = {"hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28, "num_attention_heads": 28}
    text |= {"num_key_value_heads": 4, "vocab_size": 152064}
    sections = [16, 24, 24]
    vision = {"hidden_size": 1280}
    if tiny:
        text |= _TINY_DECODER
        sections = [2, 3, 3]
        vision = {"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": 32}
    rope = {"rope_type": "default", "mrope_section": sections, "rope_theta": 1e6}
    config = Qwen2_5_VLConfig(text_config=text | {"rope_parameters": rope} | SPECIAL_TOKENS, vision_config=vision)
    pipeline = QwenImagePipeline(
        transformer=QwenImageTransformer2DModel(**(sizes if tiny else {})),
        scheduler=_scheduler(
            FlowMatchEulerDiscreteScheduler,
            use_dynamic_shifting=True,
            max_shift=0.9,
            max_image_seq_len=8192,
            shift_terminal=0.02,
        ),
        vae=AutoencoderKLQwenImage(**({"base_dim": 8, "num_res_blocks": 1} if tiny else {})),
        text_encoder=Qwen2_5_VLForConditionalGeneration(config),
        tokenizer=_tokenizer(),
    )
    # The real template has tags, which a tokenizer of whole words counts as parts of the prompt.
    pipeline.prompt_template_encode, pipeline.prompt_template_encode_start_idx = "a picture of {}", 3
    return pipeline


def _z_image(tiny: bool) -> Any:
    sizes = {"dim": 32, "n_layers": 1, "n_refiner_layers": 1, "n_heads": 2, "n_kv_heads": 2, "cap_feat_dim": 32}
    sizes |= {"axes_dims": [8, 4, 4]}
    text = {"hidden_size": 2560, "intermediate_size": 9728, "num_hidden_layers": 36, "num_attention_heads": 32}
    text |= {"num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151936} | (_TINY_DECODER if tiny else {})
    tokenizer = _tokenizer()
    tokenizer.chat_template = "{% for message in messages %}{{ message['content'] }} {% endfor %}"
    return ZImagePipeline(
        transformer=ZImageTransformer2DModel(**(sizes if tiny else {})),
        scheduler=_scheduler(FlowMatchEulerDiscreteScheduler, shift=3.0),
        vae=_vae(tiny, latent_channels=16, scaling_factor=0.3611, shift_factor=0.1159),
        text_encoder=Qwen3Model(Qwen3Config(**text, **SPECIAL_TOKENS)),
        tokenizer=tokenizer,
    )


def _sdxl(tiny: bool) -> Any:
    sizes: dict[str, Any] = {
        "block_out_channels": (320, 640, 1280),
        "transformer_layers_per_block": (1, 2, 10),
        "attention_head_dim": (5, 10, 20),
        "cross_attention_dim": 2048,
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2816,
        "sample_size": 128,
    }
    big = {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 20}
    big |= {"projection_dim": 1280, "hidden_act": "gelu"}
    if tiny:
        sizes |= {"block_out_channels": (32, 32, 32), "transformer_layers_per_block": 1, "attention_head_dim": 2}
        sizes |= {"cross_attention_dim": 64, "addition_time_embed_dim": 8, "sample_size": 8}
        sizes |= {"projection_class_embeddings_input_dim": 6 * 8 + 32}
        big = _TINY_CLIP
    unet = UNet2DConditionModel(
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        use_linear_projection=True,
        addition_embed_type="text_time",
        **sizes,
    )
    return StableDiffusionXLPipeline(
        unet=unet,
        scheduler=_scheduler(
            EulerDiscreteScheduler,
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            steps_offset=1,
            timestep_spacing="leading",
        ),
        vae=_vae(tiny, latent_channels=4, scaling_factor=0.13025),
        text_encoder=CLIPTextModel(_clip_l(tiny)),
        tokenizer=_tokenizer(),
        text_encoder_2=CLIPTextModelWithProjection(CLIPTextConfig(**big, vocab_size=49408, **SPECIAL_TOKENS)),
        tokenizer_2=_tokenizer(),
        add_watermarker=False,
    )


_TINY_CLIP = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
_TINY_CLIP |= {"projection_dim": 32}
_TINY_DECODER = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
_TINY_DECODER |= {"num_key_value_heads": 2, "head_dim": 16, "vocab_size": 1000}


def _scheduler(kind: Any, **options: Any) -> Any:
    with torch.device("cpu"):  # schedulers calculate in numpy
        return kind(**options)


def _tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(DEMO_MODEL / "tokenizer", model_max_length=77)


def _clip_l(tiny: bool) -> CLIPTextConfig:
    sizes = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
    return CLIPTextConfig(**(_TINY_CLIP if tiny else sizes | {"projection_dim": 768}), **SPECIAL_TOKENS)


def _t5_xxl(tiny: bool, layers: int) -> T5Config:
    sizes = {"d_model": 4096, "d_kv": 64, "d_ff": 10240, "num_layers": layers, "num_heads": 64}
    small = {"d_model": 32, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2}
    return T5Config(**(small if tiny else sizes), vocab_size=32128, feed_forward_proj="gated-gelu")


def _vae(tiny: bool, **options: Any) -> AutoencoderKL:
    widths = [8, 8, 8, 8] if tiny else [128, 256, 512, 512]
    return AutoencoderKL(
        block_out_channels=widths,
        layers_per_block=1 if tiny else 2,
        norm_num_groups=4 if tiny else 32,
        down_block_types=["DownEncoderBlock2D"] * 4,
        up_block_types=["UpDecoderBlock2D"] * 4,
        use_quant_conv=options["latent_channels"] == 4,
        use_post_quant_conv=options["latent_channels"] == 4,
        force_upcast=False,
        sample_size=1024,
        **options,
    )


MODELS: dict[str, Callable[[bool], Any]] = {
    "flux-dev": lambda tiny: _flux(tiny, guidance=True),
    "flux-schnell": lambda tiny: _flux(tiny, guidance=False),
    "flux-quarter": lambda tiny: _flux(tiny, guidance=True, part=4),
    "qwen-image": _qwen_image,
    "z-image": _z_image,
    "sdxl": _sdxl,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=MODELS, metavar="NAME", help=", ".join(MODELS))
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("--device", default="cuda", help="where weights are drawn; with cpu they are tiny")
    options = parser.parse_args()
    tiny = options.device == "cpu"
    pipeline = make(options.name, torch.device(options.device), torch.float32 if tiny else torch.bfloat16, tiny=tiny)
    pipeline.save_pretrained(options.folder)


if __name__ == "__main__":
    main()
