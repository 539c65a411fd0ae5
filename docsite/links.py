"""Links and anchors of the Markdown files, as GitHub reads them."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from posixpath import dirname, join, normpath

_FENCE = re.compile(r"^```.*?^```[^\n]*$", re.DOTALL | re.MULTILINE)
# Code in a line, which a link may stand in; then [text](target), the text without a link in it.
_LINK = re.compile(
    r"(?P<code>`+)(?!`).+?(?<!`)(?P=code)(?!`)|(?P<before>!?\[(?P<text>[^\]]*)\]\()(?P<target>[^)\s]+)\)"
)
_HEADING = re.compile(r"^#{1,6} +(.+?) *#*$", re.MULTILINE)
_NO_SLUG = re.compile(r"[^\w\- ]")


def links(markdown: str) -> Iterator[str]:
    """Yield the targets of links and pictures."""
    for found in _LINK.finditer(_FENCE.sub("", markdown)):
        if found["target"]:
            yield found["target"]


def with_links(markdown: str, change: Callable[[str, str, str], str]) -> str:
    """Return a text in which `change(whole, text, target)` takes the place of each link outside of code."""

    def link(found: re.Match[str]) -> str:
        return found[0] if found["code"] else change(found[0], found["text"], found["target"])

    result, end = "", 0
    for fence in _FENCE.finditer(markdown):
        result += _LINK.sub(link, markdown[end : fence.start()]) + fence[0]
        end = fence.end()
    return result + _LINK.sub(link, markdown[end:])


def anchors(markdown: str) -> set[str]:
    """Return the anchors of the headings."""
    found: set[str] = set()
    for heading in _HEADING.findall(_FENCE.sub("", markdown)):
        slug = slugify(heading)
        number = 0
        while (name := f"{slug}-{number}" if number else slug) in found:
            number += 1
        found.add(name)
    return found


def slugify(heading: str) -> str:
    """Return the anchor of a heading."""
    return _NO_SLUG.sub("", heading.strip().lower()).replace(" ", "-")


def in_repository(page: str, target: str) -> tuple[str, str]:
    """Return (path from the root of the repository, anchor or nothing) of a link in a page of the repository."""
    path, _, anchor = target.partition("#")
    return (normpath(join(dirname(page), path)) if path else page), anchor


def is_elsewhere(target: str) -> bool:
    """Return whether a link leads out of the repository."""
    return "://" in target or target.startswith("mailto:")


def broken_links(root: Path, page: str) -> list[str]:
    """Return the links of a page that lead to no file, or to no heading of one."""
    broken = []
    for target in links((root / page).read_text(encoding="utf-8")):
        if is_elsewhere(target):
            continue
        path, anchor = in_repository(page, target)
        file = root / path
        if not file.exists() or (anchor and anchor not in anchors(file.read_text(encoding="utf-8"))):
            broken.append(f"{page}: {target}")
    return broken
