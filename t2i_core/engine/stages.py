"""`Stages`, the interface to a pipeline stage by stage, and `WholeCall`, its implementation for any pipeline."""

import functools
import inspect
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Protocol, TypeAlias

import torch
from torch import Tensor

from t2i_core.engine.step_cache import begin_call
from t2i_core.errors import SafetyFailure
from t2i_core.generation.interface import OnStep
from t2i_core.models.as_asked import WRONG_TENSORS, switches
from t2i_core.spec import SHARED_ARGUMENTS, ImageSpec

# Classes that are asked for arrays: their tensors are wrong, or they return arrays whatever they are asked for.
ARRAYS = {*WRONG_TENSORS, "StableDiffusionPipelineSafe"}
# What a pipeline's output calls the marks of the images that its safety checker replaced.
FLAGS = ("nsfw_content_detected", "nsfw_detected", "watermark_detected")
# How Cosmos refuses a prompt: with an error, not with an image.
REFUSED_PROMPT = "Guardrail detected unsafe text"

# An image (3, height, width) in 0..1, or why there is none.
ImageOrError: TypeAlias = Tensor | Exception


class Stages(Protocol):
    """A pipeline in stages. Specs that are denoised or decoded together share a call group."""

    device: torch.device
    # Whether `decode` is a stage of its own, and can be tried again without denoising again.
    decodes_apart: bool

    def encoding(self) -> AbstractContextManager[None]:
        """Return a context within which `encode` is called.

        Entering it brings the text encoders to the device; leaving it frees their memory where others need it.
        """

    def encode(self, spec: ImageSpec) -> None:
        """Encode the texts of an image and keep the embeddings for `denoise`; equal texts are encoded once."""

    def wants_more_texts(self) -> bool:
        """Return whether more texts should be encoded before the first batch is denoised."""

    def denoise(self, specs: Sequence[ImageSpec], on_step: OnStep) -> Any:
        """Denoise a batch of `len(specs)` images and return what `decode` takes.

        Calls `on_step` after each denoising step, where the pipeline offers a callback.
        """

    def decode(self, denoised: Any, index: int, spec: ImageSpec) -> Tensor:
        """Decode image `index` of a batch that `denoise` returned.

        Returns:
            (3, height, width) in 0..1; NaN where the model's own pixels are not finite.

        Raises:
            SafetyFailure: the pipeline's safety checker replaced the image.
        """

    def images_a_call(self, batch_size: int) -> int:
        """Return how many images of a batch go through the model at once."""

    def set_vae_tiling(self, on: bool) -> bool:
        """Turn tiled decoding on or off: tiles take less memory and change the pixels a little.

        Return False, and change nothing, where the pipeline cannot tile or is as asked already.
        """


class WholeCall:
    """Any diffusers text-to-image pipeline: its whole call, texts and decoding included, is the stage `denoise`."""

    decodes_apart = False

    def __init__(self, pipeline: Any, device: torch.device) -> None:
        self.pipeline = pipeline
        self.device = device

    def encoding(self) -> AbstractContextManager[None]:
        """Return an empty context: the call encodes the texts itself."""
        return nullcontext()

    def encode(self, spec: ImageSpec) -> None:
        """Do nothing: the call encodes the texts itself."""

    def wants_more_texts(self) -> bool:
        """Return False: no text is encoded ahead of the call."""
        return False

    def denoise(self, specs: Sequence[ImageSpec], on_step: OnStep) -> list[ImageOrError]:
        """Call the pipeline; return its images."""
        return self.call(call_arguments(specs, self.pipeline), specs, on_step)

    def call(self, arguments: dict[str, Any], specs: Sequence[ImageSpec], on_step: OnStep) -> list[ImageOrError]:
        """Call the pipeline with `arguments`; return its images, and an error for each that its checker replaced.

        Raises:
            SafetyFailure: the pipeline refuses a prompt.
        """
        arrays = type(self.pipeline).__name__ in ARRAYS
        try:
            output = run_call(self.pipeline, arguments, specs, on_step, output_type="np" if arrays else "pt")
        except ValueError as error:
            if REFUSED_PROMPT in str(error):
                raise SafetyFailure(f"{SafetyFailure.PREFIX}the prompt was refused; write another") from None
            raise
        images = torch.from_numpy(output.images).permute(0, 3, 1, 2) if arrays else output.images
        replaced = _replaced(output, len(specs))
        return [_safety_failure() if bad else image for image, bad in zip(images, replaced, strict=True)]

    def decode(self, denoised: list[ImageOrError], index: int, spec: ImageSpec) -> Tensor:
        """Return image `index` of those that the call returned.

        Raises:
            Exception: the error in its place.
        """
        image = denoised[index]
        if isinstance(image, Exception):
            raise image
        return image

    def images_a_call(self, batch_size: int) -> int:
        """Return `batch_size`: a batch is one call."""
        return batch_size

    def set_vae_tiling(self, on: bool) -> bool:
        """Turn the VAE's tiling on or off; return whether that changed it."""
        return set_vae_tiling(self.pipeline, on)


def call_arguments(specs: Sequence[ImageSpec], pipeline: Any) -> dict[str, Any]:
    """Return the keyword arguments of the pipeline's call, but for the seeds.

    Arguments of each image are lists, those of the call group single values. Included is what keeps the pipeline to
    what is asked (`models/as_asked.py`).
    """
    first = specs[0]
    arguments: dict[str, Any] = {"prompt": [spec.prompt for spec in specs]}
    if first.negative_prompt is not None:
        arguments["negative_prompt"] = [spec.negative_prompt for spec in specs]
    for name, keyword in SHARED_ARGUMENTS.items():
        if getattr(first, name) is not None:
            arguments[keyword] = getattr(first, name)
    return arguments | switches(_parameters(pipeline), first)


def run_call(
    pipeline: Any,
    arguments: dict[str, Any],
    specs: Sequence[ImageSpec],
    on_step: OnStep,
    *,
    output_type: str,
) -> Any:
    """Call the pipeline and return its output, with images in the form of `output_type`.

    Each image has a random generator of its own, on the CPU, so that batch mates do not change its noise.
    """

    def on_step_end(_pipeline: Any, step: int, _timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        # A scheduler of second order takes nearly twice the steps that were asked for.
        on_step(step + 1, getattr(pipeline, "num_timesteps", specs[0].steps))
        return tensors

    if "callback_on_step_end" in _parameters(pipeline):
        arguments = arguments | {"callback_on_step_end": on_step_end}
    begin_call(pipeline, specs[0].steps)
    generators = [torch.Generator("cpu").manual_seed(spec.seed) for spec in specs]
    with _noise_of_steps(pipeline, generators):
        return pipeline(**arguments, generator=generators, output_type=output_type)


@contextmanager
def _noise_of_steps(pipeline: Any, generators: list[torch.Generator]) -> Iterator[None]:
    """Let the scheduler draw the noise of its steps from `generators` while the context lasts.

    Many pipelines do not hand their generators on; a scheduler that adds noise would then draw it from torch's global
    generator, other noise in each run.
    """
    scheduler: Any = getattr(pipeline, "scheduler", None)
    if not hasattr(scheduler, "step") or "generator" not in inspect.signature(scheduler.step).parameters:
        yield
        return
    # An attribute of the object stands before the class's method.
    scheduler.step = functools.partial(scheduler.step, generator=generators)
    try:
        yield
    finally:
        del scheduler.step


def set_vae_tiling(pipeline: Any, on: bool) -> bool:
    """Turn the tiling of the pipeline's VAE on or off; return whether that changed it.

    It changes nothing where there is no VAE, where the VAE cannot tile, or where it is as asked already. Whoever turns
    off only what this turned on leaves the tiles of the user's own function (`--prepare`) alone.
    """
    vae: Any = getattr(pipeline, "vae", None)
    # Every VAE has `enable_tiling`, but in those without the attribute it raises.
    if getattr(vae, "use_tiling", on) == on:
        return False
    if on:
        vae.enable_tiling()
    else:
        vae.disable_tiling()
    return True


def _replaced(output: Any, images: int) -> list[bool]:
    """Return for each image of a call whether a safety checker replaced it."""
    marks = [mark for name in FLAGS if (mark := getattr(output, name, None)) is not None]
    # A bool is the mark of a call for one image.
    lists = [[mark] if isinstance(mark, bool) else mark for mark in marks]
    return [any(of_image) for of_image in zip(*lists, strict=True)] if lists else [False] * images


def _safety_failure() -> SafetyFailure:
    return SafetyFailure(
        f"{SafetyFailure.PREFIX}it replaced the image by a black one; try another prompt or seed (--reseed), or "
        "run the model without it (--prepare)"
    )


def _parameters(pipeline: Any) -> Any:
    return inspect.signature(type(pipeline).__call__).parameters
