"""FLUX.1 in stages: texts encoded once, batches denoised, latents decoded one image at a time.

Decoding by the image costs no speed on an accelerator, where one image fills it, and a fraction of the memory: decoding
is where a batch that was denoised with ease would not fit. Encoding by the prompt lets equal texts share the work and
makes an embedding independent of the other prompts of a batch.
"""

import logging
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from t2i_core.engine.device import is_out_of_memory, release_memory
from t2i_core.engine.stages import call_arguments, run_call, set_vae_tiling
from t2i_core.spec import ImageSpec

log = logging.getLogger(__name__)

# Held in host memory; 4.2 MB a prompt for FLUX.1-dev. Half of it is one window of staged encoding.
EMBEDDING_BYTES = 1 << 30

Text = tuple[str, int | None]  # with its length in tokens
Embedding = tuple[Tensor, Tensor]  # T5's, a vector a token [1, T, width]; CLIP's, one vector [1, width]


class FluxStages:
    """A `FluxPipeline` taken apart. `staged`: the text encoders are on the device only while they encode."""

    decodes_apart = True

    def __init__(self, pipeline: Any, device: torch.device, *, staged: bool) -> None:
        self.pipeline = pipeline
        self.device = device
        self.staged = staged
        self._encoders = [pipeline.text_encoder, pipeline.text_encoder_2]
        self._embeddings: OrderedDict[Text, Embedding] = OrderedDict()
        self._bytes = self._window_bytes = 0
        self._transformer_leaves = False  # whether the encoders do not fit beside it

    @contextmanager
    def encoding(self) -> Iterator[None]:
        """Bring the encoders, if they are elsewhere, and take them away again."""
        self._window_bytes = 0
        while self._bytes > EMBEDDING_BYTES // 2:
            _, oldest = self._embeddings.popitem(last=False)
            self._bytes -= _size(oldest)
        if not self.staged:
            yield
            return
        self._bring_encoders()
        try:
            yield
        finally:
            for encoder in self._encoders:
                encoder.to("cpu")
            release_memory(self.device)
            self.pipeline.transformer.to(self.device)

    def encode(self, spec: ImageSpec) -> None:
        """The embeddings of the prompt, and of the negative prompt where it has a say."""
        for text in _texts(spec):
            if text in self._embeddings:
                self._embeddings.move_to_end(text)
                continue
            prompt, length = text
            options = {} if length is None else {"max_sequence_length": length}
            tokens, pooled, _ = self.pipeline.encode_prompt(prompt, None, device=self.device, **options)
            embedding = (tokens.cpu(), pooled.cpu())
            self._embeddings[text] = embedding
            self._bytes += _size(embedding)
            self._window_bytes += _size(embedding)

    def encode_on(self) -> bool:
        """Staged encoders encode as much as may be held before they leave again."""
        return self.staged and self._window_bytes < EMBEDDING_BYTES // 2

    def denoise(self, specs: Sequence[ImageSpec], on_step: Callable[[], None]) -> Tensor:
        """Latents of the whole batch, packed."""
        arguments = call_arguments(specs, self.pipeline)
        for prefix in ("", "negative_"):
            if arguments.pop(f"{prefix}prompt", None) is None:
                continue
            # Where guidance is off, a negative prompt was not encoded, for it has no say.
            texts = [t for spec in specs for t in _texts(spec)[1 if prefix else 0 :][:1]]
            if texts:
                embeddings = [self._embeddings[text] for text in texts]
                arguments[f"{prefix}prompt_embeds"] = torch.cat([e[0] for e in embeddings]).to(self.device)
                arguments[f"{prefix}pooled_prompt_embeds"] = torch.cat([e[1] for e in embeddings]).to(self.device)
        result: Tensor = run_call(self.pipeline, arguments, specs, on_step, output_type="latent")
        return result

    def decode(self, denoised: Tensor, index: int, spec: ImageSpec) -> Tensor:
        """Decode one image, as the pipeline itself would."""
        vae = self.pipeline.vae
        latents = self.pipeline._unpack_latents(
            denoised[index : index + 1], spec.height, spec.width, self.pipeline.vae_scale_factor
        )
        decoded = vae.decode(latents / vae.config.scaling_factor + vae.config.shift_factor, return_dict=False)[0][0]
        # A clamp would turn infinite pixels into white and black ones.
        image: Tensor = (decoded / 2 + 0.5).masked_fill(~decoded.isfinite(), torch.nan).clamp(0, 1)
        return image

    def images_a_call(self, batch_size: int) -> int:
        """All."""
        return batch_size

    def set_vae_tiling(self, on: bool) -> bool:
        """As its VAE can."""
        return set_vae_tiling(self.pipeline, on)

    def _bring_encoders(self) -> None:
        if self._transformer_leaves:
            self.pipeline.transformer.to("cpu")
            release_memory(self.device)
        try:
            for encoder in self._encoders:
                encoder.to(self.device)
            return
        except (RuntimeError, MemoryError) as error:
            if self._transformer_leaves or not is_out_of_memory(error):
                raise
        log.info("the text encoders do not fit beside the transformer: it leaves while they encode")
        self._transformer_leaves = True
        self._bring_encoders()


def _texts(spec: ImageSpec) -> list[Text]:
    """The prompt, and after it the negative prompt where the pipeline would use it."""
    texts = [(spec.prompt, spec.max_sequence_length)]
    if spec.negative_prompt is not None and (spec.true_cfg_scale or 1.0) > 1:
        texts.append((spec.negative_prompt, spec.max_sequence_length))
    return texts


def _size(embedding: Embedding) -> int:
    return sum(part.nbytes for part in embedding)
