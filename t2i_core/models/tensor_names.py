"""The headers of files of weights: names and shapes of the tensors. No tensor is read."""

import json
import struct
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

from t2i_core.errors import ModelError
from t2i_core.models.names import GGUF

# Name -> shape, as torch has it.
Shapes = Mapping[str, tuple[int, ...]]

AGAIN = "download or copy it again"
LFS_POINTER = b"version "  # its first bytes
HEADER_BYTES = 100 << 20  # of a safetensors file at most, as its format says
# The kinds of a value in GGUF that have a fixed size -> bytes.
GGUF_SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
GGUF_STRING, GGUF_ARRAY = 8, 9
GGUF_NESTING = 4


def read_shapes(option: str, name: str, path: Path) -> Shapes:
    """Return the names and shapes of a safetensors or GGUF file. `option` and `name` are for messages.

    Raises:
        ModelError: for a file that is torn, empty or of another format.
    """
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            shapes = _gguf(file, size) if name.lower().endswith(GGUF) else _safetensors(file, size)
    except OSError as error:
        raise ModelError(f"{option}: {name} cannot be read: {error.strerror}; check the file") from error
    except (ValueError, KeyError, TypeError, struct.error, RecursionError) as error:
        reason = str(error) if isinstance(error, _Torn) else "its header is broken"
        raise ModelError(f"{option}: {name} cannot be read ({reason}); {AGAIN}") from error
    if not shapes:
        raise ModelError(f"{option}: {name} holds no tensors; {AGAIN}")
    return shapes


class _Torn(ValueError):
    """The file is shorter than its header says, or of another format."""


def safetensors_header(path: Path) -> dict[str, Any]:
    """Return {tensor: its dtype, shape and place} of a safetensors file; empty for one that is torn or none."""
    with path.open("rb") as file:
        try:
            return _header(file, path.stat().st_size)
        except (ValueError, KeyError, TypeError, struct.error, RecursionError):
            return {}


def _safetensors(file: BinaryIO, size: int) -> Shapes:
    return {name: tuple(entry["shape"]) for name, entry in _header(file, size).items()}


def _header(file: BinaryIO, size: int) -> dict[str, Any]:
    # The format: https://github.com/huggingface/safetensors#format
    start = file.read(8)
    if start == LFS_POINTER:
        raise _Torn("it is a Git LFS pointer, and `git lfs pull` fetches the file itself")
    (length,) = struct.unpack("<Q", start)
    if length > min(size - 8, HEADER_BYTES):
        raise _Torn("it is torn, or no safetensors file")
    header: dict[str, Any] = json.loads(file.read(length))
    header.pop("__metadata__", None)
    end = 8 + length + max((entry["data_offsets"][1] for entry in header.values()), default=0)
    if end > size:
        raise _Torn(f"it is torn: {size:,} of {end:,} bytes")
    return header


def _gguf(file: BinaryIO, size: int) -> Shapes:
    # The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
    start = file.read(4)
    if start == LFS_POINTER[:4]:
        raise _Torn("it is a Git LFS pointer, and `git lfs pull` fetches the file itself")
    if start != b"GGUF":
        raise _Torn("it is no GGUF file")
    version, tensors, values = struct.unpack("<IQQ", file.read(20))
    if version not in (2, 3):
        raise _Torn(f"its GGUF version is {version}")
    for _ in range(values):
        _string(file)
        _skip_value(file, _number(file, 4))
    shapes, last = {}, 0
    for _ in range(tensors):
        name = _string(file)
        sides = tuple(_number(file, 8) for _ in range(_number(file, 4)))
        _number(file, 4)
        # The least that a format takes is some bits an element; exact sizes would need the table of all formats.
        last = max(last, _number(file, 8) + prod(sides) // 8)
        shapes[name] = sides[::-1]
    if file.tell() + last > size:
        raise _Torn(f"it is torn: {size:,} of at least {file.tell() + last:,} bytes")
    return shapes


def _number(file: BinaryIO, size: int) -> int:
    data = file.read(size)
    if len(data) < size:
        raise _Torn("it is torn")
    return int.from_bytes(data, "little")


def _string(file: BinaryIO) -> str:
    length = _number(file, 8)
    data = file.read(min(length, HEADER_BYTES))
    if len(data) < length:
        raise _Torn("it is torn")
    return data.decode("utf-8")


def _skip_value(file: BinaryIO, kind: int, depth: int = 0) -> None:
    if kind == GGUF_STRING:
        _string(file)
    elif kind == GGUF_ARRAY and depth < GGUF_NESTING:
        item, count = _number(file, 4), _number(file, 8)
        if item in GGUF_SIZES:
            file.seek(GGUF_SIZES[item] * count, 1)
        else:
            for _ in range(count):
                _skip_value(file, item, depth + 1)
    else:
        file.seek(GGUF_SIZES[kind], 1)
