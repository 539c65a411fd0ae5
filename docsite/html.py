"""Text of Python in a table of Markdown, where it is shown as it is."""

import html
import re
from collections.abc import Iterable, Sequence

# What Markdown or a table would take for its own.
_MARKUP = re.compile(r"[|*_\[\]`\\{}~^:!#]")


def plain(text: str) -> str:
    """Return a text as Markdown that shows exactly it; what stands in `backticks` is code."""
    pieces = text.split("`")
    return "".join(code(piece) if i % 2 and i < len(pieces) - 1 else escaped(piece) for i, piece in enumerate(pieces))


def code(text: str) -> str:
    """Return a text as Markdown that shows it as code."""
    return f"<code>{escaped(text)}</code>" if text else ""


def escaped(text: str) -> str:
    """Return a text as Markdown in which no character has a meaning."""
    return _MARKUP.sub(lambda found: f"&#{ord(found[0])};", html.escape(text, quote=False))


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table of cells that are Markdown already."""
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)
