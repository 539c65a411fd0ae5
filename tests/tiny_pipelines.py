"""Pipelines of several families with random weights, small enough for a test on the CPU."""

import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderKLQwenImage,
    CogView4Pipeline,
    CogView4Transformer2DModel,
    DDIMScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxKontextPipeline,
    FluxTransformer2DModel,
    Lumina2Pipeline,
    Lumina2Transformer2DModel,
    PixArtSigmaPipeline,
    PixArtTransformer2DModel,
    QwenImagePipeline,
    QwenImageTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
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
    Gemma2Config,
    Gemma2Model,
    GlmConfig,
    GlmModel,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen3Config,
    Qwen3Model,
    T5Config,
    T5EncoderModel,
)

from t2i_core.bundled import DEMO_MODEL

WIDTH = 32  # of every text encoder
VOCABULARY = 200
SPECIAL_TOKENS = {"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2}


def stable_diffusion_3():
    torch.manual_seed(0)
    transformer = SD3Transformer2DModel(
        sample_size=8,
        patch_size=1,
        in_channels=4,
        out_channels=4,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=4,
        joint_attention_dim=2 * WIDTH,
        caption_projection_dim=32,
        pooled_projection_dim=2 * WIDTH,
    )
    return _ready(
        StableDiffusion3Pipeline(
            transformer=transformer,
            scheduler=FlowMatchEulerDiscreteScheduler(),
            vae=_vae(),
            text_encoder=CLIPTextModelWithProjection(_clip()),
            tokenizer=_tokenizer(),
            text_encoder_2=CLIPTextModelWithProjection(_clip()),
            tokenizer_2=_tokenizer(),
            text_encoder_3=T5EncoderModel(_t5(width=2 * WIDTH)),
            tokenizer_3=_tokenizer(),
        )
    )


def stable_diffusion_xl():
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        block_out_channels=(16, 32),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        sample_size=8,
        in_channels=4,
        out_channels=4,
        attention_head_dim=(2, 4),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        transformer_layers_per_block=(1, 2),
        projection_class_embeddings_input_dim=6 * 8 + WIDTH,
        cross_attention_dim=2 * WIDTH,
        norm_num_groups=4,
    )
    return _ready(
        StableDiffusionXLPipeline(
            unet=unet,
            scheduler=DDIMScheduler(steps_offset=1, clip_sample=False),
            vae=_vae(),
            text_encoder=CLIPTextModel(_clip()),
            tokenizer=_tokenizer(),
            text_encoder_2=CLIPTextModelWithProjection(_clip()),
            tokenizer_2=_tokenizer(),
            add_watermarker=False,
        )
    )


def flux_kontext():
    torch.manual_seed(0)
    transformer = FluxTransformer2DModel(
        patch_size=1,
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=WIDTH,
        pooled_projection_dim=WIDTH,
        axes_dims_rope=(4, 4, 8),
        guidance_embeds=True,
    )
    return _ready(
        FluxKontextPipeline(
            transformer=transformer,
            scheduler=FlowMatchEulerDiscreteScheduler(),
            vae=_vae(),
            text_encoder=CLIPTextModel(_clip()),
            tokenizer=_tokenizer(),
            text_encoder_2=T5EncoderModel(_t5()),
            tokenizer_2=_tokenizer(),
        )
    )


def pixart_sigma():
    torch.manual_seed(0)
    transformer = PixArtTransformer2DModel(
        sample_size=8,
        num_layers=2,
        patch_size=2,
        attention_head_dim=8,
        num_attention_heads=4,
        caption_channels=WIDTH,
        in_channels=4,
        out_channels=8,
        cross_attention_dim=32,
    )
    return _ready(
        PixArtSigmaPipeline(
            transformer=transformer,
            scheduler=DDIMScheduler(steps_offset=1, clip_sample=False),
            vae=_vae(),
            text_encoder=T5EncoderModel(_t5()),
            tokenizer=_tokenizer(),
        )
    )


def qwen_image():
    torch.manual_seed(0)
    transformer = QwenImageTransformer2DModel(
        in_channels=16,
        out_channels=4,
        num_layers=2,
        attention_head_dim=16,
        num_attention_heads=3,
        joint_attention_dim=WIDTH,
        axes_dims_rope=(8, 4, 4),
    )
    vae = AutoencoderKLQwenImage(
        base_dim=8,
        z_dim=4,
        dim_mult=[1, 2, 4],
        num_res_blocks=1,
        temperal_downsample=[False, True],
        latents_mean=[0.0] * 4,
        latents_std=[1.0] * 4,
    )
    rope = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 1e6}
    vision = {"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": WIDTH}
    encoder = Qwen2_5_VLForConditionalGeneration(
        Qwen2_5_VLConfig(text_config=_decoder() | {"rope_parameters": rope}, vision_config=vision)
    )
    pipeline = QwenImagePipeline(
        transformer=transformer,
        scheduler=_shifting_scheduler(),
        vae=vae,
        text_encoder=encoder,
        tokenizer=_tokenizer(),
    )
    # The real template has tags, which a tokenizer of whole words counts as parts of the prompt.
    pipeline.prompt_template_encode, pipeline.prompt_template_encode_start_idx = "a picture of {}", 3
    return _ready(pipeline)


def z_image():
    torch.manual_seed(0)
    transformer = ZImageTransformer2DModel(
        in_channels=4,
        dim=32,
        n_layers=2,
        n_refiner_layers=1,
        n_heads=2,
        n_kv_heads=2,
        cap_feat_dim=WIDTH,
        axes_dims=[8, 4, 4],
        axes_lens=[256, 32, 32],
    )
    tokenizer = _tokenizer()
    tokenizer.chat_template = "{% for message in messages %}{{ message['content'] }} {% endfor %}"
    return _ready(
        ZImagePipeline(
            transformer=transformer,
            scheduler=_shifting_scheduler(),
            vae=_vae(),
            text_encoder=Qwen3Model(Qwen3Config(**_decoder())),
            tokenizer=tokenizer,
        )
    )


def cogview4():
    torch.manual_seed(0)
    transformer = CogView4Transformer2DModel(
        in_channels=4,
        out_channels=4,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=4,
        text_embed_dim=WIDTH,
        time_embed_dim=8,
        condition_dim=4,
    )
    return _ready(
        CogView4Pipeline(
            transformer=transformer,
            scheduler=_shifting_scheduler(),
            vae=_vae(),
            text_encoder=GlmModel(GlmConfig(**_decoder())),
            tokenizer=_tokenizer(padding_side="left"),
        )
    )


def lumina2():
    torch.manual_seed(0)
    transformer = Lumina2Transformer2DModel(
        sample_size=4,
        in_channels=4,
        hidden_size=24,
        num_layers=2,
        num_refiner_layers=1,
        num_attention_heads=3,
        num_kv_heads=1,
        multiple_of=2,
        axes_dim_rope=(4, 2, 2),
        axes_lens=(128, 32, 32),
        cap_feat_dim=WIDTH,
    )
    return _ready(
        Lumina2Pipeline(
            transformer=transformer,
            scheduler=_shifting_scheduler(),
            vae=_vae(levels=4),  # the pipeline assumes a scale of 8
            text_encoder=Gemma2Model(Gemma2Config(**_decoder())),
            tokenizer=_tokenizer(),
        )
    )


def _ready(pipeline):
    pipeline.set_progress_bar_config(disable=True)
    for part in pipeline.components.values():
        if isinstance(part, torch.nn.Module):
            part.eval()
    return pipeline


def _tokenizer(**options):
    return AutoTokenizer.from_pretrained(DEMO_MODEL / "tokenizer", **options)


def _vae(levels=2):
    return AutoencoderKL(
        block_out_channels=[8] * levels,
        down_block_types=["DownEncoderBlock2D"] * levels,
        up_block_types=["UpDecoderBlock2D"] * levels,
        latent_channels=4,
        norm_num_groups=4,
        shift_factor=0.0,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )


def _shifting_scheduler():
    return FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)


def _clip():
    return CLIPTextConfig(
        vocab_size=VOCABULARY,
        hidden_size=WIDTH,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=24,
        projection_dim=WIDTH,
        **SPECIAL_TOKENS,
    )


def _t5(width=WIDTH):
    return T5Config(vocab_size=VOCABULARY, d_model=width, d_kv=8, d_ff=32, num_layers=2, num_heads=4)


def _decoder():
    """Return what the configurations of the language models have in common."""
    return {
        "vocab_size": VOCABULARY,
        "hidden_size": WIDTH,
        "intermediate_size": 32,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        **SPECIAL_TOKENS,
    }
