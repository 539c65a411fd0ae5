"""Lines of text in any script: what can be drawn of a text, where it wraps, and how it stands on an image."""

import math
import unicodedata
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import regex
from PIL import Image, ImageDraw, features

from t2i_core.reports.fonts import Face, Fonts

ELLIPSIS = "…"
# More than a few lines hold; a longer text is cut before it is measured.
MAX_CHARACTERS = 300

_CLUSTER = regex.compile(r"\X")
# Says how others are shown, and is nothing itself; but joiners and the tags of flags belong to what is seen.
_CONTROLS = regex.compile(r"(?V1)[[\p{Cc}\p{Cf}]--[\u200C\u200D\U000E0020-\U000E007F]]")
# Written without blanks: a line may end after each.
_IDEOGRAPH = regex.compile(r"[\p{Han}\p{Hiragana}\p{Katakana}、。，．！？：；」』）】〉》]")
# May not begin a line.
_CLOSING = regex.compile(r"\p{Pe}|\p{Pf}|[、。，．！？：；!?,.:;…]")

Cluster = tuple[str, Face]  # a character with its marks, and the font that has it


@dataclass(frozen=True, slots=True)
class Run:
    """A part of a line in one font and one direction. An odd level is written from right to left."""

    text: str
    face: Face
    level: int


class Typesetter:
    """Fits texts into lines, and draws them, in the fonts of one size."""

    def __init__(self, fonts: Fonts) -> None:
        self._fonts = fonts
        self._shapes = features.check("raqm")  # joins Arabic letters, and knows directions

    def drawable(self, text: str, name: str) -> str:
        """Return a text with an ellipsis for what no font can draw, after the `name` by which to look it up.

        The name alone, where nothing of the text can be drawn; the text alone, where all of it can.
        """
        parts, complete = [], True
        for known, clusters in groupby(_clusters(text), lambda cluster: self._fonts.of(cluster) is not None):
            parts.append("".join(clusters) if known else ELLIPSIS)
            complete = complete and known
        if complete:
            return "".join(parts)
        shown = regex.sub(r"…(\s*…)+", ELLIPSIS, "".join(parts))
        return f"{name}: {shown}" if regex.search(r"[\p{L}\p{N}]", shown) else name

    def fit(self, text: str, width: int, lines: int) -> list[str]:
        """Return a text as lines of at most `width` pixels; one that does not fit ends in an ellipsis.

        What no font can draw is left out: `drawable` says where that is.
        """
        rest = [cluster for cluster in _clusters(text) if self._fonts.of(cluster) is not None]
        result: list[str] = []
        while rest and len(result) < lines:
            ending = ELLIPSIS if len(result) == lines - 1 else ""
            count = self._fitting(rest, width, "")
            if count == len(rest):
                ending = ""
            else:
                count = _break(rest, self._fitting(rest, width, ending))
            result.append("".join(rest[:count]).strip() + ending)
            rest = rest[count:]
            if rest and rest[0].isspace():
                rest = rest[1:]
        return result

    def width(self, line: str) -> float:
        """Return the width of a line in pixels."""
        return sum(self._run_width(run) for run in self._runs(line))

    def draw(self, sheet: Image.Image, position: tuple[int, int], line: str) -> None:
        """Draw a line in black; `position` is where its base line begins, at the left."""
        x, y = float(position[0]), position[1]
        for run in _in_visual_order(self._runs(line)):
            self._draw_run(sheet, x, y, run)
            x += self._run_width(run)

    def _fitting(self, clusters: Sequence[str], width: int, ending: str) -> int:
        """Return how many of the first clusters fit, with `ending` after them; one at least."""

        def pixels(count: int) -> int:
            return math.ceil(self.width("".join(clusters[:count]) + ending))

        return max(1, bisect_right(range(1, len(clusters) + 1), width, key=pixels))

    def _runs(self, line: str) -> list[Run]:
        """Return the runs of a line in logical order."""
        clusters = _clusters(line)
        faces: list[Face] = []
        for cluster in clusters:
            # A blank belongs to the word before it: a run for it alone would part what is shaped together.
            blank = cluster.isspace() and bool(faces) and not faces[-1].is_emoji
            faces.append(faces[-1] if blank else self._fonts.of(cluster) or self._fonts.first)
        parts = zip(clusters, faces, _levels(clusters), strict=True)
        runs = []
        for (face, level), part in groupby(parts, lambda part: part[1:]):
            runs.append(Run("".join(cluster for cluster, *_ in part), face, level))
        return runs

    def _run_width(self, run: Run) -> float:
        text, direction = self._shaped(run)
        return run.face.font.getlength(text, direction=direction) * self._scale(run)

    def _draw_run(self, sheet: Image.Image, x: float, y: int, run: Run) -> None:
        font, scale = run.face.font, self._scale(run)
        text, direction = self._shaped(run)
        left, top, right, bottom = font.getbbox(text, direction=direction, anchor="ls")
        # Room around it, and the base line at a pixel of the sheet.
        left, top, right, bottom = (
            math.floor(left * scale) - 1,
            math.floor(top * scale) - 1,
            math.ceil(right * scale) + 1,
            math.ceil(bottom * scale) + 1,
        )
        large = Image.new("RGBA", (round((right - left) / scale), round((bottom - top) / scale)), (0, 0, 0, 0))
        place = (-left / scale, -top / scale)
        ImageDraw.Draw(large).text(
            place, text, fill="black", font=font, anchor="ls", direction=direction, embedded_color=True
        )
        small = large.resize((right - left, bottom - top), Image.Resampling.LANCZOS)
        sheet.paste(small, (round(x) + left, y + top), small)

    def _scale(self, run: Run) -> float:
        return self._fonts.size / run.face.size

    def _shaped(self, run: Run) -> tuple[str, str | None]:
        """Return (text, direction) as Pillow takes them."""
        if self._shapes:
            return run.text, "rtl" if run.level % 2 else "ltr"
        # Without the library that knows directions, letters stand in their order from right to left, unjoined.
        return ("".join(reversed(_clusters(run.text))) if run.level % 2 else run.text), None


def _clusters(text: str) -> list[str]:
    """Return what a reader sees as single characters: each with its marks, blanks as one."""
    line = " ".join(unicodedata.normalize("NFC", text[:MAX_CHARACTERS]).split())
    clusters: list[str] = _CLUSTER.findall(_CONTROLS.sub("", line))
    return clusters


def _break(clusters: Sequence[str], count: int) -> int:
    """Return where to end a line of which `count` clusters fit: between words, after a hyphen, between ideographs."""
    for end in range(count, 0, -1):
        if clusters[end].isspace() or clusters[end - 1] in (" ", "-"):
            return end
        ideograph = _IDEOGRAPH.match(clusters[end - 1]) or _IDEOGRAPH.match(clusters[end])
        if ideograph and not _CLOSING.match(clusters[end]):
            return end
    return count


def _levels(clusters: Sequence[str]) -> list[int]:
    """Return the level of each cluster, by the rules of Unicode's bidirectional algorithm for plain lines.

    Odd levels are written from right to left. The line has the direction of its first letter.
    """
    kinds = [_direction(cluster) for cluster in clusters]
    base = 1 if next((kind for kind in kinds if kind in "LR"), "L") == "R" else 0
    strong = "R" if base else "L"
    for i, kind in enumerate(kinds):
        if kind == "N" and strong == "L":
            kinds[i] = "L"  # a number after a word of this direction is a part of it
        strong = kind if kind in "LR" else strong
    levels = {"L": 2 if base else 0, "R": 1, "N": 2, " ": base}
    return [levels[_between(kinds, i) if kind == " " else kind] for i, kind in enumerate(kinds)]


def _between(kinds: Sequence[str], index: int) -> str:
    """Return the direction that what is before and after a blank have in common; a blank if they differ.

    A number counts as a part of what is written from right to left.
    """
    before = next((kind for kind in reversed(kinds[:index]) if kind != " "), " ")
    after = next((kind for kind in kinds[index:] if kind != " "), " ")
    return before.replace("N", "R") if before.replace("N", "R") == after.replace("N", "R") else " "


def _direction(cluster: str) -> str:
    """Return L or R for a letter of that direction, N for a number, and a blank for whatever follows the others."""
    kinds = {"L": "L", "R": "R", "AL": "R", "EN": "N", "AN": "N"}
    return kinds.get(unicodedata.bidirectional(cluster[0]), " ")


def _in_visual_order(runs: Sequence[Run]) -> Iterator[Run]:
    """Yield the runs of a line from left to right."""
    order = list(runs)
    for level in range(max((run.level for run in order), default=0), 0, -1):
        start = 0
        for inside, part in groupby([run.level >= level for run in order]):
            end = start + len(list(part))
            if inside:
                order[start:end] = reversed(order[start:end])
            start = end
    return iter(order)
