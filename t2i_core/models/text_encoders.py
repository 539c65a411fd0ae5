"""The text encoders of a pipeline: which part tokenizes their prompts, and where each of them cuts a prompt.

The rule follows from the source of diffusers' pipelines: CLIP takes as many tokens as its tokenizer says, and the other
encoders as many as `max_sequence_length`, where the pipeline's call has that argument. `EXCEPTIONS` names the pipelines
that do otherwise. tests/models/test_text_encoders.py reads the installed diffusers and fails where a pipeline is new or
tokenizes in another way.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from t2i_core.models.pipeline_signature import call_defaults

# Components that tokenize the prompt, by the usual names; the encoder is named alike.
TOKENIZERS = ("tokenizer", "tokenizer_2", "tokenizer_3", "tokenizer_4", "prior_tokenizer")
# A tokenizer without a limit of its own says 10**30.
UNLIMITED = 10**6


@dataclass(frozen=True, slots=True)
class Limit:
    """How many tokens of a prompt an encoder takes: the smallest of what is named here; no limit where nothing is."""

    own: bool = False  # the tokenizer's `model_max_length`
    argument: bool = False  # the call's `max_sequence_length`
    default: int | None = None  # the argument's value where it is not passed
    fixed: int | None = None  # a number in the pipeline's code
    setting: str | None = None  # a number in model_index.json, by this name; `fixed` where it is not there
    reserved: int = 0  # tokens of the limit that the pipeline fills by itself
    before: str = ""  # text of the pipeline's own that stands before the prompt, within the limit

    def tokens(self, own: int, argument: int | None, settings: Mapping[str, Any]) -> int | None:
        """Return the limit in tokens, `before` not yet taken off; None where nothing is cut."""
        fixed = settings.get(self.setting, self.fixed) if self.setting else self.fixed
        asked = self.default if argument is None else argument
        limits = [own] if self.own and own < UNLIMITED else []
        limits += [asked] if self.argument and asked is not None else []
        limits += [fixed] if isinstance(fixed, int) else []
        return min(limits) - self.reserved if limits else None


@dataclass(frozen=True, slots=True)
class TextEncoder:
    """A text encoder of a pipeline; `name` is its class, `tokenizer` the component that tokenizes its prompts."""

    name: str
    tokenizer: str
    limit: Limit


OWN = Limit(own=True)
ARGUMENT = Limit(argument=True)
NONE = Limit()
USER_TURN = "<|im_start|>user\n"
FLUX_2_SYSTEM = (
    "[SYSTEM_PROMPT]You are an AI that reasons about image descriptions. You give structured responses focusing on "
    "object relationships, object\nattribution and actions without speculation.[/SYSTEM_PROMPT][INST]"
)
LUMINA_2_SYSTEM = (
    "You are an assistant designed to generate superior images with the superior degree of image-text alignment based "
    "on textual prompts or user prompts. <Prompt Start> "
)
NUCLEUS_SYSTEM = (
    "<|im_start|>system\nYou are an image generation assistant. Follow the user's prompt literally. Pay careful "
    "attention to spatial layout: objects described as on the left must appear on the left, on the right on the right. "
    f"Match exact object counts and assign colors to the correct objects.<|im_end|>\n{USER_TURN}"
)
# Pipeline -> tokenizer -> (component of its text encoder, limit).
EXCEPTIONS: dict[str, dict[str, tuple[str, Limit]]] = {
    # Numbers in the code.
    "HunyuanDiTPipeline": {
        "tokenizer": ("text_encoder", Limit(fixed=77)),
        "tokenizer_2": ("text_encoder_2", Limit(fixed=256)),
    },
    "HunyuanDiTPAGPipeline": {
        "tokenizer": ("text_encoder", Limit(fixed=77)),
        "tokenizer_2": ("text_encoder_2", Limit(fixed=256)),
    },
    "IFPipeline": {"tokenizer": ("text_encoder", Limit(fixed=77))},
    "Kandinsky3Pipeline": {"tokenizer": ("text_encoder", Limit(fixed=128))},
    "KandinskyCombinedPipeline": {
        "prior_tokenizer": ("prior_text_encoder", OWN),
        "tokenizer": ("text_encoder", Limit(fixed=77)),
    },
    "LDMTextToImagePipeline": {"tokenizer": ("bert", Limit(fixed=77))},
    "LongCatImagePipeline": {"tokenizer": ("text_encoder", Limit(fixed=512))},
    # Its call has `max_sequence_length`, and does not use it.
    "LuminaPipeline": {"tokenizer": ("text_encoder", Limit(fixed=256))},
    "PRXPixelPipeline": {"tokenizer": ("text_encoder", Limit(fixed=256, setting="prompt_max_tokens"))},
    "BriaFibo2Pipeline": {"processor": ("text_encoder", Limit(fixed=4096, before=USER_TURN))},
    # Its second encoder reads what a prompt puts in quotation marks, and only that.
    "HunyuanImagePipeline": {"tokenizer": ("text_encoder", Limit(fixed=1000))},
    # More than one limit, or a limit that the pipeline's own text shares with the prompt.
    "HiDreamImagePipeline": {
        "tokenizer": ("text_encoder", Limit(argument=True, fixed=218)),
        "tokenizer_2": ("text_encoder_2", Limit(argument=True, fixed=218)),
        "tokenizer_3": ("text_encoder_3", Limit(argument=True, own=True)),
        "tokenizer_4": ("text_encoder_4", Limit(argument=True, own=True)),
    },
    "Flux2Pipeline": {"tokenizer": ("text_encoder", Limit(argument=True, before=FLUX_2_SYSTEM))},
    "Flux2KleinPipeline": {"tokenizer": ("text_encoder", Limit(argument=True, before=USER_TURN))},
    "Flux2KleinKVPipeline": {"tokenizer": ("text_encoder", Limit(argument=True, before=USER_TURN))},
    "ZImagePipeline": {"tokenizer": ("text_encoder", Limit(argument=True, before=USER_TURN))},
    "ZImageOmniPipeline": {"tokenizer": ("text_encoder", Limit(argument=True, before=USER_TURN))},
    "Lumina2Pipeline": {"tokenizer": ("text_encoder", Limit(argument=True, before=LUMINA_2_SYSTEM))},
    "NucleusMoEImagePipeline": {
        "processor": ("text_encoder", Limit(argument=True, default=1024, before=NUCLEUS_SYSTEM))
    },
    "Kandinsky5T2IPipeline": {
        "tokenizer": ("text_encoder", Limit(argument=True, reserved=2)),
        "tokenizer_2": ("text_encoder_2", Limit(fixed=77)),
    },
    "Krea2Pipeline": {"tokenizer": ("text_encoder", Limit(argument=True, reserved=5))},
    # The last token of the instruction before the prompt is kept in place of one of the prompt's.
    **{
        name: {"tokenizer": ("text_encoder", Limit(argument=True, reserved=1))}
        for name in ("SanaPipeline", "SanaPAGPipeline", "SanaSprintPipeline")
    },
    # Other names, and no limit.
    "UniDiffuserPipeline": {"clip_tokenizer": ("text_encoder", OWN)},
    "OmniGenPipeline": {"tokenizer": ("transformer", NONE)},
    "QwenImage21Pipeline": {"processor": ("text_encoder", NONE)},
    # Its `tokenizer` and `max_sequence_length` are for what a prompt puts in quotation marks.
    "GlmImagePipeline": {"processor": ("vision_language_encoder", NONE)},
}


def text_encoders(pipeline_class: str, index: Mapping[str, Any]) -> list[TextEncoder]:
    """Return the encoders that read the whole prompt, in the order of their tokenizers' names.

    `index` is what `model_index.json` holds: {component: (library, class)}, where null classes are parts left out.

    Raises:
        ModelError: if the installed diffusers has no such pipeline.
    """
    known = EXCEPTIONS.get(pipeline_class)
    found = []
    for tokenizer in known or TOKENIZERS:
        component, limit = known[tokenizer] if known else (tokenizer.replace("tokenizer", "text_encoder"), None)
        name = _class_of(index, component)
        if name is None or _class_of(index, tokenizer) is None:
            continue
        if limit is None:
            takes = not name.startswith("CLIP") and "max_sequence_length" in call_defaults(pipeline_class)
            limit = ARGUMENT if takes else OWN
        found.append(TextEncoder(name, tokenizer, limit))
    return found


def _class_of(index: Mapping[str, Any], component: str) -> str | None:
    value = index.get(component)
    return value[1] if isinstance(value, list | tuple) and len(value) == 2 and isinstance(value[1], str) else None
