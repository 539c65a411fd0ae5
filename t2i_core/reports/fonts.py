"""Fonts for captions: one that comes with the package, then those that this machine has."""

import functools
import os
import subprocess
import sys
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import regex
from PIL import ImageFont

from t2i_core.bundled import CAPTION_FONT

FontFile = tuple[str, int]  # path, number of the font in it

SUFFIXES = (".ttf", ".otf", ".ttc", ".otc")
FC_LIST_SECONDS = 10
# Fonts are opened so many times larger than they are shown: a small size would round the place of each letter.
OVERSAMPLING = 4
# Where a font of bitmaps cannot be opened in the size asked for: those that emoji fonts have, in pixels.
BITMAP_SIZES = (109, 128, 136, 160, 96, 64, 32)
# After so many characters of a script that no font has, and none that one has, the others are not looked for: it would
# take every font to be asked for each.
HOPELESS = 3

# Written upright, of usual width and weight.
_PLAIN_STYLES = {"regular", "book", "roman", "normal", "standard", "plain", ""}
# Of a caption's size these are hard to read, or higher than a line.
_LAST_CHOICE = regex.compile(r"Serif|Mono|Nastaliq|Rashi|Kufi|Looped|Display|Condensed|Unifont", regex.IGNORECASE)
# It has a box for each character there is.
_NO_FONT = regex.compile(r"Last\s*Resort|Adobe Blank", regex.IGNORECASE)
# Shown in colour where nothing else is said, or asked to be.
_EMOJI = regex.compile(r"\p{Emoji_Presentation}|\uFE0F")
# What is seen: the others have no glyph of their own.
_SEEN = regex.compile(r"[^\p{Default_Ignorable_Code_Point}\p{Zs}]")
# Of no known meaning: a font may have them, but shows something else.
_MEANINGLESS = regex.compile(r"[\p{Cs}\p{Co}\p{Cn}]")


class Face:
    """A font of a file, opened in some size, which may be larger than that in which it is shown."""

    def __init__(self, file: FontFile, size: int) -> None:
        """Raise OSError for a file that is no font, or has bitmaps only and none of that size, in pixels."""
        self.size = size
        self._file = file
        # Glyph by glyph: shaping would show a circle in place of a mark that the font lacks.
        self._glyphs = ImageFont.truetype(file[0], size, file[1], layout_engine=ImageFont.Layout.BASIC)
        self.family, self.style = (name or "" for name in self._glyphs.getname())
        self._unknown = self._glyph("\U0010ffff")  # which is no character: most fonts draw a box
        self._has: dict[str, bool] = {}

    @property
    def is_emoji(self) -> bool:
        """Whether it is there for emoji. It may have digits, too, for keys."""
        return "Emoji" in self.family

    @functools.cached_property
    def font(self) -> ImageFont.FreeTypeFont:
        """The font to draw with, which shapes the text where Pillow can."""
        return ImageFont.truetype(self._file[0], self.size, self._file[1])

    def has(self, text: str) -> bool:
        """Return whether the font has a glyph for each character of `text` that is seen."""
        return all(self._has_glyph(character) for character in _SEEN.findall(text))

    def _has_glyph(self, character: str) -> bool:
        if character not in self._has:
            self._has[character] = self._glyph(character) not in (None, self._unknown)
        return self._has[character]

    def _glyph(self, character: str) -> tuple[tuple[int, int], bytes] | None:
        """Return (size, pixels) of what is drawn for a character; None if nothing is seen."""
        with suppress(OSError, ValueError):  # of a torn file
            mask = self._glyphs.getmask(character)
            return (mask.size, bytes(mask)) if mask.getbbox() else None
        return None


class Fonts:
    """The fonts of one size. Those of the machine are opened when the first one fails."""

    def __init__(self, size: int, files: Iterable[FontFile] | None = None) -> None:
        """`files`: the fonts to choose from after the first one; None: all of this machine."""
        self.size = size
        self.first = Face((str(CAPTION_FONT), 0), size * OVERSAMPLING)
        self._files = files
        self._chosen: dict[str, Face | None] = {}
        self._found: Counter[str] = Counter()
        self._missed: Counter[str] = Counter()

    def of(self, cluster: str) -> Face | None:
        """Return the font in which one character (with its marks) can be drawn; None if there is none."""
        if cluster not in self._chosen:
            self._chosen[cluster] = self._choose(cluster)
        return self._chosen[cluster]

    def _choose(self, cluster: str) -> Face | None:
        if _MEANINGLESS.search(cluster):
            return None
        if self.first.has(cluster):
            return self.first
        script = _script(cluster)
        if self._missed[script] >= HOPELESS and not self._found[script]:
            return None
        faces = sorted(self._others, key=lambda face: face.is_emoji, reverse=bool(_EMOJI.search(cluster)))
        face = next((face for face in faces if face.has(cluster)), None)
        (self._missed if face is None else self._found)[script] += 1
        return face

    @functools.cached_property
    def _others(self) -> Sequence[Face]:
        """The fonts of the machine, those first that are easy to read."""
        files = font_files() if self._files is None else self._files
        faces = [face for file in files if (face := _open(file, self.size)) is not None]
        return sorted((face for face in faces if not _NO_FONT.search(face.family)), key=_preference)


@functools.cache
def fonts_of_size(size: int) -> Fonts:
    """Return the fonts in a size, in pixels; opened once a process."""
    return Fonts(size)


def _open(file: FontFile, size: int) -> Face | None:
    """Return a font to be shown in `size` pixels; None for a file that is none, or is torn."""
    for pixels in (size * OVERSAMPLING, *BITMAP_SIZES):
        with suppress(OSError):
            return Face(file, pixels)
    return None


@functools.cache
def font_files() -> tuple[FontFile, ...]:
    """Return the fonts of this machine: by fontconfig where it is installed, else by the usual folders."""
    return tuple(dict.fromkeys(_by_fontconfig() or _by_folders()))


def _by_fontconfig() -> list[FontFile]:
    command = ["fc-list", "--format", "%{file}\t%{index}\n"]
    try:
        done = subprocess.run(command, capture_output=True, timeout=FC_LIST_SECONDS, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    found = []
    for line in done.stdout.splitlines():
        path, _, number = os.fsdecode(line).rpartition("\t")
        # A variable font is listed once more for each of its named instances, with a number of its own.
        if path.lower().endswith(SUFFIXES) and number.isdigit() and int(number) < 1 << 16:
            found.append((path, int(number)))
    return sorted(found)


def _by_folders() -> list[FontFile]:
    found = []
    for folder in _font_folders():
        for directory, _, names in os.walk(folder):
            for name in names:
                path = os.path.join(directory, name)  # noqa: PTH118 - thousands of files
                if name.lower().endswith((".ttc", ".otc")):
                    found += [(path, number) for number in range(_count(path))]
                elif name.lower().endswith(SUFFIXES):
                    found.append((path, 0))
    return sorted(found)


def _font_folders() -> Iterator[Path]:
    """Yield where systems of this kind keep their fonts."""
    home = Path(os.path.expanduser("~"))  # noqa: PTH111 - `Path.home` raises where there is none
    if sys.platform == "darwin":
        yield from (Path("/System/Library/Fonts"), Path("/Library/Fonts"), home / "Library/Fonts")
    elif sys.platform == "win32":
        yield Path(os.environ.get("WINDIR", r"C:\Windows")) / "Fonts"
        yield Path(os.environ.get("LOCALAPPDATA", str(home))) / "Microsoft" / "Windows" / "Fonts"
    else:
        yield from (Path("/usr/share/fonts"), Path("/usr/local/share/fonts"))
        yield from (home / ".local/share/fonts", home / ".fonts")


def _count(path: str) -> int:
    """Return how many fonts a collection says it has; 0 for what is no collection."""
    with suppress(OSError), open(path, "rb") as file:
        head = file.read(12)
        if head[:4] == b"ttcf" and len(head) == 12:
            return min(int.from_bytes(head[8:], "big"), 1 << 8)
    return 0


def _preference(face: Face) -> tuple[bool, bool, bool, bool, str]:
    """Return what fonts are sorted by. Of a family for Chinese, Japanese and Korean it prefers that for Chinese."""
    family = face.family
    return (
        face.style.lower() not in _PLAIN_STYLES,
        bool(_LAST_CHOICE.search(family)),
        "Sans" not in family,
        not family.endswith(" SC"),
        family,
    )


def _script(cluster: str) -> str:
    """Return the script of a letter, by its name; of another character, its category."""
    character = (_SEEN.findall(cluster) or cluster)[0]
    category = unicodedata.category(character)
    return unicodedata.name(character, "").partition(" ")[0] if category[0] in "LMN" else category
