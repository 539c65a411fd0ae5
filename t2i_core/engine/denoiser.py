"""The denoiser of a pipeline: the part that runs at each step, and that options of speed change."""

from collections.abc import Mapping
from typing import Any

import diffusers
import torch

from t2i_core.engine.quiet import silence_diffusers
from t2i_core.models.names import DENOISERS, denoiser_config


def denoiser_of(pipeline: Any) -> Any:
    """Return the pipeline's transformer or UNet; None where it has neither."""
    return next((part for name in DENOISERS if (part := getattr(pipeline, name, None)) is not None), None)


def empty_denoiser(configs: Mapping[str, Any]) -> Any:
    """Return a model's denoiser without weights, made from its configuration; None where that does not tell its class.

    `configs`: the configurations of the model's components by name.
    """
    config = denoiser_config(configs)
    kind = getattr(diffusers, config.get("_class_name", ""), None)
    if kind is None:
        return None
    silence_diffusers()
    try:
        with torch.device("meta"):
            return kind.from_config(config)
    except Exception:  # loading will say what is wrong with the configuration
        return None
