"""Messages for values that pydantic refuses: field, what is wrong, the value received, the fix."""

import difflib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from t2i_core.errors import shorten

# What to write where a pattern does not match, by field: the pattern itself helps nobody.
PATTERN_FIXES = {
    "sizes": "write WIDTHxHEIGHT, for example 1216x832",
    "prepare": "write module:function, for example my_models:prepare",
    "device": "write auto, cpu, mps, cuda, cuda:1 or xpu",
    "scheduler": "write the name of a diffusers scheduler class, for example EulerDiscreteScheduler",
    "public_url": "write an http:// or https:// address",
    "manifest_name": "write a plain file name that ends in .jsonl",
}


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong. `field` is empty where it concerns several fields together."""

    field: str
    reason: str
    value: object
    show_value: bool

    def __str__(self) -> str:
        where = f"{self.field}: " if self.field else ""
        return where + self.reason + (f" (got {shorten(self.value)})" if self.show_value else "")


def problems_of(error: ValidationError, known: Collection[str], unknown: str) -> list[Problem]:
    """Return one `Problem` for each wrong field.

    `known` are the names of the fields; `unknown` says what to do about a field that is like none of them.
    """
    # A default that depends on a wrong field has nothing to say of its own.
    errors = [item for item in error.errors() if item["type"] != "default_factory_not_called"]
    return [_problem(item, known, unknown) for item in _merge_union_members(errors)]


def _merge_union_members(errors: Sequence[Any]) -> list[Any]:
    """Merge pydantic's errors for the members of a union into one message."""
    merged: dict[tuple[Any, ...], Any] = {}
    for error in errors:
        # The second part of a location is a number for an item of a list, and the type's name for a member of a union.
        is_member = len(error["loc"]) > 1 and not isinstance(error["loc"][1], int)
        location = error["loc"][:1] if is_member else error["loc"]
        if is_member and location in merged:
            other = error["msg"].removeprefix("Input should be ")
            merged[location] = merged[location] | {"msg": f"{merged[location]['msg']}, or {other}"}
        else:
            merged[location if location not in merged else (*location, len(merged))] = error
    return list(merged.values())


def _problem(error: Any, known: Collection[str], unknown: str) -> Problem:
    field = str(error["loc"][0]) if error["loc"] else ""
    reason = str(error["msg"]).removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        close = difflib.get_close_matches(field.replace("-", "_"), known, n=1)
        fix = f"did you mean {close[0]}?" if close else unknown
        return Problem(field, f"unknown option; {fix}", error["input"], show_value=False)
    if error["type"] == "string_pattern_mismatch":
        reason = PATTERN_FIXES[field]
    if field:
        reason = reason[:1].lower() + reason[1:]
    return Problem(field, reason, error["input"], show_value=bool(field))
