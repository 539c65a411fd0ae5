"""Rows as text: JSON lines, or one JSON list."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from t2i_core.json_values import json_text
from t2i_core.storage.files import flush_to_disk, temporary_beside


class JsonFile:
    """Writes rows to a file, as JSON lines or as one list, those that lead before all others.

    Who reads JSON takes the types of columns from the first megabytes: rows lead that are the first to have a value
    somewhere.
    """

    def __init__(self, path: Path, as_list: bool = False) -> None:
        self._path, self._as_list = path, as_list
        self._leading: list[str] = []
        self._rest = temporary_beside(path)
        self._file = self._rest.open("w", encoding="utf-8")
        self._empty = True

    def write(self, row: Mapping[str, Any], leads: bool) -> None:
        """Write a row."""
        text = json_text(row)
        if leads:
            self._leading.append(text)
            return
        self._file.write(text if self._empty else self._between + text)
        self._empty = False

    def abandon(self) -> None:
        """Close what is open, where the file will not be finished."""
        self._file.close()

    def close(self) -> None:
        """Put the file together."""
        self._file.close()
        with self._path.open("w", encoding="utf-8") as file, self._rest.open(encoding="utf-8") as rest:
            file.write("[\n" * self._as_list + self._between.join(self._leading))
            file.write(self._between * bool(self._leading and not self._empty))
            shutil.copyfileobj(rest, file)
            file.write("\n]\n" if self._as_list else "\n")
            flush_to_disk(file)
        self._rest.unlink()

    @property
    def _between(self) -> str:
        return ",\n" if self._as_list else "\n"
