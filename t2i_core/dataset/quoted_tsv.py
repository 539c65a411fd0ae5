"""Whether the cells of tab-separated values are quoted: decided by what the known writers of such files do."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence

# A cell in quotation marks; or one that begins with one and is not closed as it should be; or one without.
_CELL = re.compile(r'(?P<quoted>"(?:[^"]|"")*+"(?=[\t\r\n]|$))|(?P<broken>"[^\t\r\n]*)|(?P<plain>[^\t\r\n]*)')
_NUMBER = re.compile(r"[-+]?[\d.,]+(?:[eE][-+]?\d+)?")


def is_quoted(lines: Sequence[str]) -> bool:
    """Return whether a table was written with quoted cells.

    Writers differ in what they quote: pandas what holds a tab, a line end or a quotation mark; Excel also what holds a
    comma; others everything, or everything but numbers. The cells must be as one of them writes: a natural text such
    as `"Brain" by night` is as none does.
    """
    if not any(line.startswith('"') or '\t"' in line for line in lines):
        return False
    counts = Counter(_kinds("".join(lines)))
    broken = counts["broken"] + counts["mark in plain"]
    by_need, by_comma, needless = counts["quoted by need"], counts["quoted comma"], counts["quoted needlessly"]
    writers = {  # cells that speak for it -> cells that speak against it
        "pandas": (by_need, broken + by_comma + needless),
        "excel": (by_need + by_comma, broken + needless + counts["plain comma"]),
        "everything": (by_need + by_comma + needless, broken + counts["plain comma"] + counts["plain text"]),
    }
    return any(against < support for support, against in writers.values())


def _kinds(text: str) -> Iterable[str]:
    """Yield what kind each cell is."""
    position = 0
    while position < len(text):
        match = _CELL.match(text, position)
        assert match is not None, "every alternative together matches anything"
        cell = match[0]
        position = match.end() + 1
        if match["broken"] is not None:
            yield "broken"
        elif match["quoted"] is not None:
            inner = cell[1:-1]
            need = '"' in inner or "\t" in inner or "\n" in inner or "\r" in inner
            yield "quoted by need" if need else "quoted comma" if "," in inner else "quoted needlessly"
        elif '"' in cell:
            yield "mark in plain"
        elif "," in cell:
            yield "plain comma"
        elif cell and not _NUMBER.fullmatch(cell):
            yield "plain text"
