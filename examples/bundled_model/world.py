"""The little world the demo model knows: two dozen objects, five shapes, eight colours, sixteen places.

Everything that can be in a picture is listed here once; scenes are drawn from it (`scenes.py`), captions are worded
from it (`captions.py`) and the layout labels of the text encoders are counted from it (`layout.py`).
"""

import zlib
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple


class Habitat(StrEnum):
    """Where a lone object stands, and which verbs suit it."""

    GROUND = "ground"
    WATER = "water"
    SKY = "sky"


@dataclass(frozen=True)
class Glyph:
    """An object drawn with one glyph of the emoji font, and the words that name it."""

    character: str
    singular: tuple[str, ...]
    plural: tuple[str, ...]
    habitat: Habitat = Habitat.GROUND


# The first twelve are the training's first lesson (`Lesson.objects` in scenes.py); the rest join later.
OBJECTS: dict[str, Glyph] = {
    "fox": Glyph("🦊", ("fox",), ("foxes",)),
    "pine": Glyph("🌲", ("pine", "pine tree", "fir"), ("pines", "pine trees", "firs")),
    "surfer": Glyph("🏄", ("surfer",), ("surfers",), Habitat.WATER),
    "kite": Glyph("🪁", ("kite",), ("kites",), Habitat.SKY),
    "cat": Glyph("🐱", ("cat", "kitten"), ("cats", "kittens")),
    "penguin": Glyph("🐧", ("penguin",), ("penguins",)),
    "house": Glyph("🏠", ("house", "cottage", "home"), ("houses", "cottages", "homes")),
    "boat": Glyph("⛵", ("boat", "sailboat", "ship"), ("boats", "sailboats", "ships"), Habitat.WATER),
    "flower": Glyph("🌻", ("flower", "sunflower"), ("flowers", "sunflowers")),
    "moon": Glyph("🌙", ("moon", "crescent moon"), ("moons", "crescent moons"), Habitat.SKY),
    "mushroom": Glyph("🍄", ("mushroom", "toadstool"), ("mushrooms", "toadstools")),
    "car": Glyph("🚗", ("car",), ("cars",)),
    "rabbit": Glyph("🐰", ("rabbit", "bunny"), ("rabbits", "bunnies")),
    "frog": Glyph("🐸", ("frog",), ("frogs",)),
    "owl": Glyph("🦉", ("owl",), ("owls",)),
    "butterfly": Glyph("🦋", ("butterfly",), ("butterflies",), Habitat.SKY),
    "fish": Glyph("🐠", ("fish",), ("fish",), Habitat.WATER),
    "whale": Glyph("🐳", ("whale",), ("whales",), Habitat.WATER),
    "turtle": Glyph("🐢", ("turtle", "tortoise"), ("turtles", "tortoises")),
    "palm": Glyph("🌴", ("palm", "palm tree"), ("palms", "palm trees")),
    "cactus": Glyph("🌵", ("cactus",), ("cacti",)),
    "apple": Glyph("🍎", ("apple",), ("apples",)),
    "castle": Glyph("🏰", ("castle",), ("castles",)),
    "balloon": Glyph("🎈", ("balloon",), ("balloons",), Habitat.SKY),
}

SHAPES = ("circle", "square", "triangle", "star", "diamond")

Colour = tuple[int, int, int]

COLOURS: dict[str, Colour] = {
    "red": (220, 40, 40),
    "green": (40, 165, 70),
    "blue": (45, 85, 225),
    "yellow": (245, 215, 50),
    "orange": (245, 140, 30),
    "purple": (140, 60, 180),
    "white": (245, 245, 245),
    "black": (25, 25, 25),
}

PLAIN: dict[str, Colour] = {
    "white": COLOURS["white"],
    "black": COLOURS["black"],
    "gray": (150, 150, 150),
    "pink": (250, 190, 205),
    "blue": COLOURS["blue"],
    "green": COLOURS["green"],
    "yellow": COLOURS["yellow"],
    "red": COLOURS["red"],
}

# Top and bottom colour of each vertical gradient.
SKIES: dict[str, tuple[Colour, Colour]] = {
    "clear": ((95, 175, 250), (185, 225, 255)),
    "cloudy": ((120, 135, 150), (190, 200, 208)),
    "dusk": ((75, 45, 120), (250, 140, 80)),
    "night": ((10, 12, 40), (40, 45, 95)),
}
GROUNDS: dict[str, tuple[Colour, Colour]] = {
    "meadow": ((90, 180, 70), (50, 135, 50)),
    "snow": ((250, 252, 255), (205, 220, 240)),
    "sea": ((20, 150, 140), (10, 90, 110)),
    "desert": ((240, 205, 130), (215, 165, 85)),
}


class Thing(NamedTuple):
    """An object (`Thing("fox")`) or a coloured shape (`Thing("star", "red")`)."""

    name: str
    colour: str = ""


class Backdrop(NamedTuple):
    """A plain colour (`Backdrop(plain="pink")`) or a place (`Backdrop(sky="dusk", ground="snow")`)."""

    plain: str = ""
    sky: str = ""
    ground: str = ""


WHITE = Backdrop(plain="white")
PLACES = tuple(Backdrop(sky=sky, ground=ground) for sky in SKIES for ground in GROUNDS)
PLAINS = tuple(Backdrop(plain=colour) for colour in PLAIN)

# Never held out: the two example prompts of the reference, which the demo has to draw.
_EXAMPLES = frozenset({"fox", "pine"}), frozenset({"kite", "surfer"})
_EXAMPLE_PLACES = {
    *((Thing(name), Backdrop(sky="dusk", ground="snow")) for name in ("fox", "pine")),
    *((Thing(name), Backdrop(sky="cloudy", ground="sea")) for name in ("kite", "surfer")),
}


def _one_in_eight(key: str) -> bool:
    """A fixed, arbitrary eighth of all keys: the same on every machine and in every Python."""
    return zlib.crc32(key.encode()) % 8 == 0


def is_held_out_pair(first: Thing, second: Thing) -> bool:
    """Whether training never shows these two things in one picture, in either order."""
    if frozenset({first.name, second.name}) in _EXAMPLES:
        return False
    return _one_in_eight(" + ".join(sorted(f"{thing.colour} {thing.name}" for thing in (first, second))))


def is_held_out_place(thing: Thing, backdrop: Backdrop) -> bool:
    """Whether training never shows this thing before this background (white, the default, is always shown)."""
    if backdrop == WHITE or (thing, backdrop) in _EXAMPLE_PLACES:
        return False
    return _one_in_eight(f"{thing.colour} {thing.name} @ {'/'.join(backdrop)}")
