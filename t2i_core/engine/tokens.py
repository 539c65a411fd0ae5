"""`TokenCounter` counts the tokens of prompts for each text encoder, and finds what an encoder cuts or cannot read.

It needs the tokenizers alone: those of a loaded pipeline, or those in its folder. A tokenizer.json is read without
torch and transformers. diffusers' own warnings of cut prompts are turned off (`quiet.py`).
"""

import json
import logging
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self

from t2i_core.generation.interface import TextLength
from t2i_core.models.pipeline_files import INDEX
from t2i_core.models.text_encoders import UNLIMITED, TextEncoder, text_encoders
from t2i_core.spec import ImageSpec

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Tokens:
    """A prompt in tokens.

    offsets: for each token the characters (from, to) that it stands for, (0, 0) for special tokens; None where the
        tokenizer does not tell.
    ends: how many special tokens come after the prompt.
    """

    ids: list[int]
    offsets: list[tuple[int, int]] | None
    ends: int


class Tokenizer(Protocol):
    """What a `TokenCounter` asks of a tokenizer."""

    limit: int  # its own; 10**30 and the like for none
    unknown: int | None  # the id of the unknown token

    def encode(self, texts: Sequence[str], *, special: bool = True) -> list[Tokens]:
        """Return the tokens of each text, uncut, with special tokens or without."""

    def decode(self, ids: list[int]) -> str:
        """Return the text of `ids` without special tokens."""


class PipelineTokenizer:
    """A tokenizer of transformers."""

    def __init__(self, tokenizer: Any) -> None:
        # Some pipelines have a processor of images and texts instead.
        self._tokenizer = getattr(tokenizer, "tokenizer", tokenizer)
        self.limit: int = getattr(self._tokenizer, "model_max_length", UNLIMITED)
        self.unknown: int | None = getattr(self._tokenizer, "unk_token_id", None)

    def encode(self, texts: Sequence[str], *, special: bool = True) -> list[Tokens]:
        """Return the tokens of each text; without offsets where the tokenizer is written in Python."""
        encoded = self._tokenizer(list(texts), truncation=False, add_special_tokens=special, verbose=False)
        if encoded.encodings:
            return [_tokens(encoding) for encoding in encoded.encodings]
        ends = set(self._tokenizer.all_special_ids)
        return [Tokens(list(ids), None, int(bool(ids) and ids[-1] in ends)) for ids in encoded.input_ids]

    def decode(self, ids: list[int]) -> str:
        """Return the text of `ids` without special tokens."""
        return str(self._tokenizer.decode(ids, skip_special_tokens=True))


class FileTokenizer:
    """A tokenizer.json, with the settings beside it, read without transformers."""

    def __init__(self, folder: Path) -> None:
        import tokenizers

        self._tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        settings: dict[str, Any] = {}
        for name in ("special_tokens_map.json", "tokenizer_config.json"):
            if (folder / name).is_file():
                settings |= json.loads((folder / name).read_text(encoding="utf-8"))
        unknown = settings.get("unk_token")
        unknown = unknown.get("content") if isinstance(unknown, dict) else unknown
        self.unknown: int | None = self._tokenizer.token_to_id(unknown) if unknown else None
        self.limit: int = settings.get("model_max_length") or UNLIMITED

    def encode(self, texts: Sequence[str], *, special: bool = True) -> list[Tokens]:
        """Return the tokens of each text; the library uses all cores."""
        return [_tokens(encoding) for encoding in self._tokenizer.encode_batch(texts, add_special_tokens=special)]

    def decode(self, ids: list[int]) -> str:
        """Return the text of `ids` without special tokens."""
        return self._tokenizer.decode(ids, skip_special_tokens=True)


class TokenCounter:
    """The text encoders of a pipeline, each with its tokenizer.

    unreadable: the classes of the encoders whose tokenizer could not be read.
    """

    def __init__(
        self,
        encoders: Iterable[tuple[TextEncoder, Tokenizer]],
        settings: Mapping[str, Any],
        unreadable: Sequence[str] = (),
    ) -> None:
        """`settings` is what `model_index.json` holds, in which some pipelines keep a limit."""
        self._settings = settings
        self._encoders = list(encoders)
        self.unreadable = unreadable

    @classmethod
    def of_pipeline(cls, pipeline: Any) -> Self:
        """Return the counter of a loaded pipeline."""
        kind = type(pipeline)
        # The user's own function may have made it one of a class of its own.
        own = (base.__name__ for base in kind.__mro__ if base.__module__.startswith("diffusers."))
        encoders = text_encoders(next(own, kind.__name__), pipeline.config)
        parts = ((encoder, getattr(pipeline, encoder.tokenizer, None)) for encoder in encoders)
        return cls(((encoder, PipelineTokenizer(part)) for encoder, part in parts if part), pipeline.config)

    @classmethod
    def of_folder(cls, folder: Path) -> Self:
        """Return the counter of a pipeline's folder, which needs no weights."""
        index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        found, unreadable = [], []
        for encoder in text_encoders(index["_class_name"], index):
            try:
                found.append((encoder, _read_tokenizer(folder / encoder.tokenizer)))
            except Exception:  # a class that is not transformers', or a file that needs another package
                log.debug("%s/%s cannot be read", folder, encoder.tokenizer, exc_info=True)
                unreadable.append(encoder.name)
        return cls(found, index, unreadable)

    def __call__(self, spec: ImageSpec) -> list[TextLength]:
        """Return for each text encoder the length of the image's prompt."""
        return self.count([spec.prompt], spec.max_sequence_length)[0]

    def count(self, prompts: Sequence[str], max_sequence_length: int | None) -> list[list[TextLength]]:
        """Return for each prompt, and for each text encoder, its length, special tokens included, and the limit.

        The text that a pipeline puts around a prompt for a language model is not counted. What of it stands before the
        prompt, and within the limit, is taken off the limit.
        """
        columns = []
        for encoder, tokenizer in self._encoders:
            limit = encoder.limit.tokens(tokenizer.limit, max_sequence_length, self._settings)
            if limit is not None and encoder.limit.before:
                limit = max(1, limit - len(tokenizer.encode([encoder.limit.before], special=False)[0].ids))
            columns.append(
                [
                    _length(encoder.name, tokenizer, prompt, tokens, limit)
                    for prompt, tokens in zip(prompts, tokenizer.encode(prompts), strict=True)
                ]
            )
        return [list(lengths) for lengths in zip(*columns, strict=True)] if columns else [[] for _ in prompts]


def unread_share(prompt: str, tokens: Tokens, unknown: int | None) -> float | None:
    """Return the share of a prompt's letters, digits and symbols that no token but the unknown one stands for.

    A tokenizer either puts the unknown token in their place, one for a whole text in a script that it does not know, or
    leaves them out. None where the tokenizer does not tell which characters a token stands for.
    """
    if tokens.offsets is None:
        return None
    if unknown not in tokens.ids and _is_covered(prompt, tokens.offsets):
        return 0.0
    unread = set(range(len(prompt)))
    for start, end in tokens.offsets:
        unread.difference_update(range(start, end))
    # A token for the start of a word shares its first character with the unknown token behind it.
    for token, (start, end) in zip(tokens.ids, tokens.offsets, strict=True):
        if token == unknown:
            unread.update(range(start, end))
    lost = sum(_is_content(prompt[place]) for place in unread)
    return lost / sum(map(_is_content, prompt)) if lost else 0.0


def _is_covered(prompt: str, offsets: list[tuple[int, int]]) -> bool:
    """Return whether tokens in the order of the text leave out nothing but spaces: so it is with most prompts."""
    reached = 0
    for start, end in offsets:
        if start > reached and not prompt[reached:start].isspace():
            return False
        reached = max(reached, end)
    return reached >= len(prompt.rstrip())


def _is_content(character: str) -> bool:
    """Return whether a tokenizer that leaves the character out loses something: not a space, punctuation or a mark."""
    return unicodedata.category(character)[0] in "LNS"


def _length(encoder: str, tokenizer: Tokenizer, prompt: str, tokens: Tokens, limit: int | None) -> TextLength:
    ids, cut = tokens.ids, None
    if limit is not None and len(ids) > limit:
        cut = tokenizer.decode(ids[max(0, limit - tokens.ends) :])
    unknown = None
    if tokens.offsets is not None:
        places = [place for place, token in enumerate(ids) if token == tokenizer.unknown]
        # Where the end token is the unknown token, too (CLIP), it stands for no characters.
        unknown = sum(tokens.offsets[place] != (0, 0) for place in places)
    share = unread_share(prompt, tokens, tokenizer.unknown)
    return TextLength(encoder, len(ids), limit, cut, unknown, None if share is None else round(share, 4))


def _tokens(encoding: Any) -> Tokens:
    ends = 0
    for special in reversed(encoding.special_tokens_mask):
        if not special:
            break
        ends += 1
    return Tokens(encoding.ids, encoding.offsets, ends)


def _read_tokenizer(folder: Path) -> Tokenizer:
    if (folder / "tokenizer.json").is_file():
        return FileTokenizer(folder)
    from transformers import AutoTokenizer

    return PipelineTokenizer(AutoTokenizer.from_pretrained(folder, local_files_only=True))
