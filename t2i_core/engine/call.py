"""One batch through the pipeline."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from t2i_core.errors import Stopped
from t2i_core.spec import ImageSpec

# Switches by which pipelines change a request without being asked: turned off wherever a pipeline has them.
AS_ASKED: dict[str, Any] = {
    "use_resolution_binning": False,  # Sana, PixArt, PRX: another size, then a resize
    "complex_human_instruction": None,  # Sana: a text in front of every prompt
    "clean_caption": False,  # PixArt, Sana: rewrites the prompt
    "enable_prompt_rewrite": False,  # LongCat: a language model rewrites the prompt
    "use_pe": False,  # ERNIE-Image: likewise
}


def call_pipeline(
    pipeline: Any, specs: Sequence[ImageSpec], batch_size: int, should_stop: Callable[[], bool]
) -> npt.NDArray[np.float32]:
    """Images for `specs`, all of one call group: float32 (len(specs), height, width, 3) in 0..1.

    The call always has `batch_size` images; the tail is padded with the last spec and the padding thrown away, so that
    an image is the same whatever its batch mates. Noise is drawn on the CPU, by a generator for each image.

    Raises:
        Stopped: at the end of a denoising step after `should_stop` turned true.
    """
    padded = [*specs, *[specs[-1]] * (batch_size - len(specs))]
    arguments = call_arguments(padded, inspect.signature(type(pipeline).__call__).parameters)

    def on_step_end(_pipeline: Any, _step: int, _timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        if should_stop():
            raise Stopped
        return tensors

    if "callback_on_step_end" in inspect.signature(type(pipeline).__call__).parameters:
        arguments["callback_on_step_end"] = on_step_end
    generators = [torch.Generator("cpu").manual_seed(spec.seed) for spec in padded]
    with torch.inference_mode():
        output = pipeline(**arguments, generator=generators, output_type="pt")
    images = output.images[: len(specs)]
    return np.ascontiguousarray(images.float().cpu().numpy().transpose(0, 2, 3, 1))


def call_arguments(specs: Sequence[ImageSpec], takes: Any) -> dict[str, Any]:
    """The keyword arguments of the call: per image as lists, shared ones once, everything unasked turned off."""
    first = specs[0]
    arguments: dict[str, Any] = {
        "prompt": [spec.prompt for spec in specs],
        "height": first.height,
        "width": first.width,
        "num_inference_steps": first.steps,
    }
    if first.negative_prompt is not None:
        arguments["negative_prompt"] = [spec.negative_prompt for spec in specs]
    for name in ("guidance_scale", "true_cfg_scale", "max_sequence_length"):
        if getattr(first, name) is not None:
            arguments[name] = getattr(first, name)
    return arguments | {name: value for name, value in AS_ASKED.items() if name in takes}
