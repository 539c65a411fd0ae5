"""Generates batches of a fixed shape with a loaded pipeline, and smaller ones where memory is short."""

import logging
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from t2i_core.engine.attempt import Outcome, attempt
from t2i_core.engine.device import Span, memory_of_others, to_host
from t2i_core.engine.stages import Stages
from t2i_core.errors import ImageFailure, Stopped
from t2i_core.generation.interface import Batch, GeneratedImage, OnStep, Pixels, TextLength, Timings
from t2i_core.spec import ImageSpec

log = logging.getLogger(__name__)

WAYS_OUT = (
    "use --text-encoder staged, --offload model or group, --quantization int8 or nf4, or a smaller --height and "
    "--width; with --retry-failed"
)

T = TypeVar("T")


@dataclass(slots=True)
class Fit:
    """What fits into memory for images of one shape, learned from what did not fit."""

    batch_size: int = sys.maxsize
    vae_tiling: bool = False


@dataclass(frozen=True, slots=True)
class DenoisedBatch:
    """What one call of `Stages.denoise` made, or the error in its place."""

    outcome: Outcome[Tensor]
    size: int  # images of the call, padding included
    images: int  # without the padding
    span: Span


class BatchGenerator:
    """An `ImageGenerator` that works in stages. What it learns about memory holds as long as the process.

    An error of a stage concerns only the images that the stage worked on: it is returned in their place.
    """

    def __init__(
        self,
        stages: Stages,
        device: str,
        versions: dict[str, str],
        prompt_lengths: Callable[[ImageSpec], Sequence[TextLength]] = lambda spec: (),
    ) -> None:
        """`prompt_lengths` returns the length of a prompt for each text encoder."""
        self.device = device
        self.versions = versions
        self._stages = stages
        self._prompt_lengths = prompt_lengths
        self._tiles = False  # whether this object turned tiled decoding on
        self._fits: dict[tuple[Any, ...], Fit] = {}

    @property
    def torch_device(self) -> torch.device:
        """The device that the stages run on."""
        return self._stages.device

    def generate(
        self,
        batches: Sequence[Batch],
        batch_size: int,
        should_stop: Callable[[], bool],
        timings: Timings,
        on_step: OnStep = lambda step, steps: None,
    ) -> Iterator[Sequence[GeneratedImage | Exception]]:
        """Yield the images of each batch, as `ImageGenerator.generate` describes it."""

        def stop_if_asked() -> None:
            if should_stop():
                raise Stopped

        def step_done(step: int, steps: int) -> None:
            on_step(step, steps)
            stop_if_asked()

        waiting = deque(batches)
        while waiting:
            for batch, errors in self._encode_window(waiting, stop_if_asked, timings):
                yield self._generate_batch(batch, errors, batch_size, step_done, timings)

    def _encode_window(
        self, waiting: deque[Batch], stop_if_asked: Callable[[], None], timings: Timings
    ) -> list[tuple[Batch, dict[int, Exception]]]:
        """Take batches from `waiting` and encode their texts: one batch, or as many as the stages want.

        Return each batch with the errors of its images by their index.
        """
        window: list[tuple[Batch, dict[int, Exception]]] = []
        span = Span(self._stages.device)
        with self._stages.encoding():
            while waiting and (not window or self._stages.wants_more_texts()):
                stop_if_asked()
                batch = waiting.popleft()
                window.append((batch, self._encode(batch)))
        span.close()
        timings.add_later("encode", span.seconds)
        return window

    def _encode(self, batch: Batch) -> dict[int, Exception]:
        """Encode the texts of a batch; return the errors of its images by their index."""
        errors: dict[int, Exception] = {}
        for index, spec in enumerate(batch):
            outcome = self._attempt(self._stages.encode, spec)
            if outcome.out_of_memory:
                # The first attempt gave back what the batch before had left in the device's cache.
                outcome = self._attempt(self._stages.encode, spec)
            outcome = self._conclude(outcome, "encoding its prompt")
            if outcome.error is not None:
                errors[index] = outcome.error
        return errors

    def _generate_batch(
        self,
        batch: Batch,
        errors: dict[int, Exception],
        batch_size: int,
        on_step: OnStep,
        timings: Timings,
    ) -> list[GeneratedImage | Exception]:
        """Return the images of a batch whose texts are encoded, and `errors` in place of those whose texts are not."""
        fit = self._fits.setdefault(batch[0].call_group, Fit())
        self._set_tiling(fit.vae_tiling)
        results: dict[int, GeneratedImage | Exception] = dict(errors)
        remaining = [index for index in range(len(batch)) if index not in errors]
        while remaining:
            denoised = self._denoise([batch[index] for index in remaining], batch_size, fit, on_step)
            indices, remaining = remaining[: denoised.images], remaining[denoised.images :]
            if denoised.outcome.error is not None:
                results |= dict.fromkeys(indices, denoised.outcome.error)
                continue
            timings.add_later("denoise" if self._stages.decodes_apart else "call", denoised.span.seconds)
            for position, index in enumerate(indices):
                results[index] = self._finish_image(denoised, position, batch[index], fit, timings)
        return [results[index] for index in range(len(batch))]

    def _denoise(self, specs: Sequence[ImageSpec], batch_size: int, fit: Fit, on_step: OnStep) -> DenoisedBatch:
        """Denoise the first of `specs`, at most `batch_size`; fewer at once for as long as memory is short."""
        while True:
            size = min(batch_size, fit.batch_size)
            part = specs[:size]
            # Always `size` images: the tail is padded and the padding thrown away, so that an image does not depend on
            # how many batch mates it has.
            padded = [*part, *[part[-1]] * (size - len(part))]
            span = Span(self._stages.device)
            outcome = self._attempt(self._stages.denoise, padded, on_step)
            if outcome.out_of_memory and self._reduce(fit, size):
                continue
            if outcome.error is None:
                span.close()
            return DenoisedBatch(self._conclude(outcome, "denoising it"), size, len(part), span)

    def _reduce(self, fit: Fit, size: int) -> bool:
        """Make the next call need less memory: halve the batch, then tile. Return whether there was a way."""
        if size > 1:
            fit.batch_size = size // 2
            log.warning("memory is short: batches of %d instead of %d from now on", fit.batch_size, size)
            return True
        if self._stages.decodes_apart or fit.vae_tiling or not self._set_tiling(True):
            return False
        log.warning("memory is short: decoding in tiles from now on")
        fit.vae_tiling = True
        return True

    def _finish_image(
        self, denoised: DenoisedBatch, position: int, spec: ImageSpec, fit: Fit, timings: Timings
    ) -> GeneratedImage | Exception:
        """Decode the image at `position` of a denoised batch and start its copy to the host; return it or its error."""
        span = Span(self._stages.device)
        decoded = self._decode(denoised, position, spec, fit)
        span.close()
        if self._stages.decodes_apart:
            timings.add_later("decode", span.seconds)
        if decoded.error is not None:
            return decoded.error
        copied = self._copy_to_host(decoded)
        if copied.error is not None:
            return copied.error
        assert copied.value is not None
        return GeneratedImage(
            pixels=copied.value,
            seconds=_seconds_of_image(denoised.span, denoised.images, span),
            batch_size=self._stages.images_a_call(denoised.size),
            vae_tiling=fit.vae_tiling,
            prompt_lengths=self._count_tokens(spec),
        )

    def _decode(self, denoised: DenoisedBatch, position: int, spec: ImageSpec, fit: Fit) -> Outcome[Tensor]:
        """Decode one image of a denoised batch, in tiles where memory is short."""

        def decode() -> Outcome[Tensor]:
            return self._attempt(self._stages.decode, denoised.outcome.value, position, spec)

        outcome = decode()
        if outcome.out_of_memory:
            # The first attempt gave back what denoising had left in the device's cache.
            outcome = decode()
        if outcome.out_of_memory and not fit.vae_tiling and self._set_tiling(True):
            log.warning("memory is short: %dx%d images are decoded in tiles from now on", spec.width, spec.height)
            fit.vae_tiling = True
            outcome = decode()
        return self._conclude(outcome, "decoding it")

    def _copy_to_host(self, decoded: Outcome[Tensor]) -> Outcome[Callable[[], Pixels]]:
        """Start to copy a decoded image to the host; the outcome's value waits for the copy."""
        return self._conclude(self._attempt(to_host, decoded.value), "copying it to the host")

    def _count_tokens(self, spec: ImageSpec) -> Sequence[TextLength]:
        """Return the length of the prompt for each text encoder; nothing where a tokenizer fails: the image counts."""
        outcome = self._attempt(self._prompt_lengths, spec)
        if outcome.error is not None:
            log.warning("the tokens of a prompt cannot be counted: %s", outcome.error)
        return outcome.value or ()

    def _set_tiling(self, on: bool) -> bool:
        """Turn tiled decoding on, or off again; return False where the pipeline cannot tile or tiled already.

        Tiles that the user's own function (`--prepare`) turned on are left alone.
        """
        if on != self._tiles:
            if not self._stages.set_vae_tiling(on):
                return False
            self._tiles = on
        return True

    def _attempt(self, function: Callable[..., T], *arguments: Any) -> Outcome[T]:
        return attempt(self._stages.device, function, *arguments)

    def _conclude(self, outcome: Outcome[T], doing: str) -> Outcome[T]:
        """Return the outcome of the last attempt; where memory was too short, with the error that the images end with.

        That error is permanent (`ImageFailure`) where the memory is this process's own. It is transient
        (`MemoryError`) on the CPU, and where other processes hold a part of the device.
        """
        if not outcome.out_of_memory:
            return outcome
        first_line = str(outcome.error).strip().partition("\n")[0]
        if self._stages.device.type == "cpu":
            return Outcome(None, MemoryError(f"{doing} took more memory than this machine has free: {first_line}"))
        if others := memory_of_others(self._stages.device):
            problem = (
                f"{doing} took more memory than {self.device} has free while other processes hold "
                f"{others / 1e9:.1f} GB of it: {first_line}"
            )
            return Outcome(None, MemoryError(problem))
        problem = f"it does not fit alone into the memory of {self.device} ({doing}); {WAYS_OUT}"
        return Outcome(None, ImageFailure(problem))


def _seconds_of_image(denoising: Span, images: int, decoding: Span) -> Callable[[], float]:
    """Return a function that adds an image's share of the denoising to its own decoding, in seconds.

    The function holds the spans alone: held with the image, it must not keep the batch's tensors on the device.
    """
    return lambda: denoising.seconds() / images + decoding.seconds()
