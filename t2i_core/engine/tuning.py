"""Settings that trade memory, speed and exactness: quantization, offloading, TF32, and the user's own function.

Each uses what diffusers offers. None is on by default, as this project measured none on a GPU.
"""

import importlib
import traceback
from pathlib import Path
from typing import Any

import torch
from diffusers import BitsAndBytesConfig, DiffusionPipeline, PipelineQuantizationConfig, TorchAoConfig
from transformers import BitsAndBytesConfig as TextBitsAndBytesConfig
from transformers import TorchAoConfig as TextTorchAoConfig

from t2i_core.errors import ConfigError
from t2i_core.generation.interface import LoadConfig
from t2i_core.models.names import DENOISERS
from t2i_core.models.prepare import ChangedSource, find_source, load_function

LIBRARIES = {"fp8": "torchao", "int8": "torchao", "nf4": "bitsandbytes"}
FP8_CAPABILITY = (8, 9)  # of a CUDA card, from which on it calculates in fp8


def check_library(quantization: str | None) -> None:
    """Refuse a quantization whose library is not installed.

    Raises:
        ConfigError: the library cannot be imported; the message names it.
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


def check_quantization(quantization: str | None, device: torch.device | str, dtype: str) -> None:
    """Refuse a quantization whose library is not installed, and one that the device or the dtype does not take.

    Raises:
        ConfigError: naming the library, or what the device or the dtype would have to be.
    """
    check_library(quantization)
    device = torch.device(device)
    if quantization == "nf4" and device.type in ("cpu", "mps"):
        # diffusers refuses to quantize without an accelerator.
        raise ConfigError([f"quantization: nf4 needs a GPU, and the device is {device}; use int8"])
    if quantization != "fp8":
        return
    if device.type not in ("cuda", "xpu"):
        raise ConfigError([f"quantization: fp8 needs a GPU, and the device is {device}; use int8"])
    if dtype != "bfloat16":
        # torchao quantizes by the row in no other dtype.
        raise ConfigError([f"quantization: fp8 needs bfloat16, and the dtype is {dtype}; add --dtype bfloat16"])
    if device.type == "xpu":
        return
    # AMD's cards have numbers of their own; torchao itself refuses those that cannot.
    capability = torch.cuda.get_device_capability(device)
    if torch.version.cuda and capability < FP8_CAPABILITY:
        found = f"{torch.cuda.get_device_name(device)} has {capability[0]}.{capability[1]}"
        raise ConfigError([f"quantization: fp8 needs a GPU of compute capability 8.9, and {found}; use int8 or nf4"])


def quantization_config(load_config: LoadConfig) -> PipelineQuantizationConfig | None:
    """Return what `from_pretrained` quantizes, and how: the denoiser and the large text encoders.

    CLIP and the VAE stay as they are: they are small, and a quantized VAE shows in the image.

    Raises:
        ConfigError: the library that the quantization needs is not installed.
    """
    if load_config.quantization is None:
        return None
    check_library(load_config.quantization)
    denoisers, encoders = _large_components(load_config.path)
    if load_config.quantization == "nf4":
        options = {
            "load_in_4bit": True,
            "bnb_4bit_quant_type": "nf4",
            "bnb_4bit_compute_dtype": getattr(torch, load_config.dtype),
        }
        denoiser_config, encoder_config = BitsAndBytesConfig(**options), TextBitsAndBytesConfig(**options)
    else:
        torchao = importlib.import_module("torchao.quantization")
        if load_config.quantization == "int8":
            method = torchao.Int8WeightOnlyConfig()
        else:
            method = torchao.Float8DynamicActivationFloat8WeightConfig(granularity=torchao.PerRow())
        denoiser_config, encoder_config = TorchAoConfig(method), TextTorchAoConfig(method)
    mapping = dict.fromkeys(denoisers, denoiser_config) | dict.fromkeys(encoders, encoder_config)
    return PipelineQuantizationConfig(quant_mapping=mapping)


def check_offload(kind: str, device: str) -> None:
    """Refuse to offload on the CPU, where there is no device to bring weights to.

    Raises:
        ConfigError: the device is the CPU and `kind` is not "none".
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


def check_tf32(tf32: bool, device: str, dtype: str) -> None:
    """Refuse TF32 where no float32 matrices are multiplied by a CUDA card.

    Raises:
        ConfigError: naming the device or the number format.
    """
    if tf32 and not device.startswith("cuda"):
        raise ConfigError([f"tf32: it needs a CUDA card, and the device is {device}; leave it out"])
    if tf32 and dtype != "float32":
        raise ConfigError([f"tf32: it is for float32 weights, and these are {dtype} (dtype); leave it out"])


def set_tf32(on: bool) -> None:
    """Let CUDA multiply float32 matrices in TF32, or not. This holds for the process, so each model is loaded with it.

    Convolutions may use TF32 anyway, as torch has it. `cudnn.benchmark` stays off: it chooses the kernel by a race, so
    the last bits of an image would differ from run to run.
    """
    torch.set_float32_matmul_precision("high" if on else "highest")


def run_prepare(pipeline: Any, name: str, sha256: str | None = None) -> Any:
    """Call the user's `module:function` with the pipeline, still in host memory. `sha256`: that its file must have.

    Returns:
        What the function returns, or the pipeline where that is None.

    Raises:
        ConfigError: the function raised, and the message names file and line; it returned no pipeline; or its file has
            changed.
    """
    file = find_source(name.rpartition(":")[0]).absolute()
    try:
        prepared = load_function(name, sha256)(pipeline)
    except (KeyboardInterrupt, ChangedSource):
        raise
    except BaseException as error:
        # The user's own code may raise anything, SystemExit included; its file and line help to find the cause.
        frames = traceback.extract_tb(error.__traceback__)
        lines = [f", line {frame.lineno}" for frame in frames if Path(frame.filename) == file]
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}".removesuffix(": ")
        raise ConfigError([f"prepare: {name} raised {reason} ({file}{lines[-1] if lines else ''})"]) from error
    if prepared is not None and not isinstance(prepared, DiffusionPipeline):
        raise ConfigError(
            [f"prepare: {name} returned a {type(prepared).__name__}; let it return the pipeline, or nothing ({file})"]
        )
    return prepared or pipeline


def _large_components(path: str) -> tuple[list[str], list[str]]:
    """Return the names of a pipeline's denoisers, and of its text encoders other than CLIP, as in its index."""
    index = DiffusionPipeline.load_config(path)
    denoisers = [name for name in DENOISERS if name in index]
    encoders = [
        name
        for name, entry in index.items()
        if name.startswith("text_encoder") and isinstance(entry, list) and entry[1] and not entry[1].startswith("CLIP")
    ]
    return denoisers, encoders
