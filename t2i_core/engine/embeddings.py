"""`EmbeddingCache` keeps embeddings within a bound of bytes, and `encode_once` lets a pipeline look there first."""

import inspect
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any

import torch
from torch import Tensor

# Of embeddings that stay on the device for the calls to come; the newest stays, however large it is.
DEVICE_BYTES = 64 << 20
PLAIN = (str, int, float, torch.device, torch.dtype, type(None))


class EmbeddingCache:
    """Embeddings by text, in order of their last use. An embedding is tensors and None, in tuples or lists."""

    def __init__(self) -> None:
        self._embeddings: OrderedDict[Hashable, Any] = OrderedDict()
        self.bytes = 0

    def get(self, text: Hashable) -> Any:
        """Return the embedding of `text`, or None where there is none."""
        if text in self._embeddings:
            self._embeddings.move_to_end(text)
        return self._embeddings.get(text)

    def add(self, text: Hashable, embedding: Any) -> None:
        """Keep the embedding of `text`, which has none yet."""
        self._embeddings[text] = embedding
        self.bytes += nbytes(embedding)

    def shrink(self, limit: int) -> None:
        """Drop embeddings until the rest takes at most `limit` bytes, first those that were not used for longest."""
        while self.bytes > limit:
            _, oldest = self._embeddings.popitem(last=False)
            self.bytes -= nbytes(oldest)


def encode_once(pipeline: Any) -> None:
    """Let the pipeline's `encode_prompt` remember what it returned, and encode nothing for equal arguments.

    The arguments hold all texts of a call, so a text is encoded among the same batch mates as without the memory, and
    no bit changes. Nothing happens where the pipeline has no `encode_prompt`, and with arguments that are no texts and
    plain values.
    """
    encode: Callable[..., Any] | None = getattr(pipeline, "encode_prompt", None)
    if encode is None:
        return
    signature = inspect.signature(encode)
    cache = EmbeddingCache()

    def encode_prompt(*args: Any, **options: Any) -> Any:
        arguments = _hashable(signature.bind(*args, **options).arguments)
        if arguments is None:
            return encode(*args, **options)
        known = cache.get(arguments)
        if known is not None:
            return _copy(known)
        result = encode(*args, **options)
        if _is_embedding(result):
            cache.shrink(max(0, DEVICE_BYTES - nbytes(result)))
            cache.add(arguments, _copy(result))
        return result

    pipeline.encode_prompt = encode_prompt


def nbytes(embedding: Any) -> int:
    """Return the bytes of all tensors of an embedding."""
    if isinstance(embedding, tuple | list):
        return sum(nbytes(part) for part in embedding)
    return embedding.nbytes if isinstance(embedding, Tensor) else 0


def _hashable(value: Any) -> Hashable:
    """Return a key for plain values in dicts, tuples and lists, equal only for equal values; None for anything else."""
    if isinstance(value, dict):
        value = list(value.items())
    if isinstance(value, tuple | list):
        parts = [_hashable(part) for part in value]
        return None if None in parts else tuple(parts)
    # 1, 1.0 and True are equal, and may mean different things.
    return (type(value), value) if isinstance(value, PLAIN) else None


def _is_embedding(value: Any) -> bool:
    if isinstance(value, tuple | list):
        return all(_is_embedding(part) for part in value)
    return value is None or isinstance(value, Tensor)


def _copy(embedding: Any) -> Any:
    """Return a copy, which the pipeline may write to."""
    if isinstance(embedding, tuple | list):
        return tuple(map(_copy, embedding)) if isinstance(embedding, tuple) else list(map(_copy, embedding))
    return embedding.clone() if isinstance(embedding, Tensor) else embedding
