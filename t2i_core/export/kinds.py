"""The kinds of values that a column holds, found by looking at all of them, and values made to fit.

A row of the input is JSON: a column may be null in most rows, an integer here and a float there, an object whose fields
come and go. Those who read an export want one type for a column, the same in every file of it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import pyarrow as pa

from t2i_core.json_values import encodable, json_text

# Of an object: one with more is a table of its own, whose names are data; it becomes JSON text.
MAX_FIELDS = 64
MAX_DEPTH = 8
_INT64 = range(-(2**63), 2**63)


@dataclass(frozen=True)
class ListOf:
    """A list whose items are of one kind."""

    item: "Kind"


@dataclass(frozen=True)
class StructOf:
    """An object: (name, kind) of each field."""

    fields: tuple[tuple[str, "Kind"], ...]


# null, bool, int, float or text. "null": no value was seen. "text" also stands for values of different kinds, as JSON.
Kind: TypeAlias = str | ListOf | StructOf
Path: TypeAlias = tuple[str, ...]

_ARROW = {"text": pa.string(), "bool": pa.bool_(), "int": pa.int64(), "float": pa.float64()}
_DATASETS = {"text": "string", "bool": "bool", "int": "int64", "float": "float64"}


def kind_of(value: object, depth: int = 0) -> Kind:
    """Return the kind of a value of JSON."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int):
        return "int" if value in _INT64 else "text"
    if isinstance(value, float):
        return "float"
    if isinstance(value, list) and depth < MAX_DEPTH:
        item: Kind = "null"
        for entry in value:
            item = widened(item, kind_of(entry, depth + 1))
        return ListOf(item)
    if isinstance(value, dict) and depth < MAX_DEPTH and len(value) <= MAX_FIELDS:
        return StructOf(tuple((name, kind_of(entry, depth + 1)) for name, entry in value.items()))
    return "text"


def widened(one: Kind, other: Kind) -> Kind:
    """Return the kind that holds the values of both; text where none else does."""
    if other in (one, "null"):
        return one
    if one == "null":
        return other
    if {one, other} == {"int", "float"}:
        return "float"
    if isinstance(one, ListOf) and isinstance(other, ListOf):
        return ListOf(widened(one.item, other.item))
    if isinstance(one, StructOf) and isinstance(other, StructOf):
        fields = dict(one.fields)
        for name, kind in other.fields:
            fields[name] = widened(fields[name], kind) if name in fields else kind
        return StructOf(tuple(fields.items())) if len(fields) <= MAX_FIELDS else "text"
    return "text"


def holds(kind: Kind, value: object) -> bool:
    """Return whether a value fits a kind as it is: a quick look that spares `kind_of` and `widened`."""
    if value is None:
        return True
    if isinstance(value, str):
        return kind == "text"
    if isinstance(value, bool):
        return kind == "bool"
    if isinstance(value, int):
        return kind == "int" and value in _INT64
    if isinstance(value, float):
        return kind == "float"
    if isinstance(kind, ListOf) and isinstance(value, list):
        return all(holds(kind.item, entry) for entry in value)
    if isinstance(kind, StructOf) and isinstance(value, dict):
        fields = dict(kind.fields)
        return all(name in fields and holds(fields[name], entry) for name, entry in value.items())
    return False


def settled(kind: Kind) -> Kind:
    """Return a kind that a column can be of: text where no value was seen, or where no object has a field."""
    if isinstance(kind, ListOf):
        return ListOf(settled(kind.item))
    if isinstance(kind, StructOf) and kind.fields:
        return StructOf(tuple((name, settled(inner)) for name, inner in kind.fields))
    return "text" if kind == "null" or isinstance(kind, StructOf) else kind


def fitted(kind: Kind, value: Any) -> Any:
    """Return a value as its column holds it: an object has every field, other text than UTF-8 can encode is mended."""
    if value is None:
        return None
    if isinstance(kind, ListOf):
        return [fitted(kind.item, entry) for entry in value]
    if isinstance(kind, StructOf):
        return {name: fitted(inner, value.get(name)) for name, inner in kind.fields}
    if kind == "float":
        return float(value)
    if kind == "text":
        return readable(value if isinstance(value, str) else json_text(value))
    return value


def readable(text: str) -> str:
    """Return text with unpaired surrogates replaced: neither Arrow nor UTF-8 can encode them."""
    return text if encodable(text) else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def leaves(kind: Kind, above: Path = ()) -> Iterator[Path]:
    """Yield the path of every scalar within a kind; a list is a step named `[]`."""
    if isinstance(kind, ListOf):
        yield from leaves(kind.item, (*above, "[]"))
    elif isinstance(kind, StructOf):
        for name, inner in kind.fields:
            yield from leaves(inner, (*above, name))
    else:
        yield above


def filled(kind: Kind, value: Any, above: Path = ()) -> Iterator[Path]:
    """Yield the path of every scalar that has a value."""
    if value is None:
        return
    if isinstance(kind, ListOf) and isinstance(value, list):
        for entry in value:
            yield from filled(kind.item, entry, (*above, "[]"))
    elif isinstance(kind, StructOf) and isinstance(value, dict):
        for name, inner in kind.fields:
            yield from filled(inner, value.get(name), (*above, name))
    else:
        yield above


def pruned(kind: Kind, keep: set[Path], above: Path = ()) -> Kind | None:
    """Return a kind with those scalars alone whose path, or one below it, is in `keep`; None where nothing is left."""
    if isinstance(kind, ListOf):
        item = pruned(kind.item, keep, (*above, "[]"))
        return None if item is None else ListOf(item)
    if isinstance(kind, StructOf):
        inner = [(name, pruned(part, keep, (*above, name))) for name, part in kind.fields]
        fields = tuple((name, part) for name, part in inner if part is not None)
        return StructOf(fields) if fields else None
    return kind if any(path[: len(above)] == above for path in keep) else None


def arrow_type(kind: Kind) -> pa.DataType:
    """Return the type of a column of a settled kind: never null."""
    if isinstance(kind, ListOf):
        return pa.list_(arrow_type(kind.item))
    if isinstance(kind, StructOf):
        return pa.struct([(name, arrow_type(inner)) for name, inner in kind.fields])
    return _ARROW[kind]


def kind_of_column(column: pa.DataType) -> Kind:
    """Return the kind of a column of scalars in a Parquet file."""
    if pa.types.is_boolean(column):
        return "bool"
    if pa.types.is_integer(column):
        return "int"
    return "float" if pa.types.is_floating(column) else "text"


def datasets_feature(kind: Kind) -> dict[str, Any]:
    """Return a kind as `datasets` writes it into the metadata of a Parquet file."""
    if isinstance(kind, ListOf):
        return {"feature": datasets_feature(kind.item), "_type": "List"}
    if isinstance(kind, StructOf):
        return {name: datasets_feature(inner) for name, inner in kind.fields}
    return {"dtype": _DATASETS[kind], "_type": "Value"}


def described(kind: Kind) -> str:
    """Return a kind in words: `list of {role: string, content: string}`."""
    if isinstance(kind, ListOf):
        return f"list of {described(kind.item)}"
    if isinstance(kind, StructOf):
        return "{" + ", ".join(f"{name}: {described(inner)}" for name, inner in kind.fields) + "}"
    return _DATASETS[kind]


def card_feature(kind: Kind) -> dict[str, Any]:
    """Return a kind as the YAML head of a data-set card declares it."""
    if isinstance(kind, ListOf):
        inner = card_feature(kind.item)
        (only,) = inner.values() if len(inner) == 1 else (inner,)
        return {"list": only if "dtype" in inner or "struct" in inner else inner}
    if isinstance(kind, StructOf):
        return {"struct": [{"name": name, **card_feature(inner)} for name, inner in kind.fields]}
    return {"dtype": _DATASETS[kind]}
