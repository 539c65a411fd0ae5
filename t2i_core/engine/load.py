"""Loads a diffusers pipeline from local files, once a process, and brings it to its device."""

import functools
import logging
from contextlib import nullcontext
from importlib.metadata import version
from typing import Any

import diffusers
import torch
from diffusers import DiffusionPipeline, FluxPipeline

from t2i_core.engine.attempt import one_line
from t2i_core.engine.attention import attention_version, check_attention, set_attention
from t2i_core.engine.batch_generator import BatchGenerator
from t2i_core.engine.batch_isolation import whole_call
from t2i_core.engine.checkpoints import load_components
from t2i_core.engine.compilation import compile_pipeline
from t2i_core.engine.denoiser import denoiser_of
from t2i_core.engine.device import device_name, is_out_of_memory, release_memory, resolve_device
from t2i_core.engine.flux import FluxStages
from t2i_core.engine.loaded_weights import checking_weights
from t2i_core.engine.lora import add_loras
from t2i_core.engine.quiet import silence_diffusers
from t2i_core.engine.schedulers import make_scheduler
from t2i_core.engine.stages import Stages
from t2i_core.engine.step_cache import add_step_cache, check_step_cache
from t2i_core.engine.tokens import TokenCounter
from t2i_core.engine.tuning import (
    LIBRARIES,
    check_quantization,
    check_tf32,
    offload,
    quantization_config,
    run_prepare,
    set_tf32,
)
from t2i_core.errors import ConfigError, ModelError, UserError
from t2i_core.generation.interface import LoadConfig
from t2i_core.models.loaded_files import as_hashed
from t2i_core.models.names import GGUF
from t2i_core.models.pipeline_signature import init_parameters

log = logging.getLogger(__name__)

# Bytes of a device that denoising and decoding need beside the weights, for a batch of two: others measured 1.9 GB for
# each image of 1024x1024 with FLUX.1-dev.
ROOM_TO_WORK = 4 << 30

SAFETY_NOTE = (
    "the model has a safety checker: images that it replaces by black ones are failures; to generate without it, use "
    "--prepare with a function that sets pipeline.safety_checker = None (docs/prepare.md)"
)
LESS_MEMORY = "use --offload model or group, --quantization int8 or nf4, or wait until other programs end"


# Only one: a second model would not fit beside the first on a GPU.
@functools.lru_cache(maxsize=1)
def load_model(load_config: LoadConfig) -> BatchGenerator:
    """Return the model of `load_config` on its device, ready to generate. It is loaded once a process.

    Raises:
        ModelError: anything that goes wrong while loading, too short a memory included: every shard would meet it.
        ConfigError: torch does not find the device, or the pipeline cannot do what a setting asks for.
    """
    _forget_model()  # the one before would stay in memory until this one is loaded
    try:
        return _load(load_config)
    except Exception as error:
        # Libraries raise anything, and what one shard meets every other shard would meet again.
        log.debug("loading %s failed", load_config.path, exc_info=True)
        problem = error if isinstance(error, UserError) else ModelError(f"{load_config.path}: {_why(error)}")
    # Without the tracebacks, which would keep what was loaded in memory for as long as the error is kept.
    problem.__cause__ = problem.__context__ = None
    raise problem.with_traceback(None)


_forget_model = load_model.cache_clear


def _why(error: Exception) -> str:
    if is_out_of_memory(error):
        return f"does not fit into memory: {one_line(error)}; {LESS_MEMORY}"
    return f"cannot be loaded: {type(error).__name__}: {one_line(error)}"


def _load(load_config: LoadConfig) -> BatchGenerator:
    device = torch.device(resolve_device(load_config.device))
    release_memory(device)
    check_quantization(load_config.quantization, device, load_config.dtype)
    check_tf32(load_config.tf32, device.type, load_config.dtype)
    set_tf32(load_config.tf32)
    if load_config.quantization == "fp8" and not load_config.compile:
        log.warning("speed     fp8 without --compile was slower than bfloat16 where others measured it; add --compile")
    # Some quantizers load onto the current device, whatever was chosen.
    with torch.cuda.device(device) if device.type == "cuda" else nullcontext(), as_hashed(load_config.files):
        pipeline = load_pipeline(load_config)
    if load_config.prepare:
        pipeline = run_prepare(pipeline, load_config.prepare, load_config.prepare_sha256)
    if getattr(pipeline, "safety_checker", None) is not None:
        log.warning("safety    %s", SAFETY_NOTE)
    return generator_of(pipeline, device, load_config)


def generator_of(pipeline: Any, device: torch.device, load_config: LoadConfig) -> BatchGenerator:
    """Return the generator of a loaded pipeline, which is brought to `device` and made faster as `load_config` says.

    Raises:
        ConfigError: the device or the pipeline cannot do what a setting asks for.
    """
    _make_faster(pipeline, device, load_config)
    stages = _place(pipeline, device, load_config)
    versions, count = library_versions(load_config), TokenCounter.of_pipeline(pipeline)
    return BatchGenerator(stages, device_name(device), versions, count)


def load_pipeline(load_config: LoadConfig) -> Any:
    """Return the pipeline in host memory, silent, in evaluation mode. Code from the model's folder is never run.

    Raises:
        ModelError: diffusers cannot load the folder, a part does not hold the weights of its files, or an adapter does
            not fit.
        ConfigError: a library that the quantization or the scheduler needs is not installed.
    """
    silence_diffusers()
    options = _watermark_options(load_config.path)
    quantization = quantization_config(load_config)
    if quantization:
        options["quantization_config"] = quantization
    try:
        with checking_weights():
            options |= load_components(load_config, quantization.quant_mapping if quantization else {})
            pipeline = DiffusionPipeline.from_pretrained(
                load_config.path,
                dtype=getattr(torch, load_config.dtype),
                variant=load_config.variant,
                use_safetensors=True,
                local_files_only=True,
                **options,
            )
    except Exception as error:
        if isinstance(error, UserError) or is_out_of_memory(error):
            raise
        raise ModelError(
            f"{load_config.path}: diffusers {diffusers.__version__} cannot load it: {one_line(error)}"
        ) from error
    if load_config.scheduler or load_config.scheduler_options:
        pipeline.scheduler = make_scheduler(load_config, pipeline.scheduler)
    add_loras(pipeline, load_config.adapters, partial=load_config.lora_partial)
    pipeline.set_progress_bar_config(disable=True)
    for component in _modules(pipeline).values():
        component.eval()
    return pipeline


def _make_faster(pipeline: Any, device: torch.device, load_config: LoadConfig) -> None:
    """Give the denoiser the attention, the step cache and the compiled blocks that `load_config` asks for.

    Raises:
        ConfigError: the device or the denoiser cannot do that.
    """
    denoiser = denoiser_of(pipeline)
    if load_config.attention:
        check_attention(load_config.attention, denoiser, str(device), load_config.dtype)
        set_attention(load_config.attention, denoiser)
    if load_config.step_cache:
        check_step_cache(load_config.step_cache, denoiser)
        add_step_cache(load_config.step_cache, denoiser)
    if load_config.compile:
        compile_pipeline(pipeline, load_config.compile_mode, fuse=not load_config.adapters)


def _place(pipeline: Any, device: torch.device, load_config: LoadConfig) -> Stages:
    """Bring the pipeline to its device and return its stages.

    With `offload` diffusers moves each part when it is needed; staged text encoders stay in host memory; all else is
    brought at once.
    """
    in_stages = isinstance(pipeline, FluxPipeline)
    if load_config.text_encoder == "staged" and not in_stages:
        raise ConfigError(
            [f"text_encoder: {type(pipeline).__name__} cannot be taken apart; leave `staged` out, or use resident"]
        )
    staged = False
    if load_config.offload != "none":
        offload(pipeline, device, load_config.offload)
    else:
        if in_stages:
            too_large = load_config.text_encoder == "auto" and not _fits(pipeline, device)
            staged = load_config.text_encoder == "staged" or too_large
        for name, module in _modules(pipeline).items():
            if not (staged and name.startswith("text_encoder")):
                module.to(device)
    return FluxStages(pipeline, device, staged=staged) if in_stages else whole_call(pipeline, device)


def _fits(pipeline: Any, device: torch.device) -> bool:
    """Return whether all weights fit on the device at once, with room to work."""
    if device.type != "cuda":
        return True
    weight_bytes = sum(tensor.nbytes for module in _modules(pipeline).values() for tensor in module.parameters())
    free, _ = torch.cuda.mem_get_info(device)
    return bool(weight_bytes + ROOM_TO_WORK <= free)


def _modules(pipeline: Any) -> dict[str, torch.nn.Module]:
    return {name: part for name, part in pipeline.components.items() if isinstance(part, torch.nn.Module)}


def library_versions(load_config: LoadConfig) -> dict[str, str]:
    """Return the versions of the libraries that decide the pixels."""
    names = ["torch", "diffusers", "transformers"]
    names += ["peft"] if load_config.adapters else []
    names += [LIBRARIES[load_config.quantization]] if load_config.quantization else []
    names += ["gguf"] if any(one.path.lower().endswith(GGUF) for one in load_config.checkpoints) else []
    return {name: version(name) for name in names} | attention_version(load_config.attention)


def _watermark_options(path: str) -> dict[str, Any]:
    """Return the options that keep a pipeline from marking its images.

    SDXL adds an invisible watermark wherever the package for it is installed; a data set wants none.
    """
    takes = init_parameters(DiffusionPipeline.load_config(path)["_class_name"])
    return {"add_watermarker": False} if "add_watermarker" in takes else {}
