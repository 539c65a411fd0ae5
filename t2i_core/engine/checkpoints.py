"""Loads the parts of a pipeline that checkpoints supply: single files, GGUF files, and folders of a denoiser."""

from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from diffusers import DiffusionPipeline, GGUFQuantizationConfig, ModelMixin
from diffusers.loaders.single_file_utils import (
    create_diffusers_clip_model_from_ldm,
    create_diffusers_t5_model_from_checkpoint,
)
from safetensors import safe_open
from torch import nn
from transformers import CLIPTextModel, CLIPTextModelWithProjection

from t2i_core.engine.loaded_weights import checking_file
from t2i_core.errors import ConfigError
from t2i_core.generation.interface import LoadConfig, LocalCheckpoint
from t2i_core.models.file_contents import ENCODERS, FLUX, SD3, UNET, values_of_denoiser
from t2i_core.models.names import GGUF
from t2i_core.models.tensor_names import read_shapes

# Of these diffusers converts every tensor that it knows; of other classes it leaves out some that have no effect.
COUNTED = {UNET, FLUX, SD3}
# T5 has one embedding under two names, and single files hold it once.
T5_EMBEDDING = "text_encoders.t5xxl.transformer.shared.weight"
T5_TIED = "text_encoders.t5xxl.transformer.encoder.embed_tokens.weight"


def load_components(load_config: LoadConfig, quantization: dict[str, Any]) -> dict[str, nn.Module]:
    """Return {component: part} of all parts that the checkpoints supply, in host memory.

    Args:
        load_config: the pipeline, whose configurations single files go by, and the checkpoints.
        quantization: the configuration to quantize a component with.

    Raises:
        ModelError: a file cannot be read, or does not hold the weights of a part.
        ConfigError: a text encoder in a single file cannot be quantized.
    """
    if not load_config.checkpoints:
        return {}
    index = DiffusionPipeline.load_config(load_config.path)
    return {
        component: _load(load_config, checkpoint, component, index[component], quantization.get(component))
        for checkpoint in load_config.checkpoints
        for component in checkpoint.components
    }


def _load(
    load_config: LoadConfig, checkpoint: LocalCheckpoint, component: str, entry: list[str], quantization: Any
) -> nn.Module:
    """Return one part. `entry`: its library and its class, as in the pipeline's index."""
    library = transformers if entry[0] == "transformers" else diffusers
    part_class = getattr(library, entry[1])
    options = {"dtype": getattr(torch, load_config.dtype), "local_files_only": True}
    path = Path(checkpoint.path)
    if path.is_dir():
        options |= {"variant": checkpoint.variant, "use_safetensors": True, "quantization_config": quantization}
        return _module(part_class.from_pretrained(path, **options))
    name = part_class.__name__
    values = values_of_denoiser(read_shapes("model", str(path), path)) if name in COUNTED else None
    with checking_file(path, name, values):
        if issubclass(part_class, ModelMixin):
            if path.suffix.lower() == GGUF:
                quantization = GGUFQuantizationConfig(compute_dtype=options["dtype"])
            options |= {"config": load_config.path, "subfolder": component, "quantization_config": quantization}
            return _module(part_class.from_single_file(str(path), **options))
        if quantization is not None:
            raise ConfigError(
                [f"quantization: {component} comes from {path}, and cannot be quantized; leave quantization out"]
            )
        is_clip = issubclass(part_class, CLIPTextModel | CLIPTextModelWithProjection)
        create = create_diffusers_clip_model_from_ldm if is_clip else create_diffusers_t5_model_from_checkpoint
        tensors = _encoder_in(path, component)
        if T5_EMBEDDING in tensors:
            tensors.setdefault(T5_TIED, tensors[T5_EMBEDDING])
        part = create(
            part_class,
            checkpoint=tensors,
            subfolder=component,
            config=load_config.path,
            torch_dtype=options["dtype"],
            local_files_only=True,
        )
        part.tie_weights()
        return _module(part)


def _module(part: Any) -> nn.Module:
    assert isinstance(part, nn.Module)
    return part


def _encoder_in(path: Path, component: str) -> dict[str, torch.Tensor]:
    """Return the tensors of one text encoder in a single file: among those of two, diffusers goes by the width."""
    beginnings = tuple(beginning for beginning, components in ENCODERS.items() if component in components.values())
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys() if name.startswith(beginnings)}  # noqa: SIM118
