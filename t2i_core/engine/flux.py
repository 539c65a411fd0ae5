"""FLUX.1 in stages: texts encoded once, batches denoised, latents decoded one image at a time.

Decoding one image at a time costs no speed on an accelerator, as one image fills it, and takes a fraction of the
memory: decoded at once, a batch that was denoised with ease would not fit. Encoding one text at a time allows equal
texts to be encoded once, and makes an embedding independent of the other prompts of a batch.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from t2i_core.engine.device import is_out_of_memory, release_memory
from t2i_core.engine.embeddings import EmbeddingCache, nbytes
from t2i_core.engine.host_copy import HostCopy
from t2i_core.engine.stages import call_arguments, run_call, set_vae_tiling
from t2i_core.generation.interface import OnStep
from t2i_core.spec import ImageSpec

log = logging.getLogger(__name__)

# Of embeddings held in host memory; a prompt takes 4.2 MB for FLUX.1-dev. One window of staged encoding takes half.
EMBEDDING_BYTES = 1 << 30

Text = tuple[str, int | None]  # and its max_sequence_length


class FluxStages:
    """The stages of a `FluxPipeline`. `staged`: the text encoders are on the device only while they encode."""

    decodes_apart = True

    def __init__(self, pipeline: Any, device: torch.device, *, staged: bool) -> None:
        self.pipeline = pipeline
        self.device = device
        self.staged = staged
        self._encoders = [HostCopy(pipeline.text_encoder), HostCopy(pipeline.text_encoder_2)]
        self._transformer = HostCopy(pipeline.transformer)
        # Of T5, a vector for each token [1, T, width]; of CLIP, one vector [1, width].
        self._embeddings = EmbeddingCache()
        self._window_bytes = 0
        self._transformer_leaves = False  # while texts are encoded, as the encoders do not fit beside it

    @contextmanager
    def encoding(self) -> Iterator[None]:
        """Bring staged encoders to the device for as long as the context lasts; drop the oldest embeddings first."""
        self._window_bytes = 0
        self._embeddings.shrink(EMBEDDING_BYTES // 2)
        if not self.staged:
            yield
            return
        self._bring_encoders()
        try:
            yield
        finally:
            for encoder in self._encoders:
                encoder.to_host()
            release_memory(self.device)
            if self._transformer_leaves:
                self._transformer.to_device(self.device)

    def encode(self, spec: ImageSpec) -> None:
        """Encode the prompt, and the negative prompt where guidance uses it; keep both embeddings in host memory."""
        for text in _texts(spec):
            if self._embeddings.get(text) is not None:
                continue
            prompt, length = text
            options = {} if length is None else {"max_sequence_length": length}
            tokens, pooled, _ = self.pipeline.encode_prompt(prompt, None, device=self.device, **options)
            embedding = (tokens.cpu(), pooled.cpu())
            self._embeddings.add(text, embedding)
            self._window_bytes += nbytes(embedding)

    def wants_more_texts(self) -> bool:
        """Return True for staged encoders until the window is full: they move as seldom as memory allows."""
        return self.staged and self._window_bytes < EMBEDDING_BYTES // 2

    def denoise(self, specs: Sequence[ImageSpec], on_step: OnStep) -> Tensor:
        """Denoise a batch of encoded texts; return its packed latents (len(specs), tokens, channels)."""
        arguments = call_arguments(specs, self.pipeline)
        for prefix in ("", "negative_"):
            if arguments.pop(f"{prefix}prompt", None) is None:
                continue
            # Where guidance does not use the negative prompt, it was not encoded.
            texts = [t for spec in specs for t in _texts(spec)[1 if prefix else 0 :][:1]]
            if texts:
                embeddings = [self._embeddings.get(text) for text in texts]
                arguments[f"{prefix}prompt_embeds"] = torch.cat([e[0] for e in embeddings]).to(self.device)
                arguments[f"{prefix}pooled_prompt_embeds"] = torch.cat([e[1] for e in embeddings]).to(self.device)
        latents: Tensor = run_call(self.pipeline, arguments, specs, on_step, output_type="latent").images
        return latents

    def decode(self, denoised: Tensor, index: int, spec: ImageSpec) -> Tensor:
        """Decode one image as the pipeline itself would; return (3, height, width) in 0..1, NaN where not finite."""
        vae = self.pipeline.vae
        latents = self.pipeline._unpack_latents(
            denoised[index : index + 1], spec.height, spec.width, self.pipeline.vae_scale_factor
        )
        decoded = vae.decode(latents / vae.config.scaling_factor + vae.config.shift_factor, return_dict=False)[0][0]
        # A clamp would turn infinite pixels into white and black ones.
        image: Tensor = (decoded / 2 + 0.5).masked_fill(~decoded.isfinite(), torch.nan).clamp(0, 1)
        return image

    def images_a_call(self, batch_size: int) -> int:
        """Return `batch_size`: a batch is denoised in one call."""
        return batch_size

    def set_vae_tiling(self, on: bool) -> bool:
        """Turn the VAE's tiling on or off; return whether that changed it."""
        return set_vae_tiling(self.pipeline, on)

    def _bring_encoders(self) -> None:
        """Bring the text encoders to the device; where they do not fit beside the transformer, it leaves first."""
        if self._transformer_leaves:
            self._transformer.to_host()
            release_memory(self.device)
        try:
            for encoder in self._encoders:
                encoder.to_device(self.device)
            return
        except (RuntimeError, MemoryError) as error:
            if self._transformer_leaves or not is_out_of_memory(error):
                raise
        log.info("the text encoders do not fit beside the transformer: it leaves while they encode")
        self._transformer_leaves = True
        self._bring_encoders()


def _texts(spec: ImageSpec) -> list[Text]:
    """Return the prompt, and after it the negative prompt where the pipeline would use it."""
    texts = [(spec.prompt, spec.max_sequence_length)]
    if spec.negative_prompt is not None and (spec.true_cfg_scale or 1.0) > 1:
        texts.append((spec.negative_prompt, spec.max_sequence_length))
    return texts
