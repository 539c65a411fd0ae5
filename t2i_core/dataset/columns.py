"""The columns of a row: by their name, by a name that differs only in case or blanks, or by a path into objects."""

from collections.abc import Iterator, Mapping
from functools import lru_cache

from t2i_core.dataset.bad_row import ABSENT
from t2i_core.dataset.cells import json_value

Values = Mapping[str, object]


def find(values: Values, key: str, is_table: bool) -> tuple[str, object]:
    """Return (column as the row names it, value) for `key`; the value is ABSENT where the row has no such column.

    `body.messages` is looked up in the object `body` where no column has that very name. In a table the object may be
    JSON text.
    """
    for name, rest in _splits(values, key):
        if not rest:
            return name, values[name]
        inner = as_object(values[name], is_table)
        if inner is not None:
            path, value = find(inner, rest, is_table)
            if value is not ABSENT:
                return f"{name}.{path}", value
    return key, ABSENT


def has_column(values: Values, key: str) -> bool:
    """Return whether a row has a column that may hold `key`: that column itself, or an object above it."""
    return next(_splits(values, key), None) is not None


def objects_in(values: Values, is_table: bool) -> Iterator[tuple[str, Values]]:
    """Yield (column, object) for the columns that hold an object."""
    for name, value in values.items():
        inner = as_object(value, is_table)
        if inner:
            yield name, inner


def as_object(value: object, is_table: bool) -> Values | None:
    """Return the object that a value is, or that a table's cell holds as JSON text; None for anything else."""
    if is_table and isinstance(value, str):
        value = json_value(value)
    return value if isinstance(value, dict) else None


def near_name(values: Values, key: str) -> str | None:
    """Return the one name that differs from `key` only in case, in blanks around it or in a byte order mark."""
    folded = fold(key)
    names = [name for name in values if fold(name) == folded]
    return names[0] if len(names) == 1 else None


@lru_cache(1024)
def fold(name: str) -> str:
    """Return a name without case, blanks around it and byte order marks."""
    return name.replace("\ufeff", "").strip().casefold()


def _splits(values: Values, key: str) -> Iterator[tuple[str, str]]:
    """Yield (column of the row, rest of the path): exact names first, then near ones; the longest name first."""
    heads = [(key, "")]
    for position in range(len(key) - 1, 0, -1):
        if key[position] == "." and position < len(key) - 1:
            heads.append((key[:position], key[position + 1 :]))
    for head, rest in heads:
        if head in values:
            yield head, rest
    for head, rest in heads:
        if head not in values and (name := near_name(values, head)) is not None:
            yield name, rest
