"""The exception for a row that cannot be used, and the form of names and values from the data set in messages."""

from collections.abc import Iterable

from t2i_core.errors import shorten

ABSENT = object()  # where there is no value to show


class BadRow(ValueError):
    """A row cannot be used: which field, the value received, what is wrong and what to do."""

    def __init__(self, field: str, value: object, reason: str) -> None:
        self.field, self.reason = printable(field), printable(reason)
        self.value = "" if value is ABSENT else shorten(value[:200] if isinstance(value, str) else value)
        super().__init__(self.reason)


def joined(names: Iterable[str]) -> str:
    """Return names from the data set as one text for messages, cut to 200 characters."""
    text = printable(", ".join(names))
    return text if len(text) <= 200 else text[:199] + "…"


def printable(text: str) -> str:
    """Return a text from the data set in a form for messages: on one line, and encodable."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)
