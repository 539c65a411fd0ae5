"""Bytes -> lines of text: what ends a line, and byte order marks.

A line that is not UTF-8 is marked; most of them together make the file one in another encoding (`encodings.py`).
"""

import re
from collections.abc import Iterable, Iterator
from functools import partial
from io import BytesIO
from itertools import chain

from t2i_core.dataset.data_file import DataFile
from t2i_core.dataset.encodings import UTF8_MARK, in_utf8, marked_encoding, refuse_other_encodings
from t2i_core.dataset.reading import HAS_NUL, NOT_UTF8, Notes

SAMPLE = 1 << 18  # bytes by which encoding and line ends are known

_CARRIAGE_RETURNS = "its lines end in carriage returns alone, as old Mac programs write them; each ends a line"
_LINE_FEED = re.compile(rb"\n")
# Any of the three line ends; carriage returns before a line feed are one end with it.
_ANY_END = re.compile(rb"\r+\n|\r|\n")


def text_lines(file: DataFile, notes: Notes) -> Iterator[tuple[int, str, str | None]]:
    """Yield (line number from 1, text without its end, what is wrong with it) for the lines that are not blank."""
    for number, text, problem in whole_lines(file, notes):
        if problem or text.strip():
            yield number, text.rstrip("\r\n"), problem


def whole_lines(file: DataFile, notes: Notes) -> Iterator[tuple[int, str, str | None]]:
    """Yield (line number from 1, text with its end, what is wrong with it) for every line.

    Bytes that are not UTF-8 are decoded with `surrogateescape`.
    """
    for number, raw in enumerate(raw_lines(file, notes), 1):
        try:
            text = raw.decode()
        except UnicodeDecodeError:
            yield number, raw.decode(errors="surrogateescape"), NOT_UTF8
            continue
        yield number, text, HAS_NUL if "\0" in text else None


def raw_lines(file: DataFile, notes: Notes) -> Iterator[bytes]:
    """Yield every line with its end, in UTF-8, without a byte order mark at its start: joined files have several.

    A line feed ends a line; U+2028 is text. A carriage return ends one only where most lines of the file end so: in
    any other file it stands within a line, and two halves of a line would be prompts that nobody wrote.

    Raises:
        DatasetError: where the file cannot be read, is no text, or is text in another encoding.
    """
    with file.open() as stream:
        sample = stream.read(SAMPLE)
        rest: Iterator[bytes] = iter(partial(stream.read, SAMPLE), b"")
        encoding = marked_encoding(sample)
        if encoding is None:
            refuse_other_encodings(file, sample, is_whole=len(sample) < SAMPLE)
        else:
            rest = in_utf8(file, chain([sample], rest), encoding)
            sample = next(rest, b"")
        lines: Iterable[bytes]
        if _ends_in_carriage_returns(sample):
            notes.take(_CARRIAGE_RETURNS, file.name)
            lines = _split(chain([sample], rest), _ANY_END)
        elif encoding is None:
            lines = chain(BytesIO(sample + stream.readline()), stream)  # much the fastest
        else:
            lines = _split(chain([sample], rest), _LINE_FEED)
        for raw in lines:
            while raw.startswith(UTF8_MARK):
                raw = raw.removeprefix(UTF8_MARK)
            yield raw


def _ends_in_carriage_returns(sample: bytes) -> bool:
    """Return whether more lines end in a carriage return alone than in a line feed."""
    return sample.count(b"\r") - sample.count(b"\r\n") > sample.count(b"\n")


def _split(chunks: Iterable[bytes], ends: re.Pattern[bytes]) -> Iterator[bytes]:
    """Yield the lines of a stream of bytes, with their ends."""
    held = b""
    for chunk in chunks:
        held += chunk
        start = 0
        for end in ends.finditer(held):
            # A carriage return at the end of a chunk may go on as a longer end in the next.
            if end.end() < len(held):
                yield held[start : end.end()]
                start = end.end()
        held = held[start:]
    start = 0
    for end in ends.finditer(held):
        yield held[start : end.end()]
        start = end.end()
    if start < len(held):
        yield held[start:]
