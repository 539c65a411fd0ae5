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
from diffusers import AutoencoderKL
from torch import Tensor

LATENT_CHANNELS = 8


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


def encode_latents(vae: AutoencoderKL, pixels: Tensor) -> Tensor:
    """Pixels to the latents that the transformer learns: shifted and scaled to mean 0 and deviation 1."""
    with torch.no_grad():
        return (vae.encode(pixels).latent_dist.mean - vae.config.shift_factor) * vae.config.scaling_factor
