"""A diffusers pipeline from local files, loaded once a process."""

import functools
import warnings
from contextlib import nullcontext
from importlib.metadata import version
from typing import Any

import diffusers
import torch
from diffusers import DiffusionPipeline, FluxPipeline

from t2i_core.drawing import Weights
from t2i_core.engine.device import device_name, resolve_device
from t2i_core.engine.draw import Drawer
from t2i_core.engine.fixed_text import whole_call
from t2i_core.engine.flux import FluxStages
from t2i_core.engine.stages import Stages
from t2i_core.engine.tokens import TokenCounter, silence_cut_prompts
from t2i_core.engine.tuning import LIBRARIES, compile_denoiser, offload, quantization_config, run_prepare
from t2i_core.errors import ConfigError, ModelError
from t2i_core.pipelines import init_parameters

# Free memory of a device that denoising and decoding need beside the weights: 1.9 GB an image of 1024x1024, measured
# by others on FLUX.1-dev, for a batch of two.
ROOM_TO_WORK = 4 << 30


# One: a second model would not fit beside the first on a GPU.
@functools.lru_cache(maxsize=1)
def load_model(weights: Weights) -> Drawer:
    """The model behind `weights` on its device, ready to draw. Loaded once a process.

    Raises:
        ModelError: for a folder diffusers cannot load, a device it does not fit on, or an adapter that does not fit it.
        ConfigError: for a device that is not there, or a setting the pipeline has no use for.
    """
    device = torch.device(resolve_device(weights.device))
    # Some quantizers load onto the current device, whatever was chosen.
    with torch.cuda.device(device) if device.type == "cuda" else nullcontext():
        pipeline = load_pipeline(weights)
    if weights.prepare:
        pipeline = run_prepare(pipeline, weights.prepare)
    try:
        stages = _place(pipeline, device, weights)
    except torch.OutOfMemoryError as error:
        raise ModelError(f"{weights.path}: does not fit into the memory of {device}: {_first_line(error)}") from error
    return Drawer(stages, device_name(device), library_versions(weights), TokenCounter(pipeline))


def load_pipeline(weights: Weights) -> Any:
    """The pipeline in host memory, silent, in evaluation mode. Never runs code from the model's folder.

    Raises:
        ModelError: for a folder diffusers cannot load, or an adapter that does not fit.
    """
    diffusers.utils.logging.disable_progress_bar()
    silence_cut_prompts()
    options = _unmarked(weights.path)
    if weights.quantization:
        options["quantization_config"] = quantization_config(weights)
    try:
        pipeline = DiffusionPipeline.from_pretrained(
            weights.path,
            dtype=getattr(torch, weights.dtype),
            use_safetensors=True,
            local_files_only=True,
            **options,
        )
    except (OSError, ValueError, AttributeError, KeyError, TypeError, RuntimeError, ImportError) as error:
        raise ModelError(
            f"{weights.path}: diffusers {diffusers.__version__} cannot load it: {_first_line(error)}"
        ) from error
    if weights.scheduler:
        pipeline.scheduler = getattr(diffusers, weights.scheduler).from_config(pipeline.scheduler.config)
    _add_adapters(pipeline, weights.adapters)
    pipeline.set_progress_bar_config(disable=True)
    for component in _modules(pipeline).values():
        component.eval()
    return pipeline


def _place(pipeline: Any, device: torch.device, weights: Weights) -> Stages:
    """Bring the pipeline to its device: all of it, all but text encoders that come only to encode, or by the piece."""
    apart = isinstance(pipeline, FluxPipeline)
    if weights.text_encoder == "staged" and not apart:
        raise ConfigError(
            [f"text_encoder: {type(pipeline).__name__} cannot be taken apart; leave `staged` out, or use resident"]
        )
    if weights.compile:
        compile_denoiser(pipeline)
    staged = False
    if weights.offload != "none":
        offload(pipeline, device, weights.offload)
    else:
        if apart:
            short = weights.text_encoder == "auto" and not _fits(pipeline, device)
            staged = weights.text_encoder == "staged" or short
        for name, module in _modules(pipeline).items():
            if not (staged and name.startswith("text_encoder")):
                module.to(device)
    return FluxStages(pipeline, device, staged=staged) if apart else whole_call(pipeline, device)


def _fits(pipeline: Any, device: torch.device) -> bool:
    """Whether all weights fit on the device at once, with room to work."""
    if device.type != "cuda":
        return True
    weights = sum(tensor.nbytes for module in _modules(pipeline).values() for tensor in module.parameters())
    free, _ = torch.cuda.mem_get_info(device)
    return bool(weights + ROOM_TO_WORK <= free)


def _modules(pipeline: Any) -> dict[str, torch.nn.Module]:
    return {name: part for name, part in pipeline.components.items() if isinstance(part, torch.nn.Module)}


def library_versions(weights: Weights) -> dict[str, str]:
    """The versions that have a say in the pixels."""
    names = ["torch", "diffusers", "transformers"]
    names += ["peft"] if weights.adapters else []
    names += [LIBRARIES[weights.quantization]] if weights.quantization else []
    return {name: version(name) for name in names}


def _unmarked(path: str) -> dict[str, Any]:
    """SDXL adds an invisible watermark when that package happens to be installed; a data set wants none."""
    takes = init_parameters(DiffusionPipeline.load_config(path)["_class_name"])
    return {"add_watermarker": False} if "add_watermarker" in takes else {}


def _add_adapters(pipeline: Any, adapters: tuple[tuple[str, float], ...]) -> None:
    names = [f"lora{i}" for i in range(len(adapters))]
    for name, (file, _) in zip(names, adapters, strict=True):
        if not hasattr(pipeline, "load_lora_weights"):
            raise ModelError(f"{type(pipeline).__name__} takes no LoRA; leave --lora out")
        try:
            with warnings.catch_warnings():
                # A file without a single matching key is only a warning to diffusers; to a data set it is an error.
                warnings.simplefilter("error", UserWarning)
                pipeline.load_lora_weights(file, adapter_name=name)
        except (OSError, ValueError, KeyError, RuntimeError, UserWarning) as error:
            raise ModelError(f"{file}: does not fit {type(pipeline).__name__}: {_first_line(error)}") from error
        if name not in {n for names in pipeline.get_list_adapters().values() for n in names}:
            raise ModelError(f"{file}: holds no LoRA weights for {type(pipeline).__name__}")
    if names:
        pipeline.set_adapters(names, [weight for _, weight in adapters])


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
