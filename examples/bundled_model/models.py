"""The five models of a FLUX, at a thousandth of the size.

| part                | FLUX.1-dev                    | here                              |
|---------------------|-------------------------------|-----------------------------------|
| VAE                 | 8x smaller, 16 channels       | 4x smaller, 8 channels            |
| CLIP text encoder   | 12 layers, width 768          | 2 layers, width 128               |
| T5 text encoder     | 24 layers, width 4096         | 2 layers, width 128               |
| transformer         | 19 double + 38 single, 3072   | 1 double + 5 single blocks, 160   |
| text tokens         | 512                           | 24                                |
"""

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

from captions import vocabulary
from tokenizer import END, PAD, SPECIAL, TEXT_LENGTH, UNKNOWN, build_tokenizer

LATENT_CHANNELS = 8
TEXT_WIDTH = 128
VOCABULARY = len(SPECIAL) + len(vocabulary())


def build_vae() -> AutoencoderKL:
    """The autoencoder: [B, 3, 64, 64] pixels in [-1, 1] to [B, 8, 16, 16] latents and back; 1.4 million parameters.

    Few channels at full resolution, where a convolution costs most, and more below. Pictures this small need no
    attention in the middle.
    """
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(16, 48, 96),
        layers_per_block=1,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=8,
        use_quant_conv=False,
        use_post_quant_conv=False,
        mid_block_add_attention=False,
        sample_size=64,
        shift_factor=0.0,
        scaling_factor=1.0,
    )


def build_clip() -> CLIPTextModel:
    """The encoder whose one vector, read at the end token, steers every layer of the transformer."""
    clip = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=VOCABULARY,
            hidden_size=TEXT_WIDTH,
            intermediate_size=2 * TEXT_WIDTH,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=TEXT_LENGTH,
            projection_dim=TEXT_WIDTH,
            pad_token_id=PAD,
            eos_token_id=END,
            bos_token_id=UNKNOWN,
        )
    )
    nn.init.normal_(clip.get_input_embeddings().weight, std=0.3)
    return clip


def build_t5() -> T5EncoderModel:
    """The encoder whose 24 vectors, one a token, the transformer attends to. Padding is not masked, as in FLUX."""
    t5 = T5EncoderModel(
        T5Config(
            vocab_size=VOCABULARY,
            d_model=TEXT_WIDTH,
            d_kv=32,
            d_ff=2 * TEXT_WIDTH,
            num_layers=2,
            num_heads=4,
            dropout_rate=0.0,
            pad_token_id=PAD,
            eos_token_id=END,
        )
    )
    nn.init.normal_(t5.shared.weight, std=0.5)
    return t5


def build_transformer() -> FluxTransformer2DModel:
    """The network that tells noise from picture: 64 image tokens and 24 text tokens, 3 million parameters.

    Modulations and the output begin at zero, so that every block begins as the identity and the first prediction is 0
    (Peebles and Xie, "Scalable Diffusion Models with Transformers", 2023).
    """
    transformer = FluxTransformer2DModel(
        patch_size=1,
        in_channels=4 * LATENT_CHANNELS,
        num_layers=1,
        num_single_layers=5,
        attention_head_dim=32,
        num_attention_heads=5,
        joint_attention_dim=TEXT_WIDTH,
        pooled_projection_dim=TEXT_WIDTH,
        axes_dims_rope=(8, 12, 12),
        guidance_embeds=False,
    )
    for name, module in transformer.named_modules():
        if isinstance(module, nn.Linear):
            if _is_modulation(name) or name == "proj_out":
                nn.init.zeros_(module.weight)
            else:
                nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)
    return transformer


def is_block_matrix(name: str, weight: Tensor) -> bool:
    """Whether a parameter is a matrix of a transformer block that Muon trains: all but the modulations."""
    return weight.ndim == 2 and "transformer_blocks" in name and not _is_modulation(name)


def _is_modulation(name: str) -> bool:
    return ".norm" in name or name.startswith("norm_out")


def encode_latents(vae: AutoencoderKL, pixels: Tensor) -> Tensor:
    """Pixels to the latents that the transformer learns: shifted and scaled to mean 0 and deviation 1."""
    with torch.no_grad():
        mean = vae.encode(pixels.to(vae.device)).latent_dist.mean
    return (mean - vae.config.shift_factor) * vae.config.scaling_factor


def pack(latents: Tensor) -> Tensor:
    """[B, C, H, W] to tokens of 2x2 latents, [B, H/2 * W/2, 4C], in the order of `FluxPipeline`."""
    batch, channels, height, width = latents.shape
    blocks = latents.view(batch, channels, height // 2, 2, width // 2, 2).permute(0, 2, 4, 1, 3, 5)
    return blocks.reshape(batch, height * width // 4, channels * 4)


def position_ids(height: int, width: int) -> Tensor:
    """Row and column of every image token, [height * width, 3]; text tokens are all at (0, 0, 0)."""
    ids = torch.zeros(height, width, 3)
    ids[..., 1] += torch.arange(height)[:, None]
    ids[..., 2] += torch.arange(width)
    return ids.view(-1, 3)


def build_pipeline(
    vae: AutoencoderKL, clip: CLIPTextModel, t5: T5EncoderModel, transformer: FluxTransformer2DModel
) -> FluxPipeline:
    """All parts as the pipeline that also runs FLUX.1-dev; the scheduler's shift gives noisy times more steps."""
    pipeline = FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=3.0, use_dynamic_shifting=False),
        vae=vae,
        text_encoder=clip,
        tokenizer=build_tokenizer(),
        text_encoder_2=t5,
        tokenizer_2=build_tokenizer(),
        transformer=transformer,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline
