"""A loaded pipeline draws batches of a fixed shape, and smaller ones where memory is short."""

import logging
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from t2i_core.drawing import Batch, Drawn, TextLength, Timings
from t2i_core.engine.device import Span, is_out_of_memory, memory_of_others, release_memory, to_host
from t2i_core.engine.stages import Stages
from t2i_core.errors import ImageFailure, Stopped, UserError
from t2i_core.spec import ImageSpec

log = logging.getLogger(__name__)

WAYS_OUT = (
    "use --text-encoder staged, --offload model or group, --quantization int8 or nf4, or a smaller --height and "
    "--width; with --retry-failed"
)


class _Shortage(Exception):
    """Memory was too short for an attempt."""


@dataclass(slots=True)
class Fit:
    """What fits into memory for images of one shape, learned from what did not."""

    batch_size: int = sys.maxsize
    vae_tiling: bool = False


class Drawer:
    """Draws the batches of a shard. What it learned about memory holds as long as the process."""

    def __init__(
        self,
        stages: Stages,
        device: str,
        versions: dict[str, str],
        prompt_lengths: Callable[[ImageSpec], Sequence[TextLength]] = lambda spec: (),
    ) -> None:
        """`prompt_lengths`: how long a prompt is for each text encoder."""
        self.device = device
        self.versions = versions
        self._stages = stages
        self._prompt_lengths = prompt_lengths
        self._tiled = False
        self._fits: dict[tuple[Any, ...], Fit] = {}

    @property
    def torch_device(self) -> torch.device:
        """The device itself."""
        return self._stages.device

    def draw(
        self, batches: Sequence[Batch], batch_size: int, should_stop: Callable[[], bool], timings: Timings
    ) -> Iterator[Sequence[Drawn | Exception]]:
        """See `t2i_core.drawing.Model`."""

        def stop_if_asked() -> None:
            if should_stop():
                raise Stopped

        waiting = deque(batches)
        while waiting:
            window: list[tuple[Batch, dict[int, Exception]]] = []
            span = Span(self._stages.device)
            with self._stages.encoding():
                while waiting and (not window or self._stages.encode_on()):
                    stop_if_asked()
                    batch = waiting.popleft()
                    window.append((batch, self._encode(batch)))
            span.close()
            timings.add_later("encode", span.seconds)
            for batch, errors in window:
                yield self._draw_batch(batch, errors, batch_size, stop_if_asked, timings)

    def _encode(self, batch: Batch) -> dict[int, Exception]:
        """Encode the texts of a batch; what went wrong, by the image's place in the batch."""
        errors: dict[int, Exception] = {}
        for i, spec in enumerate(batch):
            problem = self._attempt(self._stages.encode, spec)
            if isinstance(problem, _Shortage):
                problem = self._attempt(self._stages.encode, spec)  # the last batch's memory is free by now
            if isinstance(problem, _Shortage):
                problem = self._does_not_fit("encoding its prompt", problem)
            if problem is not None:
                errors[i] = problem
        return errors

    def _draw_batch(
        self,
        batch: Batch,
        errors: dict[int, Exception],
        batch_size: int,
        on_step: Callable[[], None],
        timings: Timings,
    ) -> list[Drawn | Exception]:
        fit = self._fits.setdefault(batch[0].call_group, Fit())
        results: dict[int, Drawn | Exception] = dict(errors)
        rest = [i for i in range(len(batch)) if i not in errors]
        while rest:
            size = min(batch_size, fit.batch_size)
            part = rest[:size]
            span = Span(self._stages.device)
            if not self._stages.decodes_apart:
                self._tile(fit.vae_tiling)
            # Always `size` images: the tail is padded and the padding thrown away, so that an image does not depend on
            # how many mates it has.
            specs = [batch[i] for i in part]
            denoised = self._attempt(self._stages.denoise, [*specs, *[specs[-1]] * (size - len(specs))], on_step)
            if isinstance(denoised, _Shortage) and self._make_smaller(fit, size):
                continue
            rest = rest[size:]
            if isinstance(denoised, _Shortage):
                denoised = self._does_not_fit("denoising it", denoised)
            if isinstance(denoised, Exception):
                results |= dict.fromkeys(part, denoised)
                continue
            span.close()
            timings.add_later("denoise" if self._stages.decodes_apart else "call", span.seconds)
            results |= self._decode(denoised, part, batch, fit, size, span, timings)
        return [results[i] for i in range(len(batch))]

    def _decode(
        self,
        denoised: Tensor,
        part: Sequence[int],
        batch: Batch,
        fit: Fit,
        size: int,
        denoising: Span,
        timings: Timings,
    ) -> dict[int, Drawn | Exception]:
        """Decode the images of a batch one by one, and start to copy each to the host."""
        results: dict[int, Drawn | Exception] = {}
        for place, i in enumerate(part):
            span = Span(self._stages.device)
            image = self._decode_one(denoised, place, batch[i], fit)
            span.close()
            if self._stages.decodes_apart:
                timings.add_later("decode", span.seconds)
            copy = image if isinstance(image, Exception) else self._attempt(to_host, image)
            if isinstance(copy, _Shortage):
                copy = self._does_not_fit("copying it to the host", copy)
            if isinstance(copy, Exception):
                results[i] = copy
                continue
            seconds = _sum_of(denoising, len(part), span)
            images_a_call = self._stages.images_a_call(size)
            results[i] = Drawn(copy, seconds, images_a_call, fit.vae_tiling, self._lengths_of(batch[i]))
        return results

    def _decode_one(self, denoised: Tensor, place: int, spec: ImageSpec, fit: Fit) -> Tensor | Exception:
        if not self._stages.decodes_apart:
            return self._stages.decode(denoised, place, spec)
        self._tile(fit.vae_tiling)
        image = self._attempt(self._stages.decode, denoised, place, spec)
        if isinstance(image, _Shortage):
            # Once more with all that denoising left behind given back; then in tiles.
            image = self._attempt(self._stages.decode, denoised, place, spec)
        if isinstance(image, _Shortage) and not fit.vae_tiling and self._tile(True):
            log.warning("memory is short: %dx%d images are decoded in tiles from now on", spec.width, spec.height)
            fit.vae_tiling = True
            image = self._attempt(self._stages.decode, denoised, place, spec)
        return self._does_not_fit("decoding it", image) if isinstance(image, _Shortage) else image

    def _lengths_of(self, spec: ImageSpec) -> Sequence[TextLength]:
        """How long the prompt is; a tokenizer that cannot say so costs no image."""
        lengths = self._attempt(self._prompt_lengths, spec)
        if isinstance(lengths, Exception):
            log.warning("the tokens of a prompt cannot be counted: %s", lengths)
            return ()
        result: Sequence[TextLength] = lengths
        return result

    def _tile(self, on: bool) -> bool:
        """Tile the decoding, or no longer; whether the VAE can. Tiles that --prepare chose are left alone."""
        if on != self._tiled:
            if not self._stages.set_vae_tiling(on):
                return False
            self._tiled = on
        return True

    def _make_smaller(self, fit: Fit, size: int) -> bool:
        """After memory was short: halve the batch, then tile the decoding; whether there was something to try."""
        if size > 1:
            fit.batch_size = size // 2
            log.warning("memory is short: batches of %d instead of %d from now on", fit.batch_size, size)
            return True
        if self._stages.decodes_apart or fit.vae_tiling or not self._tile(True):
            return False
        log.warning("memory is short: decoding in tiles from now on")
        fit.vae_tiling = True
        return True

    def _attempt(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """What `function` returns, or the error it raised; a `_Shortage` after the memory it held was given back."""
        try:
            with torch.inference_mode():
                return function(*arguments)
        except (Stopped, UserError):
            raise
        except Exception as error:
            # Whatever a library raised concerns these images alone. Its traceback would keep tensors alive.
            result = _Shortage(str(error)) if is_out_of_memory(error) else error.with_traceback(None)
        if isinstance(result, _Shortage):
            release_memory(self._stages.device)
        return result

    def _does_not_fit(self, doing: str, shortage: _Shortage) -> Exception:
        """The error of an image that does not fit alone: for good if the memory is ours, else it may fit later."""
        first_line = str(shortage).strip().partition("\n")[0]
        if self._stages.device.type == "cpu":
            return MemoryError(f"{doing} took more memory than this machine has free: {first_line}")
        if others := memory_of_others(self._stages.device):
            return MemoryError(
                f"{doing} took more memory than {self.device} has free while other processes hold "
                f"{others / 1e9:.1f} GB of it: {first_line}"
            )
        return ImageFailure(f"it does not fit alone into the memory of {self.device} ({doing}); {WAYS_OUT}")


def _sum_of(denoising: Span, images: int, decoding: Span) -> Callable[[], float]:
    """An image's share of the denoising, and its own decoding."""
    return lambda: denoising.seconds() / images + decoding.seconds()
