"""What a single file holds, told by the names of its tensors."""

import pytest

from t2i_core.errors import ModelError
from t2i_core.models.file_contents import check_lora, contents_of
from t2i_core.models.tensor_names import Shapes
from tests.fake_hub import message_of
from tests.models.weight_files import ENCODER, FLUX, GUIDED, SD3, SDXL, UNET, VAE, whole

T5 = {"text_encoders.t5xxl.transformer.shared.weight": (2, 2)}
CLIP_L = {"text_encoders.clip_l.transformer.text_model.x": (2, 2)}
LARGE = {"joint_blocks.37.x_block.mlp.fc1.weight": (2, 2)}
MEDIUM = {"joint_blocks.0.x_block.attn2.qkv.weight": (2, 2)}


@pytest.mark.parametrize(
    ("shapes", "denoiser", "components", "base"),
    [
        (whole(UNET, VAE, ENCODER), "UNet2DConditionModel", {"unet", "vae", "text_encoder"}, "stable-diffusion-v1-5"),
        (
            whole({**UNET, **SDXL}, VAE, SDXL),
            *(
                "UNet2DConditionModel",
                {"unet", "vae", "text_encoder", "text_encoder_2"},
                "stable-diffusion-xl-base-1.0",
            ),
        ),
        (whole(UNET, SDXL, {"edm_mean": (4,)}), "UNet2DConditionModel", None, "playground-v2.5-1024px-aesthetic"),
        (whole(UNET, VAE, {"cond_stage_model.model.x": (2,)}), "UNet2DConditionModel", None, None),
        ({"time_embedding.linear_1.weight": (2, 2)}, "UNet2DConditionModel", {"unet"}, "stable-diffusion-v1-5"),
        (FLUX, "FluxTransformer2DModel", {"transformer"}, "FLUX.1-schnell"),
        (
            whole({**FLUX, **GUIDED}, {"vae.encoder.conv_in.weight": (2,)}, CLIP_L, T5),
            *("FluxTransformer2DModel", {"transformer", "vae", "text_encoder", "text_encoder_2"}, "FLUX.1-dev"),
        ),
        (whole(SD3, VAE), "SD3Transformer2DModel", {"transformer", "vae"}, "stable-diffusion-3-medium-diffusers"),
        ({**SD3, **LARGE}, "SD3Transformer2DModel", {"transformer"}, "stable-diffusion-3.5-large"),
        (
            whole({**SD3, **MEDIUM}, T5),
            *("SD3Transformer2DModel", {"transformer", "text_encoder_3"}, "stable-diffusion-3.5-medium"),
        ),
        (
            {"transformer_blocks.0.img_mod.1.weight": (2, 2)},
            "QwenImageTransformer2DModel",
            {"transformer"},
            "Qwen-Image",
        ),
        ({"transformer_blocks.0.new.weight": (2, 2)}, None, {"transformer"}, None),
    ],
)
def test_families_and_parts(shapes: Shapes, denoiser: str, components: set[str] | None, base: str | None) -> None:
    contents = contents_of("model", "x.safetensors", shapes)
    assert contents.denoiser == denoiser
    assert components is None or set(contents.components) == components
    assert (contents.base or "/").partition("/")[2] == (base or "")


def test_what_the_denoiser_takes() -> None:
    flux, unet = contents_of("model", "x", {**FLUX, **GUIDED}), contents_of("model", "x", whole(UNET, VAE))
    assert (flux.channels, flux.text_width, flux.guidance) == (64, None, True)
    assert contents_of("model", "x", FLUX).guidance is False
    assert (unet.channels, unet.text_width, unet.guidance, unet.predicts_v) == (4, 768, None, False)
    assert contents_of("model", "x", whole(UNET, {"v_pred": (0,)})).predicts_v


@pytest.mark.parametrize(
    ("shapes", "option"),
    [(FLUX, "transformer"), (whole(UNET, VAE), "model"), ({"time_embedding.linear_1.weight": (2,)}, "transformer")],
)
def test_a_whole_denoiser_is_no_lora(shapes: Shapes, option: str) -> None:
    with pytest.raises(ModelError) as caught:
        check_lora("x", shapes)
    assert message_of(caught) == f"lora: x holds a whole {option}, not a LoRA; write --{option} x"
    check_lora("x", {"transformer.a.lora_A.weight": (2,)})
    # A LoRA of some trainers, and a new kind of file: whether it is of use shows when it is loaded.
    check_lora("x", {**shapes, "lora_unet_a.lora_down.weight": (2,)})
    check_lora("x", {"other": (2,)})


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ({"lora_unet_down_blocks_0.lora_down.weight": (2,)}, "x is a LoRA; write --lora x"),
        ({"transformer.single_transformer_blocks.0.lora_A.weight": (2,)}, "x is a LoRA; write --lora x"),
        ({"lora_unet_x.lokr_w1": (2,)}, "x is a LoRA"),
        ({"decoder.conv_in.weight": (2,), "encoder.conv_in.weight": (2,)}, "x holds a VAE only"),
        (VAE, "x holds a VAE only"),
        ({"text_model.encoder.layers.0.x": (2,)}, "x holds text encoders only"),
        ({"shared.weight": (2,), "encoder.block.0.x": (2,)}, "x holds text encoders only"),
        ({"emb_params": (2,)}, "x holds no model that is known here (its first tensor: emb_params)"),
        ({"control_model.input_blocks.0.0.weight": (2,)}, "x is a ControlNet"),
        ({"controlnet_cond_embedding.conv_in.weight": (2,), "down_blocks.0.x": (2,)}, "x is a ControlNet"),
        ({**FLUX, "scaled_fp8": (1,)}, "x was quantized by another program (scaled_fp8)"),
        ({**FLUX, "double_blocks.0.img_attn.qkv.scale_weight": (1,)}, "x was quantized by another program"),
        ({**FLUX, "a.weight.quant_state.bitsandbytes__nf4": (1,)}, "x was quantized by another program"),
        (whole(UNET, {"conditioner.embedders.0.model.x": (2,)}), "x is the refiner of SDXL"),
        ({"model.diffusion_model.input_blocks.0.0.weight": (4, 9, 3, 3)}, "x takes a picture beside the text"),
        ({**FLUX, "img_in.weight": (8, 384)}, "x takes a picture beside the text (its denoiser has 384 channels)"),
        ({"input_blocks.0.0.weight": (4, 4, 3, 3)}, "x names its tensors without model.diffusion_model."),
    ],
)
def test_what_is_no_text_to_image_denoiser_is_refused(shapes: Shapes, message: str) -> None:
    with pytest.raises(ModelError) as caught:
        contents_of("model", "x", shapes)
    assert message_of(caught).startswith(f"model: {message}")
