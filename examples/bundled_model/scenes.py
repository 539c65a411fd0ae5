"""Procedural scenes, 64x64 pixels: one to three things over a drawn background.

Objects are glyphs of Noto Color Emoji (SIL Open Font License 1.1; Debian package `fonts-noto-color-emoji`), shapes and
backgrounds are drawn. A scene is a small value from which both the picture (`render`) and its caption (`captions.py`)
follow, so a picture can always be checked against what it was asked to show.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from random import Random
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFont, ImageOps

from world import (
    COLOURS,
    GROUNDS,
    OBJECTS,
    PLACES,
    PLAIN,
    PLAINS,
    SHAPES,
    SKIES,
    Backdrop,
    Habitat,
    Thing,
    is_held_out_pair,
    is_held_out_place,
)

SIZE = 64
HORIZON = 36
STRIDE = 8  # the edge of an image token in pixels
FONT = "/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf"
_OVERSAMPLE = 4  # drawn four times larger, then reduced: smooth edges
_SHADE = {"clear": 1.0, "cloudy": 1.0, "dusk": 0.75, "night": 0.5}


class Relation(StrEnum):
    """How the things of a scene stand to each other; `first` is the one named by the relation."""

    ALONE = "alone"
    LEFT_OF = "left of"
    ABOVE = "above"
    BETWEEN = "between"  # one `first` between two of `second`
    KITE_SURFING = "kite surfing"  # a surfer below a kite, on the sea


@dataclass(frozen=True)
class Lesson:
    """What training draws at one time: few objects in one pose first, all objects at jittered places later.

    With `varied`, one caption has many pictures: place, size and direction of the things, horizon and sky differ.
    """

    objects: int
    jitter: float
    varied: bool = False


EVERYTHING = Lesson(objects=len(OBJECTS), jitter=0.5)
VARIED = Lesson(objects=len(OBJECTS), jitter=0.0, varied=True)


@dataclass(frozen=True)
class Placed:
    """A thing at its place: the centre and the edge length in pixels; `mirrored`: it faces the other way."""

    thing: Thing
    x: int
    y: int
    size: int
    mirrored: bool = False


class View(NamedTuple):
    """How a place is seen: the row of its horizon, and how many pixels to the right its clouds, stars and grass are."""

    horizon: int = HORIZON
    shift: int = 0


STRAIGHT = View()
# Multiples of 8 pixels, the edge of an image token: what a token shows stays the same, only its position changes.
VIEWS = tuple(View(HORIZON + rise, shift) for rise in (0, -STRIDE, STRIDE) for shift in (0, 16, 32, 48))


@dataclass(frozen=True)
class Scene:
    """All that decides a picture."""

    backdrop: Backdrop
    relation: Relation
    first: Thing
    second: Thing | None
    placed: tuple[Placed, ...]
    view: View = STRAIGHT

    @property
    def is_held_out(self) -> bool:
        """Whether a pair of things, or a thing with its background, is kept from training for the evaluation."""
        if self.second is not None and is_held_out_pair(self.first, self.second):
            return True
        return any(is_held_out_place(placed.thing, self.backdrop) for placed in self.placed)


def sample_scene(rng: Random, lesson: Lesson = EVERYTHING, *, held_out: bool = False) -> Scene:
    """Draw a scene that training may see, or with `held_out` one that it never sees."""
    return next(scene for scene in _scenes(rng, lesson) if scene.is_held_out == held_out)


def _scenes(rng: Random, lesson: Lesson) -> Iterator[Scene]:
    """Endless scenes; pairs and plain shapes, the hardest to learn, are drawn more often than their share."""
    objects = [Thing(name) for name in list(OBJECTS)[: lesson.objects]]
    shapes = [Thing(shape, colour) for shape in SHAPES for colour in COLOURS]
    while True:
        if rng.random() < 0.04:
            place = Backdrop(sky=rng.choice(list(SKIES)), ground="sea")
            yield arrange(rng, place, Relation.KITE_SURFING, Thing("surfer"), Thing("kite"), lesson)
            continue
        backdrop, things = rng.choice(PLACES), objects
        if rng.random() < 0.36:
            backdrop = rng.choice(PLAINS)
            if rng.random() < 0.7:
                things = [shape for shape in shapes if shape.colour != backdrop.plain]
        kinds = (Relation.ALONE, Relation.LEFT_OF, Relation.ABOVE, Relation.BETWEEN)
        relation = rng.choices(kinds, weights=(34, 28, 23, 15))[0]
        first, second = rng.sample(things, 2)
        if relation is Relation.BETWEEN and backdrop.ground and first.name != "pine" and rng.random() < 0.25:
            second = Thing("pine")
        yield arrange(rng, backdrop, relation, first, None if relation is Relation.ALONE else second, lesson)


def arrange(
    rng: Random, backdrop: Backdrop, relation: Relation, first: Thing, second: Thing | None, lesson: Lesson
) -> Scene:
    """Give every thing its place. `jitter` 0 is one fixed pose, 1 moves things by up to 4 pixels."""
    jitter = lesson.jitter

    def near(x: int, y: int, dx: int, dy: int, thing: Thing, size: int) -> Placed:
        dx, dy = round(dx * jitter), round(dy * jitter)
        return Placed(thing, x + rng.randint(-dx, dx), y + rng.randint(-dy, dy), size)

    level = 42 if backdrop.ground else 32
    if second is None:
        if backdrop.ground and first.name in OBJECTS:
            level = {Habitat.GROUND: 41, Habitat.WATER: 43, Habitat.SKY: 22}[OBJECTS[first.name].habitat]
        size = 36 - 2 * rng.randint(0, round(3 * jitter))
        placed = [near(32, level, 4, 3, first, size)]
    elif relation is Relation.KITE_SURFING:
        placed = [near(32, 45, 4, 2, first, 30), near(46, 14, 3, 2, second, 22)]
    elif relation is Relation.LEFT_OF:
        placed = [near(17, level, 2, 3, first, 26), near(47, level, 2, 3, second, 26)]
    elif relation is Relation.ABOVE:
        placed = [near(32, 16, 4, 2, first, 26), near(32, 47, 4, 2, second, 26)]
    else:
        sides = [near(x, level - 2, 1, 2, second, 20) for x in (11, 53)]
        placed = [*sides, near(32, level + 2, 1, 2, first, 22)]
    if not lesson.varied:
        return Scene(backdrop, relation, first, second, tuple(placed))
    varied = tuple(_vary(rng, thing, relation) for thing in placed)
    return Scene(backdrop, relation, first, second, varied, STRAIGHT if backdrop.plain else rng.choice(VIEWS))


def _vary(rng: Random, placed: Placed, relation: Relation) -> Placed:
    """Return a thing smaller or not, mirrored or not, and moved by whole tokens where its relation leaves it room."""
    return rng.choice(variants(placed, relation))


@cache
def variants(placed: Placed, relation: Relation) -> tuple[Placed, ...]:
    """Return all that `_vary` may make of a thing: inside the picture, and in the part that its relation gives it."""
    sizes = {Relation.ALONE: (36, 26), Relation.LEFT_OF: (26, 20), Relation.ABOVE: (26, 20)}
    left, right = (0, SIZE)
    if relation is Relation.LEFT_OF or relation is Relation.BETWEEN:
        left, right = placed.x - placed.size // 2 - 1, placed.x + placed.size // 2 + 1
    top, bottom = (0, SIZE)
    if relation in (Relation.ABOVE, Relation.KITE_SURFING):
        top, bottom = placed.y - placed.size // 2 - 1, placed.y + placed.size // 2 + 1
    elif relation is Relation.ALONE and placed.y < 32:  # what flies stays above the horizon
        bottom = 44
    elif placed.y > 32:  # what stands stays on the ground
        top = placed.y - placed.size // 2
    found = []
    for size in sizes.get(relation, (placed.size,)):
        half = size // 2
        for x in (placed.x + STRIDE * steps for steps in (0, -1, 1, -2, 2)):
            for y in (placed.y + STRIDE * steps for steps in (0, -1, 1)):
                if left <= x - half and x + half <= right and top <= y - half and y + half <= bottom:
                    found += [Placed(placed.thing, x, y, size, mirrored) for mirrored in (False, True)]
    return tuple(found)


def render(scene: Scene) -> Image.Image:
    """The picture of a scene: RGB, 64x64."""
    image = backdrop_image(scene.backdrop, scene.view).copy()
    for placed in scene.placed:
        picture = thing_image(placed.thing, placed.size, placed.mirrored)
        image.paste(picture, (placed.x - placed.size // 2, placed.y - placed.size // 2), picture)
    return image


@cache
def thing_image(thing: Thing, size: int, mirrored: bool = False) -> Image.Image:
    """A thing on a transparent square of `size` pixels."""
    image = _shape_image(thing, size) if thing.colour else _glyph_image(thing.name, size)
    return ImageOps.mirror(image) if mirrored else image


@cache
def _font() -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(FONT, 109)  # the one size the font's bitmaps have


def _glyph_image(name: str, size: int) -> Image.Image:
    glyph = Image.new("RGBA", (136, 136), (0, 0, 0, 0))
    ImageDraw.Draw(glyph).text((0, 4), OBJECTS[name].character, font=_font(), embedded_color=True)
    glyph = glyph.crop(glyph.getbbox())
    edge = max(glyph.size)
    square = Image.new("RGBA", (edge, edge), (0, 0, 0, 0))
    square.paste(glyph, ((edge - glyph.width) // 2, (edge - glyph.height) // 2))
    return square.resize((size, size), Image.Resampling.LANCZOS)


def _shape_image(thing: Thing, size: int) -> Image.Image:
    edge = size * _OVERSAMPLE
    colour = COLOURS[thing.colour]
    image = Image.new("RGBA", (edge, edge), (*colour, 0))
    draw = ImageDraw.Draw(image)
    middle = edge / 2
    if thing.name == "circle":
        draw.ellipse((0, 0, edge - 1, edge - 1), fill=colour)
    elif thing.name == "square":
        draw.rectangle((edge * 0.06, edge * 0.06, edge * 0.94, edge * 0.94), fill=colour)
    elif thing.name == "triangle":
        draw.polygon([(middle, 0), (edge - 1, edge * 0.92), (0, edge * 0.92)], fill=colour)
    elif thing.name == "diamond":
        draw.polygon([(middle, 0), (edge - 1, middle), (middle, edge - 1), (0, middle)], fill=colour)
    else:
        radii = [middle * (1 if point % 2 == 0 else 0.42) for point in range(10)]
        angles = [math.pi * point / 5 for point in range(10)]
        draw.polygon(
            [(middle + r * math.sin(a), middle - r * math.cos(a)) for r, a in zip(radii, angles, strict=True)],
            fill=colour,
        )
    return image.resize((size, size), Image.Resampling.LANCZOS)


@cache
def backdrop_image(backdrop: Backdrop, view: View = STRAIGHT) -> Image.Image:
    """The background alone. Shared between callers: copy it before drawing on it."""
    if backdrop.plain:
        return Image.new("RGB", (SIZE, SIZE), PLAIN[backdrop.plain])
    shade = _SHADE[backdrop.sky]
    sky = _gradient(*SKIES[backdrop.sky], view.horizon)
    ground = _gradient(*GROUNDS[backdrop.ground], SIZE - view.horizon) * shade
    pixels = np.broadcast_to(np.concatenate([sky, ground]), (SIZE, SIZE, 3)).astype(np.uint8)
    edge = SIZE * _OVERSAMPLE
    image = Image.fromarray(pixels).resize((edge, edge), Image.Resampling.BICUBIC)
    _draw_sky(ImageDraw.Draw(image), backdrop.sky)
    _draw_ground(ImageDraw.Draw(image), backdrop.ground, shade, view.horizon)
    return ImageChops.offset(image.resize((SIZE, SIZE), Image.Resampling.LANCZOS), view.shift, 0)


def _gradient(top: tuple[int, int, int], bottom: tuple[int, int, int], rows: int) -> np.ndarray:
    fade = np.linspace(0, 1, rows)[:, None, None]
    return np.array(top) * (1 - fade) + np.array(bottom) * fade


def _draw_sky(draw: ImageDraw.ImageDraw, sky: str) -> None:
    scale = _OVERSAMPLE
    if sky == "cloudy":
        for x, y in ((10, 7), (34, 11), (56, 6)):
            for dx, dy, radius in ((-6, 1, 4), (0, -1, 6), (6, 1, 4)):
                wide, high = radius * 1.3, radius * 0.8
                box = (x + dx - wide, y + dy - high, x + dx + wide, y + dy + high)
                draw.ellipse([scale * side for side in box], fill=(232, 236, 240))
    elif sky == "night":
        for x, y in ((6, 6), (18, 14), (29, 4), (41, 10), (53, 5), (60, 17), (11, 25), (36, 22), (50, 26)):
            draw.ellipse([scale * side for side in (x - 1, y - 1, x + 1, y + 1)], fill=(250, 245, 200))


def _draw_ground(draw: ImageDraw.ImageDraw, ground: str, shade: float, horizon: int) -> None:
    scale, down = _OVERSAMPLE, horizon - HORIZON
    if ground == "sea":
        foam = tuple(int(shade * part) for part in (150, 235, 220))
        for row, y in enumerate((40, 47, 54, 61, 68)):
            wave = [y + down + 1.5 * math.sin(x / SIZE * 8 * math.pi + row * 1.6) for x in range(SIZE + 1)]
            draw.line([(scale * x, scale * height) for x, height in enumerate(wave)], fill=foam, width=5)
    elif ground == "meadow":
        grass = tuple(int(shade * part) for part in (35, 110, 40))
        for x, y in ((7, 43), (20, 52), (35, 44), (49, 56), (58, 46), (10, 60), (30, 61), (45, 68), (18, 69)):
            for lean in (-1.5, 0, 1.5):
                draw.line(
                    [(scale * x, scale * (y + down)), (scale * (x + lean), scale * (y + down - 3))], fill=grass, width=3
                )
