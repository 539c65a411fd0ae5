"""A tokenizer of whole words: the world is small enough that every word has a number.

FLUX has two, a byte-pair one for CLIP and SentencePiece for T5; both pad to a fixed length and end with one special
token, and so does this one. It serves both encoders.
"""

import torch
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from captions import vocabulary

TEXT_LENGTH = 24
PAD, END, UNKNOWN = 0, 1, 2
SPECIAL = ("<pad>", "</s>", "<unk>")


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Lower case, no punctuation (a hyphen parts words), unknown words as one token, padded to 24 tokens."""
    words = {word: number for number, word in enumerate((*SPECIAL, *vocabulary()))}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.NFKC(),
            normalizers.Lowercase(),
            normalizers.Replace("'", ""),
            normalizers.Replace(Regex("[^a-z0-9]+"), " "),
            normalizers.Strip(),
        ]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", END)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        model_max_length=TEXT_LENGTH,
    )


def encode(tokenizer: PreTrainedTokenizerFast, captions: list[str]) -> Tensor:
    """Captions to token numbers, int64 [B, 24]."""
    return tokenizer(
        captions, padding="max_length", max_length=TEXT_LENGTH, truncation=True, return_tensors="pt"
    ).input_ids


def forget_words(tokens: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Make a share of the words unknown, so that the model learns to draw the rest of a prompt without them."""
    forgotten = (torch.rand(tokens.shape, generator=generator) < share) & (tokens > UNKNOWN)
    return tokens.masked_fill(forgotten, UNKNOWN)
