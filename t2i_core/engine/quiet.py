"""Functions that keep transformers and diffusers from printing what a user of this project cannot act on."""

import logging

KNOWN = (
    "was truncated because",
    "A black image will be returned",
    "Attention backends are an experimental",
    "some layers were not executed",
    "Unable to import `torchao` Tensor objects",
    "Calling register_constant() on Enum",
)


def silence_libraries() -> None:
    """Turn off transformers' warnings and progress bars.

    Call it before the first import of diffusers: while it is imported, transformers warns of packages (torchvision)
    that nothing here uses, and diffusers and torch of a newer torchao, whose checkpoints nothing here reads.
    """
    for name in ("diffusers.quantizers.torchao.torchao_quantizer", "torch.utils._pytree"):
        logging.getLogger(name).addFilter(_is_not_reported_here)
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()


def silence_diffusers() -> None:
    """Turn off diffusers' progress bars, and its warnings of what this project reports itself or nobody can act on.

    It reports cut prompts and images that a safety checker replaced (`tokens.py`, `stages.py`). FLUX's warning about T5
    slices the text at CLIP's 77 tokens and so names the wrong part. Offloading by the layer warns of T5's embeddings,
    which have two names.
    """
    import diffusers

    diffusers.utils.logging.disable_progress_bar()
    diffusers.utils.logging.get_logger("diffusers")  # diffusers makes its handler with the first logger
    for handler in logging.getLogger("diffusers").handlers:
        handler.addFilter(_is_not_reported_here)


def _is_not_reported_here(record: logging.LogRecord) -> bool:
    message = record.getMessage()
    return not any(part in message for part in KNOWN)
