"""Attention backends: the kernels that calculate attention in the denoiser, in place of torch's own choice.

This tool offers those that diffusers finds in installed packages, and none that it fetches from the hub: they are code.
"""

from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from diffusers import attention_backend
from diffusers.models.attention_dispatch import dispatch_attention_fn

from t2i_core.engine.attempt import one_line
from t2i_core.engine.device import is_out_of_memory
from t2i_core.errors import ConfigError
from t2i_core.options.speed import ATTENTION_PACKAGES

# What users write -> diffusers' name. Flash and cuDNN calculate the same as torch but for rounding; sage multiplies in
# eight bits.
BACKENDS = {"cudnn": "_native_cudnn", "flash2": "flash", "flash3": "_flash_3", "sage": "sage"}
# How to get the package of a backend; cuDNN comes with torch.
PACKAGES = {
    "flash2": "`pip install flash-attn --no-build-isolation`",
    "flash3": "build it from the folder hopper of github.com/Dao-AILab/flash-attention",
    "sage": "build SageAttention 2 from github.com/thu-ml/SageAttention",
}
# Denoisers that call attention without a mask. Every backend but cuDNN raises where it is given one, so each image of
# another model would fail.
WITHOUT_MASK = {
    "FluxTransformer2DModel",
    # Known from their source alone.
    *("Flux2Transformer2DModel", "LongCatImageTransformer2DModel", "OvisImageTransformer2DModel"),
}


def check_attention(kind: str, denoiser: Any, device: str, dtype: str) -> None:
    """Refuse a backend that this machine or this model cannot use.

    Args:
        kind: a key of `BACKENDS`.
        denoiser: the model's denoiser, also without weights; None: not known yet.
        device: the device's name.
        dtype: the name of the weights' number format.

    Raises:
        ConfigError: naming the package, the device, the number format or the model that is in the way.
    """
    if not device.startswith("cuda"):
        raise ConfigError([f"attention: {kind} needs a CUDA card, and the device is {device}; leave it out"])
    if dtype == "float32":
        raise ConfigError([f"attention: {kind} takes no float32 (dtype); use --dtype bfloat16, or leave attention out"])
    if denoiser is not None:
        _check_denoiser(kind, denoiser)
    try:
        with attention_backend(BACKENDS[kind]):
            pass
    except (RuntimeError, ImportError) as error:
        raise ConfigError(
            [f"attention: {kind} is not installed, or too old ({one_line(error)}); {PACKAGES[kind]}"]
        ) from None
    _try(kind, denoiser, device, dtype)


def set_attention(kind: str, denoiser: Any) -> None:
    """Let the denoiser, and no other model of this process, calculate attention with a backend.

    Raises:
        ConfigError: the denoiser is one that cannot use it.
    """
    _check_denoiser(kind, denoiser)
    # diffusers makes a model's backend that of the whole process; leaving the context takes that back.
    with attention_backend("native"):
        denoiser.set_attention_backend(BACKENDS[kind])


def attention_version(kind: str | None) -> dict[str, str]:
    """Return the version of the package behind a backend by its name; nothing for one that comes with torch."""
    name = ATTENTION_PACKAGES.get(kind or "")
    try:
        return {name: version(name)} if name else {}
    except PackageNotFoundError:  # built from source under another name
        return {}


def _check_denoiser(kind: str, denoiser: Any) -> None:
    name = type(denoiser).__name__
    processors = [getattr(module, "processor", None) for module in denoiser.modules()]
    if not any(hasattr(processor, "_attention_backend") for processor in processors):
        raise ConfigError([f"attention: diffusers has one kind of attention only for {name}; leave {kind} out"])
    if kind != "cudnn" and name not in WITHOUT_MASK:
        raise ConfigError([f"attention: {kind} takes no mask, and {name} may give one; use cudnn, or leave it out"])


def _try(kind: str, denoiser: Any, device: str, dtype: str) -> None:
    """Calculate a little attention, so that a card that cannot is found out before a model is loaded.

    Raises:
        ConfigError: with what the kernel says.
    """
    width = getattr(denoiser, "config", {}).get("attention_head_dim")
    shape = (1, 64, 8, width if isinstance(width, int) else 128)  # image, token, head, channel
    try:
        query = torch.zeros(shape, device=device, dtype=getattr(torch, dtype))
        with attention_backend(BACKENDS[kind]), torch.inference_mode():
            dispatch_attention_fn(query, query, query)
    except Exception as error:
        if is_out_of_memory(error):
            raise
        raise ConfigError(
            [f"attention: {kind} does not work on {device}: {one_line(error)}; leave it out, or try another"]
        ) from None
