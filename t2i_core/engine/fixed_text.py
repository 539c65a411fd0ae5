"""Pipelines in which the texts of a batch change each other's images, kept from it.

Most pipelines pad every text to one length. These pad to the longest of the batch, so that the shape of an image's own
tensors, and with it the last bits of its pixels, depend on its mates; where padding is not masked, the whole picture.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from t2i_core.engine.stages import WholeCall, call_arguments, run_call
from t2i_core.spec import ImageSpec

# Pipelines that cannot be, or are not yet, given texts of a fixed length, by the name of their class: a call an image.
ONE_BY_ONE = {
    # Their denoisers lay texts and images side by side, as long as the longest of the batch.
    *("Lumina2Pipeline", "ZImagePipeline"),
    # It pads to the longest prompt and masks nothing: the padding is part of the picture.
    "CogView4Pipeline",
    # Read, not run: likewise as long as the longest of the batch.
    *("BriaFibo2Pipeline", "BriaFiboPipeline", "DreamLiteMobilePipeline", "DreamLitePipeline", "ErnieImagePipeline"),
    *("GlmImagePipeline", "Kandinsky3Pipeline", "Kandinsky5T2IPipeline", "LuminaPipeline", "OmniGenPipeline"),
    *("QwenImage21Pipeline", "ZImageOmniPipeline"),
    # Read, not run: how many tokens an expert gets at once depends on all images.
    *("HiDreamImagePipeline", "NucleusMoEImagePipeline"),
    # Read, not run: a prompt that quotes a text changes the guidance of the whole batch.
    "HunyuanImagePipeline",
}
# Tokens beyond the longest text: the pipeline drops a mask that masks nothing, and attention without a mask rounds
# differently. One would do, but kernels like multiples of 16.
PADDING = 16


def whole_call(pipeline: Any, device: torch.device) -> WholeCall:
    """The stages of a pipeline that is not taken apart, such that no image depends on its mates."""
    name = type(pipeline).__name__
    if name == "QwenImagePipeline":
        return FixedText(pipeline, device)
    return (OneByOne if name in ONE_BY_ONE else WholeCall)(pipeline, device)


class FixedText(WholeCall):
    """Qwen-Image: each text is encoded by itself and padded to one length, whatever the batch."""

    def denoise(self, specs: Sequence[ImageSpec], on_step: Callable[[], None]) -> Tensor:
        """The whole call but for the encoding."""
        arguments = call_arguments(specs, self.pipeline)
        length = arguments.get("max_sequence_length", 512)  # the call's own default
        arguments["max_sequence_length"] = None  # nothing is cut: what comes is `length` tokens and the padding
        for prefix in ("", "negative_"):
            texts = arguments.pop(f"{prefix}prompt", None)
            if texts is None:
                continue
            encoded = {text: self._encode(text, length) for text in dict.fromkeys(texts)}
            arguments[f"{prefix}prompt_embeds"] = torch.cat([encoded[text][0] for text in texts])
            arguments[f"{prefix}prompt_embeds_mask"] = torch.cat([encoded[text][1] for text in texts])
        result: Tensor = run_call(self.pipeline, arguments, specs, on_step, output_type="pt")
        return result

    def _encode(self, text: str, length: int) -> tuple[Tensor, Tensor]:
        """A text's embedding with padding behind it, and the mask that tells them apart."""
        tokens, _ = self.pipeline.encode_prompt(text, max_sequence_length=length)
        padded = tokens.new_zeros(1, length + PADDING, tokens.shape[2])
        padded[:, : tokens.shape[1]] = tokens
        mask = torch.arange(length + PADDING, device=tokens.device)[None] < tokens.shape[1]
        return padded, mask


class OneByOne(WholeCall):
    """A call for each image: correct, at the price of batching."""

    def images_a_call(self, batch_size: int) -> int:
        """One."""
        return 1

    def denoise(self, specs: Sequence[ImageSpec], on_step: Callable[[], None]) -> Tensor:
        """The whole call, for each image by itself; a padded batch repeats images, and these are drawn once."""
        drawn: dict[ImageSpec, Tensor] = {}
        for spec in dict.fromkeys(specs):
            drawn[spec] = super().denoise([spec], on_step)
        return torch.cat([drawn[spec] for spec in specs])
