"""The columns of an export: ours, then those of the input under their names, each of one kind.

A column of the input whose name is taken comes as `input_<name>`.
"""

import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import pyarrow as pa

from t2i_core.export.kinds import (
    Kind,
    Path,
    arrow_type,
    filled,
    fitted,
    holds,
    kind_of,
    leaves,
    pruned,
    readable,
    settled,
    widened,
)

# `datasets` takes a text under such a name for the path of an image.
_FILE_NAME = re.compile(r"(^|_)file_name(s?)$")


class Columns:
    """The columns of the input as they are found, row by row; then what each value becomes.

    Attributes:
        kinds: name in the input -> kind of its values.
        names: name in the input -> name in the export, once `settle` was called.
    """

    def __init__(self, own: Mapping[str, Kind], splits: int) -> None:
        """`own`: the columns of ours with their kinds. `splits`: how many there are."""
        self.own = dict(own)
        self.kinds: dict[str, Kind] = {}
        self.names: dict[str, str] = {}
        self._leaves: dict[str, int] = {}
        # For each split: column -> the paths in it that have a value somewhere; and those of ours that have one.
        self._filled: list[dict[str, set[Path]]] = [{} for _ in range(splits)]
        self._own_filled: list[set[str]] = [set() for _ in range(splits)]

    def see(self, own: Mapping[str, Any], values: Mapping[str, Any], split: int) -> bool:
        """Take note of a row, of our columns and of the input's.

        Return whether it fills something that no earlier row of its split does.
        """
        new_own = {name for name, value in own.items() if value is not None} - self._own_filled[split]
        self._own_filled[split] |= new_own
        first = bool(new_own)
        for name, value in values.items():
            if name not in self.kinds or not holds(self.kinds[name], value):
                self.kinds[name] = widened(self.kinds.get(name, "null"), kind_of(value))
                self._leaves[name] = sum(1 for _ in leaves(self.kinds[name]))
            found = self._filled[split].setdefault(name, set())
            if value is None or len(found) == self._leaves[name]:
                continue
            new = set(filled(self.kinds[name], value)) - found
            found |= new
            first = first or bool(new)
        return first

    def settle(self, reserved: Sequence[str]) -> None:
        """Name the columns; `reserved` are patterns of names that mean something to those who read the export."""
        taken = set(self.own)
        for column in self.kinds:
            name = _FILE_NAME.sub(r"\1filename\2", readable(column)) or "column"
            while name in taken or any(fnmatchcase(name, pattern) for pattern in reserved):
                name = f"input_{name}"
            taken.add(name)
            self.names[column] = name
        self.kinds = {column: _without_file_names(settled(kind)) for column, kind in self.kinds.items()}

    def row(self, own: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
        """Return a row of the export, with every column, from a row of ours and of the input."""
        row = {name: fitted(kind, own.get(name)) for name, kind in self.own.items()}
        for column, kind in self.kinds.items():
            row[self.names[column]] = fitted(kind, values.get(column))
        return row

    def exported(self) -> dict[str, Kind]:
        """Return name -> kind of every column of the export."""
        return {**self.own, **{self.names[column]: kind for column, kind in self.kinds.items()}}

    def in_json_lines(self) -> dict[str, Kind]:
        """Return name -> kind of the columns, and fields of objects, that have a value in every split.

        Who reads JSON lines takes the type of a column from its values: one without any is of type null, which can be
        put together with nothing.
        """
        used = [split for split, own in enumerate(self._own_filled) if own]
        kinds: dict[str, Kind] = {
            name: kind for name, kind in self.own.items() if all(name in self._own_filled[split] for split in used)
        }
        for column, kind in self.kinds.items():
            part: Kind | None = kind
            for split in used:
                part = pruned(part, self._filled[split].get(column, set())) if part is not None else None
            if part is not None:
                kinds[self.names[column]] = part
        return kinds

    def schema(self) -> pa.Schema:
        """Return the columns as those of a Parquet file."""
        return pa.schema([(name, arrow_type(kind)) for name, kind in self.exported().items()])

    def renamed(self) -> dict[str, str]:
        """Return name in the input -> name in the export, where they differ."""
        return {column: name for column, name in self.names.items() if column != name}


def _without_file_names(kind: Kind) -> Kind:
    """Return text, for a kind of objects with a field that `datasets` would take for the path of an image."""
    return "text" if any(_FILE_NAME.search(step) for path in leaves(kind) for step in path) else kind
