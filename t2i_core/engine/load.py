"""A diffusers pipeline from local files, loaded once a process."""

import functools
import logging
import warnings
from importlib.metadata import version
from typing import Any

import diffusers
import torch
from diffusers import DiffusionPipeline

from t2i_core.engine.call import call_pipeline
from t2i_core.errors import ConfigError, ModelError
from t2i_core.generate import LoadedModel, Weights
from t2i_core.pipelines import init_parameters

log = logging.getLogger(__name__)


# One: a second model would not fit beside the first on a GPU.
@functools.lru_cache(maxsize=1)
def load_pipeline(weights: Weights) -> Any:
    """The pipeline on its device, silent, in evaluation mode. Never runs code from the model's folder.

    Raises:
        ModelError: for a folder diffusers cannot load, or an adapter that does not fit.
        ConfigError: for a device that is not there.
    """
    device = resolve_device(weights.device)
    diffusers.utils.logging.disable_progress_bar()
    try:
        pipeline = DiffusionPipeline.from_pretrained(
            weights.path,
            dtype=getattr(torch, weights.dtype),
            use_safetensors=True,
            local_files_only=True,
            **_unmarked(weights.path),
        )
    except (OSError, ValueError, AttributeError, KeyError, TypeError, RuntimeError, ImportError) as error:
        raise ModelError(
            f"{weights.path}: diffusers {diffusers.__version__} cannot load it: {_first_line(error)}"
        ) from error
    if weights.scheduler:
        pipeline.scheduler = getattr(diffusers, weights.scheduler).from_config(pipeline.scheduler.config)
    try:
        pipeline.to(device)
    except torch.OutOfMemoryError as error:
        raise ModelError(f"{weights.path}: does not fit into the memory of {device}: {_first_line(error)}") from error
    _add_adapters(pipeline, weights.adapters)
    pipeline.set_progress_bar_config(disable=True)
    for component in pipeline.components.values():
        if isinstance(component, torch.nn.Module):
            component.eval()
    return pipeline


def load_model(weights: Weights) -> LoadedModel:
    """The model behind `weights`, ready to be called; see `load_pipeline` for what can go wrong."""
    pipeline = load_pipeline(weights)
    call = functools.partial(call_pipeline, pipeline)
    return LoadedModel(call, _device_name(str(pipeline.device)), library_versions())


def resolve_device(name: str) -> str:
    """`auto` -> the best device there is. A named device that is missing is refused."""
    available = {
        "cuda": torch.cuda.is_available(),
        "xpu": torch.xpu.is_available(),
        "mps": torch.backends.mps.is_available(),
    }
    if name == "auto":
        return next((kind for kind, there in available.items() if there), "cpu")
    kind = name.partition(":")[0]
    if kind != "cpu" and not available[kind]:
        there = ", ".join(["cpu", *(k for k, v in available.items() if v)])
        raise ConfigError(
            [f"device: torch {torch.__version__} finds no {kind} here; use {there} or auto (got {name!r})"]
        )
    return name


def _device_name(device: str) -> str:
    """What the record calls the device: `cpu`, or the card's own name."""
    return torch.cuda.get_device_name(device) if device.startswith("cuda") else device


def library_versions() -> dict[str, str]:
    """The versions that have a say in the pixels."""
    return {name: version(name) for name in ("torch", "diffusers", "transformers")}


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
