"""`TokenCounter` counts the tokens of a prompt for each text encoder, and finds the part that an encoder never sees.

It needs the tokenizers alone. diffusers' own warnings of cut prompts are turned off (`quiet.py`).
"""

from typing import Any

from t2i_core.generation.interface import TextLength
from t2i_core.spec import ImageSpec

# A tokenizer without a limit of its own says 10**30.
UNLIMITED = 10**6


class TokenCounter:
    """The tokenizers of a pipeline, each with the class of its text encoder."""

    def __init__(self, pipeline: Any) -> None:
        self._encoders = []
        for name in ("tokenizer", "tokenizer_2", "tokenizer_3", "tokenizer_4"):
            encoder = getattr(pipeline, name.replace("tokenizer", "text_encoder"), None)
            if getattr(pipeline, name, None) is not None and encoder is not None:
                tokenizer = getattr(pipeline, name)
                # FLUX.2 has a processor of images and texts instead of a tokenizer.
                self._encoders.append((type(encoder).__name__, getattr(tokenizer, "tokenizer", tokenizer)))

    def __call__(self, spec: ImageSpec) -> list[TextLength]:
        """Return for each text encoder the length of the prompt, special tokens included, and the limit.

        CLIP's limit is its tokenizer's own; the others cut at `max_sequence_length`. The template that a pipeline puts
        around a prompt for a language model is not counted.
        """
        lengths = []
        for name, tokenizer in self._encoders:
            limit = tokenizer.model_max_length if name.startswith("CLIP") else spec.max_sequence_length
            if limit is not None and limit > UNLIMITED:
                limit = None
            ids = tokenizer(spec.prompt, truncation=False, verbose=False).input_ids
            cut = None
            if limit is not None and len(ids) > limit:
                cut = tokenizer.decode(ids[limit - 1 :], skip_special_tokens=True)
            lengths.append(TextLength(name, len(ids), limit, cut))
        return lengths
