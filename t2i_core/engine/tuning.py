"""Settings that trade memory, speed and exactness: quantization, offloading, compilation, and the user's own function.

Each is what diffusers offers, under one name. None is a default: none was measured on a GPU by this project.
"""

import importlib
import importlib.util
import traceback
from typing import Any

import torch
from diffusers import BitsAndBytesConfig, DiffusionPipeline, PipelineQuantizationConfig, TorchAoConfig
from transformers import BitsAndBytesConfig as TextBitsAndBytesConfig
from transformers import TorchAoConfig as TextTorchAoConfig

from t2i_core.drawing import Weights
from t2i_core.errors import ConfigError

LIBRARIES = {"fp8": "torchao", "int8": "torchao", "nf4": "bitsandbytes"}


def check_installed(quantization: str | None) -> None:
    """Refuse a quantization whose library is not installed.

    Raises:
        ConfigError: naming the library.
    """
    library = LIBRARIES.get(quantization or "")
    if library is None:
        return
    try:
        importlib.import_module(library)
    except ImportError as error:
        raise ConfigError(
            [f"quantization: {quantization} needs {library} ({error}); `pip install {library}`"]
        ) from None


def quantization_config(weights: Weights) -> PipelineQuantizationConfig | None:
    """What `from_pretrained` quantizes, and how: the denoiser and the large text encoders.

    CLIP and the VAE stay as they are: they are small, and a quantized VAE shows.

    Raises:
        ConfigError: where the library that a setting needs is not installed.
    """
    if weights.quantization is None:
        return None
    check_installed(weights.quantization)
    denoisers, encoders = _large_components(weights.path)
    if weights.quantization == "nf4":
        options = {
            "load_in_4bit": True,
            "bnb_4bit_quant_type": "nf4",
            "bnb_4bit_compute_dtype": getattr(torch, weights.dtype),
        }
        ours, theirs = BitsAndBytesConfig(**options), TextBitsAndBytesConfig(**options)
    else:
        torchao = importlib.import_module("torchao.quantization")
        if weights.quantization == "int8":
            method = torchao.Int8WeightOnlyConfig()
        else:
            method = torchao.Float8DynamicActivationFloat8WeightConfig(granularity=torchao.PerRow())
        ours, theirs = TorchAoConfig(method), TextTorchAoConfig(method)
    return PipelineQuantizationConfig(quant_mapping=dict.fromkeys(denoisers, ours) | dict.fromkeys(encoders, theirs))


def check_offload(kind: str, device: str) -> None:
    """Refuse to offload where there is no device to bring weights to.

    Raises:
        ConfigError: on the CPU.
    """
    if kind != "none" and device == "cpu":
        raise ConfigError([f"offload: {kind} needs a device other than the CPU; leave it out"])


def offload(pipeline: Any, device: torch.device, kind: str) -> None:
    """Keep weights in host memory, and bring a model (`model`) or a layer (`group`) to the device when it is needed."""
    check_offload(kind, device.type)
    if kind == "model":
        pipeline.enable_model_cpu_offload(device=device)
    else:
        pipeline.enable_group_offload(device, offload_type="leaf_level", use_stream=device.type == "cuda")


def compile_denoiser(pipeline: Any) -> None:
    """Compile the blocks that a denoiser repeats: most of the gain for a fraction of the time.

    Raises:
        ConfigError: for a pipeline whose denoiser has no such blocks.
    """
    denoiser = getattr(pipeline, "transformer", None) or getattr(pipeline, "unet", None)
    try:
        assert denoiser is not None
        denoiser.compile_repeated_blocks()
    except (AssertionError, AttributeError, ValueError):
        raise ConfigError(
            [f"compile: {type(pipeline).__name__} has no blocks that diffusers compiles by region; leave it out"]
        ) from None


def run_prepare(pipeline: Any, name: str) -> Any:
    """Give the pipeline, still in host memory, to the user's `module:function`; it, or what the function returns.

    Raises:
        ConfigError: with the place, where the function raises.
    """
    module, _, function = name.partition(":")
    spec = importlib.util.find_spec(module)
    assert spec is not None, "found when it was hashed"
    try:
        return getattr(importlib.import_module(module), function)(pipeline) or pipeline
    except Exception as error:
        # The user's own code may raise anything; the place in it is what helps.
        frames = traceback.extract_tb(error.__traceback__)
        lines = [f", line {frame.lineno}" for frame in frames if frame.filename == spec.origin]
        place = f"{spec.origin}{lines[-1] if lines else ''}"
        raise ConfigError([f"prepare: {name} raised {type(error).__name__}: {error} ({place})"]) from error


def _large_components(path: str) -> tuple[list[str], list[str]]:
    """(denoisers, text encoders other than CLIP) of a pipeline, by the names in its index."""
    index = DiffusionPipeline.load_config(path)
    denoisers = [name for name in ("transformer", "unet") if name in index]
    encoders = [
        name
        for name, entry in index.items()
        if name.startswith("text_encoder") and isinstance(entry, list) and entry[1] and not entry[1].startswith("CLIP")
    ]
    return denoisers, encoders
