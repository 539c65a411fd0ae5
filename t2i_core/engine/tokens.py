"""How many tokens a prompt has for each text encoder of a pipeline, and what of it the encoder never sees.

Counted with the tokenizers alone. diffusers warns of cut prompts itself, but FLUX's warning about T5 slices the text at
CLIP's 77 tokens and so names the wrong part; it is silenced.
"""

import logging
from typing import Any

import diffusers.utils.logging

from t2i_core.drawing import TextLength
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
                # FLUX.2 has a processor of pictures and texts in the tokenizer's place.
                self._encoders.append((type(encoder).__name__, getattr(tokenizer, "tokenizer", tokenizer)))

    def __call__(self, spec: ImageSpec) -> list[TextLength]:
        """For each text encoder the length of the prompt, special tokens included, and its limit.

        CLIP's limit is its tokenizer's own; the others are cut at `max_sequence_length`. What a pipeline writes around
        a prompt for a language model is not counted.
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


def silence_cut_prompts() -> None:
    """Keep diffusers from warning of cut prompts in its own way."""
    diffusers.utils.logging.get_logger("diffusers")  # the handler is made with the first logger
    for handler in logging.getLogger("diffusers").handlers:
        if _is_about_something_else not in handler.filters:
            handler.addFilter(_is_about_something_else)


def _is_about_something_else(record: logging.LogRecord) -> bool:
    return "was truncated because" not in record.getMessage()
