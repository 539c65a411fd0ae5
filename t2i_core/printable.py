"""Texts of others as a terminal and a log may show them: of a data set, a library, a file's header."""

import re

# What a terminal obeys (C0 but for tab and line feed, DEL, C1), what turns the direction of a line, separators of
# lines, and lone surrogates, which no stream can encode.
_CONTROL = re.compile(
    "[\\x00-\\x08\\x0b-\\x1f\\x7f-\\x9f\\u061c\\u200e\\u200f\\u2028-\\u202e\\u2066-\\u2069\\ud800-\\udfff]"
)


def printable(text: str) -> str:
    """Return a text in which control characters are written as in a Python string: an escape character as \\x1b."""
    return _CONTROL.sub(lambda match: repr(match[0])[1:-1], text)
