"""`EmbeddingCache` keeps embeddings within a bound of bytes; `RememberingEncoder` is a pipeline's encoder with one."""

import ast
import inspect
import textwrap
from collections import OrderedDict
from collections.abc import Callable, Collection, Hashable
from typing import Any

import torch
from torch import Tensor

# Bytes of embeddings that stay on the device for later calls; the newest one stays, however large it is.
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


class RememberingEncoder:
    """A pipeline's `encode_prompt` that remembers what it returned, and encodes nothing for equal arguments.

    The arguments hold all texts of a call, so a text is encoded among the same batch mates as without the memory, and
    no bit changes. A negative prompt that is encoded in the same call is remembered by itself, too, and handed to
    `encode_prompt` with the next prompts, once a trial has shown that no bit changes.
    """

    def __init__(self, encode: Callable[..., Any], *, split: bool) -> None:
        """`split`: whether a negative prompt may be remembered by itself: prompts must not change its length."""
        self._encode = encode
        self._signature = inspect.signature(encode)
        self._negatives = _negative_results(encode, self._signature.parameters) if split else {}
        self._cache = EmbeddingCache()
        self._splits: bool | None = None if self._negatives else False  # None before the trial

    def __call__(self, *args: Any, **options: Any) -> Any:
        """Return the embeddings of a call. They are remembered if its arguments are texts and plain values alone."""
        call = self._signature.bind(*args, **options)
        key = _hashable(call.arguments)
        if key is None:
            return self._encode(*args, **options)
        known = self._cache.get(key)
        if known is not None:
            return _copy(known)
        result = self._encode_unknown(call)
        if _is_embedding(result):
            self._remember(key, result)
        return result

    def _encode_unknown(self, call: inspect.BoundArguments) -> Any:
        """Encode the texts of a call, but for a negative prompt that is remembered by itself."""
        if self._splits is False or call.arguments.get("negative_prompt") is None:
            return self._encode(*call.args, **call.kwargs)
        key = "negative", _hashable({k: value for k, value in call.arguments.items() if not k.startswith("prompt")})
        negative = self._cache.get(key)
        if negative is not None and self._splits:
            return self._encode_with(call, negative)
        result = self._encode(*call.args, **call.kwargs)
        if negative is not None:
            self._splits = _equal(self._encode_with(call, negative), result)
        elif _is_embedding(result):
            self._remember(key, tuple(result[index] for index in self._negatives))
        return result

    def _encode_with(self, call: inspect.BoundArguments, negative: Any) -> Any:
        """Encode the prompts of a call, and hand in the embeddings of its negative prompt."""
        options = self._signature.bind(*call.args, **call.kwargs)
        options.arguments |= dict(zip(self._negatives.values(), _copy(negative), strict=True))
        return self._encode(*options.args, **options.kwargs)

    def _remember(self, key: Hashable, embedding: Any) -> None:
        self._cache.shrink(max(0, DEVICE_BYTES - nbytes(embedding)))
        self._cache.add(key, _copy(embedding))


def encode_once(pipeline: Any, *, split: bool) -> None:
    """Let a pipeline remember the texts that it encoded, if it has an `encode_prompt`; see `RememberingEncoder`."""
    if hasattr(pipeline, "encode_prompt"):
        pipeline.encode_prompt = RememberingEncoder(pipeline.encode_prompt, split=split)


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


def _equal(one: Any, other: Any) -> bool:
    """Return whether two embeddings are equal to the last bit."""
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return one.dtype == other.dtype and bool(torch.equal(one, other))
    if isinstance(one, tuple | list) and isinstance(other, tuple | list):
        return len(one) == len(other) and all(map(_equal, one, other))
    return one is None and other is None


def _negative_results(encode: Callable[..., Any], parameters: Collection[str]) -> dict[int, str]:
    """Return {place in the result: parameter} of what `encode` returns for a negative prompt, and takes again.

    The names stand in its return statement. The result is empty where it has no source, or more than one such
    statement.
    """
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(encode)))
    except (OSError, TypeError):
        return {}
    returned = [node.value for node in ast.walk(tree) if isinstance(node, ast.Return)]
    if len(returned) != 1 or not isinstance(returned[0], ast.Tuple):
        return {}
    names = [ast.unparse(part).partition(" if ")[0] for part in returned[0].elts]
    return {i: name for i, name in enumerate(names) if name.startswith("negative_") and name in parameters}
