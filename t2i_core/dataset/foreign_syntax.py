"""Prompts that carry another tool's syntax: they are generated as they are, and the log says so once."""

import logging
import re
from collections import Counter

from t2i_core.dataset.cells import is_no_value, is_written_value
from t2i_core.dataset.rows import Row
from t2i_core.errors import shorten

log = logging.getLogger(__name__)

_WEIGHT = re.compile(r":(?<=[^\d\s()\[\]:]:)\s*-?(\d?\.\d+|\d)\s*[)\]]")
# As people know it -> (characters that it always has, its form). A new one needs its characters in `may_carry`, too.
SYNTAX = {
    "--steps 20": ("--", re.compile(r"--(?<!\S--)[A-Za-z][\w-]*")),
    "(word:1.3)": (":", _WEIGHT),
    "((word))": ("((", re.compile(r"\(\([^()]+\)\)")),
    "<lora:...>": ("<", re.compile(r"<(lora|lyco|lycoris|hypernet|wildcard|ppp):[^<>]*>", re.IGNORECASE)),
    "<image>": ("<", re.compile(r"<(image|video|audio)>")),
    "__wildcard__": ("__", re.compile(r"__(?=[\w/*-]{0,80}?[^\W_])[\w/*-]{1,80}?__|__\*+__")),
    "{a|b}": ("|", re.compile(r"\{[^{}|]*\|[^{}]*\}")),
    "BREAK": ("BREAK", re.compile(r"(?<![A-Z]\s)\bBREAK\b(?!\s[A-Z]{2})")),
    "Negative prompt:": ("egative prompt:", re.compile(r"\b[Nn]egative prompt:")),
    "Steps: 20, Sampler: ...": ("Steps: ", re.compile(r"\bSteps: \d+, ")),
}
JSON_TEXT, NO_TEXT = "JSON", "nan or null"


class ForeignSyntax:
    """Counts the prompts that carry another tool's syntax, or data that was written as text."""

    def __init__(self) -> None:
        self.prompts = 0
        self.kinds: Counter[str] = Counter()
        self.first = ""

    def look_at(self, row: Row, text: str) -> None:
        """Count one prompt of a row, for which `may_carry` is true."""
        kinds = syntax_in(text)
        if kinds:
            self.prompts += 1
            self.kinds.update(kinds)
        if kinds and not self.first:
            place = f"row {row.index}" if row.line is None else f"line {row.line}"
            self.first = f"{f'{row.file}, ' if row.file else ''}{place}: {shorten(text[:200])}"

    def tell(self) -> None:
        """Log how many prompts carry which syntax, and the first one; nothing where there is none."""
        if self.prompts:
            kinds = ", ".join(f"{count:,} {kind}" for kind, count in self.kinds.most_common())
            log.warning(
                "prompts   %s carry another tool's syntax, or data written as text, and are generated as they are: %s; "
                "first in %s",
                *(f"{self.prompts:,}", kinds, self.first),
            )


def syntax_in(text: str) -> list[str]:
    """Return the kinds of syntax that a prompt carries."""
    if is_no_value(text):
        return [NO_TEXT]
    if text.lstrip()[0] in "[{" and is_written_value(text) and text.rstrip()[-1] in "]}":
        return [JSON_TEXT]
    return [kind for kind, (part, form) in SYNTAX.items() if part in text and form.search(text)]


def may_carry(text: str) -> bool:
    """Return False, quickly, for the text of most prompts."""
    return (
        "--" in text
        or "<" in text
        or "|" in text
        or "__" in text
        or "((" in text
        or "BREAK" in text
        or (":" in text and ("Steps: " in text or "egative prompt:" in text or _WEIGHT.search(text) is not None))
        or len(text) < 8
        or text[0] in "[{"
    )
