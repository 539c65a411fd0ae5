"""Columns of a table that hold pictures, sound and the like: they are no part of a row as it came."""

from collections.abc import Mapping
from typing import Any

from t2i_core.dataset.reading import Notes


class BinaryColumns:
    """The binary columns of one file, known by their values: bytes that are UTF-8 are text, as some writers leave it.

    A column is left out of every row from the first value on that shows it to be binary.
    """

    def __init__(self, file: str, notes: Notes) -> None:
        self._file, self._notes = file, notes
        self.names: set[str] = set()

    def without(self, row: Mapping[str, object]) -> dict[str, object]:
        """Return a row without its binary columns."""
        for name, value in row.items():
            if name not in self.names and _is_binary(value):
                self._add(name)
        return {name: value for name, value in row.items() if name not in self.names}

    def find(self, chunk: Any) -> None:
        """Leave out the columns of an Arrow chunk that its values show to be binary."""
        for name in self.candidates(chunk.schema):
            if any(map(_is_binary, chunk[name].to_pylist())):
                self._add(name)

    def candidates(self, schema: Any) -> list[str]:
        """Return the columns of an Arrow schema that may be binary by their type, and are not known to be."""
        return [field.name for field in schema if field.name not in self.names and _holds_bytes(field.type)]

    def _add(self, name: str) -> None:
        self.names.add(name)
        self._notes.take(f"column {name!r} holds binary data, and is left out of the manifest", self._file)


def _is_binary(value: object) -> bool:
    """Return whether a value is or holds bytes that are no text."""
    if isinstance(value, bytes | bytearray):
        try:
            return "\0" in value.decode()
        except UnicodeDecodeError:
            return True
    if isinstance(value, Mapping):
        return any(map(_is_binary, value.values()))
    return isinstance(value, list | tuple) and any(map(_is_binary, value))


def _holds_bytes(kind: Any) -> bool:
    """Return whether an Arrow type is or contains one of bytes."""
    from pyarrow import types

    if types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind):
        return True
    if types.is_dictionary(kind):
        return _holds_bytes(kind.value_type)
    return any(_holds_bytes(kind.field(number).type) for number in range(kind.num_fields))
