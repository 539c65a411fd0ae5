"""Stages for pipelines in which the texts of a batch would change each other's images.

Most pipelines pad every text to one length. These pad to the longest text of the batch. So the shape of an image's own
tensors depends on its batch mates, and with the shape the last bits of its pixels; where padding is not masked, the
whole image.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from t2i_core.engine.device import is_out_of_memory
from t2i_core.engine.embeddings import encode_once
from t2i_core.engine.stages import ImageOrError, WholeCall, call_arguments
from t2i_core.errors import Stopped, UserError
from t2i_core.generation.interface import OnStep
from t2i_core.spec import ImageSpec

# Class names of the pipelines that get a call for each image, as they cannot take, or are not yet given, texts of a
# fixed length.
ONE_BY_ONE = {
    # Their denoisers put texts and images in one sequence, padded to the longest of the batch.
    *("Lumina2Pipeline", "ZImagePipeline"),
    # It pads to the longest prompt and masks nothing: the padding changes the image.
    "CogView4Pipeline",
    # Known from their source alone, never run here: padded to the longest of the batch, too.
    *("BriaFibo2Pipeline", "BriaFiboPipeline", "DreamLiteMobilePipeline", "DreamLitePipeline", "ErnieImagePipeline"),
    *("GlmImagePipeline", "Kandinsky3Pipeline", "Kandinsky5T2IPipeline", "LuminaPipeline", "OmniGenPipeline"),
    *("QwenImage21Pipeline", "ZImageOmniPipeline"),
    # Known from their source alone: how many tokens an expert gets at once depends on all images.
    *("HiDreamImagePipeline", "NucleusMoEImagePipeline"),
    # Known from its source alone: a prompt that quotes a text changes the guidance of the whole batch.
    "HunyuanImagePipeline",
    # A prompt that its safety checker refuses ends the whole call.
    "Cosmos2TextToImagePipeline",
    # Its marks of images that the safety checker replaced are right for a single image alone.
    "StableDiffusionPipelineSafe",
}
# Tokens beyond the longest text, so that every mask masks something: the pipeline drops a mask that masks nothing, and
# attention without a mask rounds differently. One token would do, but kernels like multiples of 16.
PADDING = 16


def whole_call(pipeline: Any, device: torch.device) -> WholeCall:
    """Return the stages of a pipeline that is called as a whole, such that no image depends on its batch mates.

    The pipeline remembers the texts that it encoded (`encode_once`).
    """
    name = type(pipeline).__name__
    encode_once(pipeline, split=name not in ONE_BY_ONE)
    if name == "QwenImagePipeline":
        return FixedTextLength(pipeline, device)
    return (OneByOne if name in ONE_BY_ONE else WholeCall)(pipeline, device)


class FixedTextLength(WholeCall):
    """Qwen-Image, with each text encoded by itself and padded to one length, whatever the batch."""

    def denoise(self, specs: Sequence[ImageSpec], on_step: OnStep) -> list[ImageOrError]:
        """Encode the texts one by one, then call the pipeline; return its images."""
        arguments = call_arguments(specs, self.pipeline)
        length = arguments.get("max_sequence_length", 512)  # the call's own default
        arguments["max_sequence_length"] = None  # cuts nothing: the embeddings are `length + PADDING` long
        for prefix in ("", "negative_"):
            texts = arguments.pop(f"{prefix}prompt", None)
            if texts is None:
                continue
            encoded = [self._encode(text, length) for text in texts]
            arguments[f"{prefix}prompt_embeds"] = torch.cat([tokens for tokens, _ in encoded])
            arguments[f"{prefix}prompt_embeds_mask"] = torch.cat([mask for _, mask in encoded])
        return self.call(arguments, specs, on_step)

    def _encode(self, text: str, length: int) -> tuple[Tensor, Tensor]:
        """Return the embedding of a text, padded with zeros, and the mask that is true for its own tokens.

        Shapes: (1, length + PADDING, width) and (1, length + PADDING).
        """
        tokens, _ = self.pipeline.encode_prompt(text, max_sequence_length=length)
        padded = tokens.new_zeros(1, length + PADDING, tokens.shape[2])
        padded[:, : tokens.shape[1]] = tokens
        mask = torch.arange(length + PADDING, device=tokens.device)[None] < tokens.shape[1]
        return padded, mask


class OneByOne(WholeCall):
    """A pipeline that is called for each image by itself: correct, without the speed of batches."""

    def images_a_call(self, batch_size: int) -> int:
        """Return 1: an image is one call."""
        return 1

    def denoise(self, specs: Sequence[ImageSpec], on_step: OnStep) -> list[ImageOrError]:
        """Call the pipeline for each image by itself; an image that pads the batch is generated once.

        An error of a call is returned in place of its image.
        """
        generated: dict[ImageSpec, ImageOrError] = {}
        calls = len(set(specs))

        def on_step_of_call(step: int, steps: int) -> None:
            on_step(len(generated) * steps + step, calls * steps)

        for spec in dict.fromkeys(specs):
            try:
                (generated[spec],) = super().denoise([spec], on_step_of_call)
            except (Stopped, UserError):
                raise
            except Exception as error:
                if is_out_of_memory(error):
                    raise
                generated[spec] = error.with_traceback(None)  # which would hold the call's tensors
        return [generated[spec] for spec in specs]
