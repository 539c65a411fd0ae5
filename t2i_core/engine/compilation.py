"""Compilation of a pipeline by torch.compile: the denoiser's repeated blocks, and more in the mode `max-autotune`."""

import os
from pathlib import Path
from typing import Any

import torch

from t2i_core.engine.denoiser import denoiser_of
from t2i_core.errors import ConfigError

# The settings of published recipes for FLUX on one card (huggingface/flux-fast): kernels are chosen by measuring them.
# CUDA graphs are left out: they give each block's output the same memory, which the next block would overwrite.
MAX_AUTOTUNE = {
    "max_autotune": True,
    "coordinate_descent_tuning": True,
    "coordinate_descent_check_all_directions": True,
    "conv_1x1_as_mm": True,
    "epilogue_fusion": False,
}
CACHE = "TORCHINDUCTOR_CACHE_DIR"


def check_compilation(denoiser: Any, pipeline_class: str) -> None:
    """Refuse to compile a pipeline whose denoiser, also without weights, has no repeated blocks.

    Raises:
        ConfigError: naming the pipeline.
    """
    names = getattr(denoiser, "_repeated_blocks", None) or ()
    if not any(type(module).__name__ in names for module in (denoiser.modules() if names else ())):
        raise ConfigError([f"compile: {pipeline_class} has no blocks that diffusers compiles by region; leave it out"])


def compile_pipeline(pipeline: Any, mode: str, *, fuse: bool) -> None:
    """Compile only the blocks that a denoiser repeats: most of the gain for a fraction of the compile time.

    Args:
        mode: `default`; or `max-autotune`, which also compiles the VAE's decoder, gives the VAE's weights the memory
            format that convolutions are fastest with, and measures which kernels are fastest. Where a block cannot be
            compiled as a whole, `max-autotune` raises an error at the first call, and `default` compiles its pieces.
        fuse: whether `max-autotune` may make one matrix of those for query, key and value, which stay in memory beside
            it. Their adapters would be lost. Quantized weights, those of a GGUF file included, are never fused.

    Raises:
        ConfigError: the pipeline's denoiser has no such blocks.
    """
    denoiser = denoiser_of(pipeline)
    check_compilation(denoiser, type(pipeline).__name__)
    keep_compiled()
    if mode == "default":
        denoiser.compile_repeated_blocks()
        return
    quantized = getattr(denoiser, "hf_quantizer", None) is not None
    if fuse and not quantized and hasattr(denoiser, "fuse_qkv_projections"):
        denoiser.fuse_qkv_projections()
    denoiser.compile_repeated_blocks(fullgraph=True, options=MAX_AUTOTUNE)
    vae = getattr(pipeline, "vae", None)
    if isinstance(decoder := getattr(vae, "decoder", None), torch.nn.Module):
        assert vae is not None
        # Weights of a video's VAE have a dimension more, and that format is for four.
        if all(weight.dim() < 5 for weight in vae.parameters()):
            vae.to(memory_format=torch.channels_last)
        decoder.compile(fullgraph=True, options=MAX_AUTOTUNE)


def keep_compiled() -> None:
    """Let torch keep what it compiles in the user's cache folder, for later runs; its own choice is a temporary folder.

    A folder that `TORCHINDUCTOR_CACHE_DIR` names is left alone.
    """
    if CACHE in os.environ:
        return
    folder = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "text2image", "compiled").expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):
        return
    if os.access(folder, os.W_OK):
        os.environ[CACHE] = str(folder)
