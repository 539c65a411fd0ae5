"""Tiny pipelines with random weights whose tensors are wrong, so that the engine asks them for arrays."""

import torch
from diffusers import (
    DDPMScheduler,
    IFPipeline,
    Kandinsky3Pipeline,
    Kandinsky3UNet,
    UNet2DConditionModel,
    VQModel,
)
from transformers import T5EncoderModel

from tests.tiny_pipelines import WIDTH, _ready, _t5, _tokenizer


def deepfloyd_if():
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=16,
        in_channels=3,
        out_channels=6,
        block_out_channels=(16, 32),
        down_block_types=("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
        mid_block_type="UNetMidBlock2DSimpleCrossAttn",
        up_block_types=("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
        layers_per_block=1,
        norm_num_groups=4,
        cross_attention_dim=WIDTH,
        encoder_hid_dim=WIDTH,
        attention_head_dim=4,
        addition_embed_type="text",
        addition_embed_type_num_heads=2,
        cross_attention_norm="group_norm",
        resnet_time_scale_shift="scale_shift",
        act_fn="gelu",
    )
    return _ready(
        IFPipeline(
            unet=unet,
            scheduler=DDPMScheduler(variance_type="learned_range", prediction_type="epsilon", thresholding=True),
            text_encoder=T5EncoderModel(_t5()),
            tokenizer=_tokenizer(),
            safety_checker=None,
            feature_extractor=None,
            watermarker=None,
            requires_safety_checker=False,
        )
    )


def kandinsky_3():
    torch.manual_seed(0)
    unet = Kandinsky3UNet(
        in_channels=4,
        time_embedding_dim=4,
        groups=2,
        attention_head_dim=4,
        layers_per_block=3,
        block_out_channels=(32, 64),
        cross_attention_dim=4,
        encoder_hid_dim=WIDTH,
    )
    movq = VQModel(
        block_out_channels=[32] * 4,  # the pipeline assumes a scale of 8
        down_block_types=[*["DownEncoderBlock2D"] * 3, "AttnDownEncoderBlock2D"],
        up_block_types=["AttnUpDecoderBlock2D", *["UpDecoderBlock2D"] * 3],
        latent_channels=4,
        layers_per_block=1,
        norm_num_groups=8,
        norm_type="spatial",
        num_vq_embeddings=12,
        vq_embed_dim=4,
    )
    return _ready(
        Kandinsky3Pipeline(
            tokenizer=_tokenizer(),
            text_encoder=T5EncoderModel(_t5()),
            unet=unet,
            scheduler=DDPMScheduler(beta_start=0.00085, beta_end=0.012, clip_sample=False),
            movq=movq,
        )
    )
