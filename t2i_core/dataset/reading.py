"""What the reader of a format gives: readings of rows, and notes for the user."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field

from t2i_core.errors import DatasetError

log = logging.getLogger(__name__)

# (line in the file, from 1; the row's value; what is wrong with it; its text for messages). The line is None where the
# format has none; the value counts only where nothing is wrong.
Reading = tuple[int | None, object, str | None, str]

NOT_UTF8 = "is not UTF-8; save the data set as UTF-8"
HAS_NUL = "holds a NUL byte, so the file is damaged or not text; write the line again"


@dataclass(slots=True)
class _Note:
    count: int
    first: str


@dataclass(slots=True)
class Notes:
    """What the user should know of a data set as a whole. Each note is said once, however many files and lines it has.

    `{count}` in the text of a note becomes the number of times that it was taken.
    """

    _notes: dict[str, _Note] = field(default_factory=dict)

    def take(self, text: str, file: str, line: int | None = None) -> None:
        """Count a note; the first place is the one that is shown."""
        note = self._notes.get(text)
        if note is None:
            self._notes[text] = _Note(1, file if line is None else f"{file}, line {line}")
        else:
            note.count += 1

    def say(self) -> None:
        """Log every note in one line."""
        for text, note in self._notes.items():
            log.warning("data set  %s: %s", note.first, text.replace("{count}", f"{note.count:,}"))
        self._notes.clear()


def unique_columns(file: str, names: list[str]) -> list[str]:
    """Return the names of a table's columns.

    Raises:
        DatasetError: if a name appears twice.
    """
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise DatasetError(f"{file}: column {name!r} appears twice; give each column its own name")
        seen.add(name)
    return names


def short(error: Exception | str) -> str:
    """Return the first line of a library's message, cut to 200 characters."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]


Readings = Iterator[Reading]
