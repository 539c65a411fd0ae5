"""Strict JSON: what is read here can be written, and read again by any other JSON reader."""

import base64
import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, TypeVar, cast

from pydantic import TypeAdapter, ValidationError

T = TypeVar("T")

MAX_DEPTH = 200  # levels; far below where Python's JSON gives up, wherever on the stack it is called


def parse_json(text: str) -> object:
    """Return the value of a JSON text.

    NaN and Infinity, which Python and pandas write, are null. Unpaired surrogates are let through: whether they matter
    depends on the field.

    Raises:
        ValueError: for what is not JSON, for numbers out of range, and above `MAX_DEPTH` levels.
    """
    try:
        value: object = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{error.msg} at character {error.pos + 1}") from None
    except RecursionError:
        raise ValueError(f"more than {MAX_DEPTH} levels deep") from None
    except ValueError as error:
        raise ValueError("an integer with thousands of digits" if "digits" in str(error) else str(error)) from None
    if text.count("[") + text.count("{") > MAX_DEPTH and _depth(value) > MAX_DEPTH:
        raise ValueError(f"more than {MAX_DEPTH} levels deep")
    return value


def flat_object(value: object) -> dict[str, object] | None:
    """Return an object, or the JSON text of one, whose values are scalars or lists of scalars; None where it is empty.

    Raises:
        ValueError: what else it is.
    """
    try:
        found = parse_json(value) if isinstance(value, str) else value
    except ValueError as error:
        raise ValueError(f"is not JSON: {error}") from None
    if found is not None and not isinstance(found, dict):
        raise ValueError("is no object")
    for name, item in (found or {}).items():
        parts = item if isinstance(item, list) else [item]
        if not all(part is None or isinstance(part, str | bool | int | float) for part in parts):
            raise ValueError(f"{name} is no number, text, true or false, nor a list of them")
        if any(isinstance(part, float) and not math.isfinite(part) for part in parts):
            raise ValueError(f"{name} is not finite")
    return found or None


def checked(value: T) -> T:
    """Return a dataclass whose fields came from a file, if each is of the type that it is declared to be.

    Raises:
        ValueError: naming the field that is not.
    """
    text = json.dumps(asdict(cast(Any, value)))
    try:
        TypeAdapter(type(value)).validate_json(text, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise ValueError(f"{place}: {first['msg']}") from None
    return value


def json_text(value: object) -> str:
    """Return `value` as JSON on one line, escaped to ASCII only where UTF-8 cannot encode the text."""
    text = _READABLE.encode(value)
    return text if encodable(text) else _ESCAPED.encode(value)


def encodable(text: str) -> bool:
    """Return whether UTF-8 can encode `text`: it cannot encode unpaired surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def plain(value: object) -> object:
    """Return a value of Parquet, Arrow or NumPy in the types that JSON has.

    NaN and the infinities are null; bytes become text (base64 where they are not UTF-8); dates, decimals and all else
    become strings.
    """
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, bytes | bytearray):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return base64.b64encode(value).decode()
    for convert in ("tolist", "as_py", "isoformat"):  # NumPy, Arrow, dates
        if hasattr(value, convert):
            return plain(getattr(value, convert)())
    return str(value)


def _depth(value: object) -> int:
    """Return how deep lists and objects nest; without recursion, which a deep value would exhaust."""
    depth, level = 0, [value]
    while level := [item for item in level if isinstance(item, dict | list)]:
        depth += 1
        level = [child for item in level for child in (item.values() if isinstance(item, dict) else item)]
    return depth


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"{text[:40]} is out of range")
    return value


# Made once: json.loads and json.dumps would make one for every row.
_DECODER = json.JSONDecoder(parse_constant=lambda name: None, parse_float=_finite)
_READABLE = json.JSONEncoder(ensure_ascii=False, allow_nan=False)
_ESCAPED = json.JSONEncoder(allow_nan=False)
