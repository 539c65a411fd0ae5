"""What the engine does with a pipeline, stage by stage; and the pipelines that are one stage, the call."""

import inspect
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

import torch
from torch import Tensor

from t2i_core.spec import ImageSpec

# Switches by which pipelines change a request without being asked: turned off wherever a pipeline has them.
AS_ASKED: dict[str, Any] = {
    "use_resolution_binning": False,  # Sana, PixArt, PRX: another size, then a resize
    "complex_human_instruction": None,  # Sana: a text in front of every prompt
    "clean_caption": False,  # PixArt, Sana: rewrites the prompt
    "enable_prompt_rewrite": False,  # LongCat: a language model rewrites the prompt
    "use_pe": False,  # ERNIE-Image: likewise
}


class Stages(Protocol):
    """A pipeline taken apart. Everything but `encode` gets images of one call group."""

    device: torch.device
    # Whether `decode` is a stage of its own, and can be tried again without denoising again.
    decodes_apart: bool

    def encoding(self) -> AbstractContextManager[None]:
        """Within it prompts are encoded; whatever that takes on the device is there, and afterwards gone if need be."""

    def encode(self, spec: ImageSpec) -> None:
        """Encode the texts of an image ahead of `denoise`, each text once."""

    def encode_on(self) -> bool:
        """Whether more prompts should be encoded before the first is denoised."""

    def denoise(self, specs: Sequence[ImageSpec], on_step: Callable[[], None]) -> Tensor:
        """Noise to what `decode` takes, for a batch of `len(specs)`; calls `on_step` after each denoising step."""

    def decode(self, denoised: Tensor, index: int, spec: ImageSpec) -> Tensor:
        """One image of a batch: (3, height, width) in 0..1, NaN where the model's own pixels are not finite."""

    def images_a_call(self, batch_size: int) -> int:
        """How many images of a batch go through the model at once."""

    def set_vae_tiling(self, on: bool) -> bool:
        """Decode in tiles, which takes less memory and changes the pixels a little; whether the VAE can."""


class WholeCall:
    """Any diffusers text-to-image pipeline: the whole call is one stage."""

    decodes_apart = False

    def __init__(self, pipeline: Any, device: torch.device) -> None:
        self.pipeline = pipeline
        self.device = device

    def encoding(self) -> AbstractContextManager[None]:
        """Texts are encoded within the call."""
        return nullcontext()

    def encode(self, spec: ImageSpec) -> None:
        """Nothing to do ahead of the call."""

    def encode_on(self) -> bool:
        """Nothing to gain."""
        return False

    def denoise(self, specs: Sequence[ImageSpec], on_step: Callable[[], None]) -> Tensor:
        """The whole call: images (len(specs), 3, height, width) in 0..1."""
        arguments = call_arguments(specs, self.pipeline)
        result: Tensor = run_call(self.pipeline, arguments, specs, on_step, output_type="pt")
        return result

    def decode(self, denoised: Tensor, index: int, spec: ImageSpec) -> Tensor:
        """One image of those that the call returned."""
        return denoised[index]

    def images_a_call(self, batch_size: int) -> int:
        """All."""
        return batch_size

    def set_vae_tiling(self, on: bool) -> bool:
        """As the pipeline's VAE can or cannot."""
        return set_vae_tiling(self.pipeline, on)


def call_arguments(specs: Sequence[ImageSpec], pipeline: Any) -> dict[str, Any]:
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
    takes = _parameters(pipeline)
    return arguments | {name: value for name, value in AS_ASKED.items() if name in takes}


def run_call(
    pipeline: Any,
    arguments: dict[str, Any],
    specs: Sequence[ImageSpec],
    on_step: Callable[[], None],
    *,
    output_type: str,
) -> Any:
    """Call the pipeline. Noise is drawn on the CPU, by a generator for each image, so that no mate changes it."""

    def on_step_end(_pipeline: Any, _step: int, _timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        on_step()
        return tensors

    if "callback_on_step_end" in _parameters(pipeline):
        arguments = arguments | {"callback_on_step_end": on_step_end}
    generators = [torch.Generator("cpu").manual_seed(spec.seed) for spec in specs]
    return pipeline(**arguments, generator=generators, output_type=output_type).images


def set_vae_tiling(pipeline: Any, on: bool) -> bool:
    """Tile the decoding from now on, or stop tiling it; whether the pipeline's VAE can do so."""
    vae: Any = getattr(pipeline, "vae", None)
    if not hasattr(vae, "enable_tiling"):
        return False
    if on:
        vae.enable_tiling()
    else:
        vae.disable_tiling()
    return True


def _parameters(pipeline: Any) -> Any:
    return inspect.signature(type(pipeline).__call__).parameters
