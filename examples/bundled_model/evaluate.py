"""Measure what the demo model draws, read off the pixels, on captions that training never saw.

    python examples/bundled_model/evaluate.py training/pipeline

Every scene holds a pair of things, or a thing with its background, that was kept from training; every second caption
also uses kept wordings. What is in a picture is read without knowing what was asked for: the nearest of all drawn
backgrounds, and at every place where the relation puts a thing the nearest of all things, at any jitter and size. The
control scores the same readings against the captions of other pictures: it is what luck would reach.
"""

import argparse
import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from diffusers import FluxPipeline
from PIL import Image

from captions import caption
from loop import rng_of
from scenes import SIZE, Relation, Scene, arrange, backdrop_image, sample_scene, thing_image
from sheet import contact_sheet, generate
from world import COLOURS, OBJECTS, PLACES, PLAINS, SHAPES, WHITE, Backdrop, Thing

OBJECT_THINGS = tuple(Thing(name) for name in OBJECTS)
SHAPE_THINGS = tuple(Thing(shape, colour) for shape in SHAPES for colour in COLOURS)
_OUTLIER = 60.0**2  # a pixel this far off counts no more: things hide a part of every background


class Reading(NamedTuple):
    """What a picture shows: its background, and the thing at each place of the scene's relation."""

    backdrop: Backdrop
    things: tuple[Thing, ...]


def asked(scene: Scene) -> Reading:
    """What a picture of the scene should show."""
    return Reading(scene.backdrop, tuple(placed.thing for placed in scene.placed))


def read(image: Image.Image, relation: Relation) -> Reading:
    """Read a picture; of the scene only the relation is known, which says where to look."""
    pixels = np.asarray(image, dtype=np.float32)
    errors = {
        backdrop: np.minimum(((_backdrop(backdrop) - pixels) ** 2).mean(-1), _OUTLIER).mean()
        for backdrop in (*PLACES, *PLAINS)
    }
    backdrop = min(errors, key=errors.__getitem__)
    things = tuple(_nearest_thing(pixels, backdrop, anchors) for anchors in _anchors(relation, bool(backdrop.plain)))
    return Reading(backdrop, things)


class Anchor(NamedTuple):
    """A centre around which a thing may stand, and the sizes it may have."""

    x: int
    y: int
    sizes: tuple[int, ...]


def _anchors(relation: Relation, plain: bool) -> list[list[Anchor]]:
    """For every place of a relation the anchors to try; a lone thing may stand at any height."""
    if relation is Relation.ALONE:
        return [[Anchor(32, y, (30, 33, 36)) for y in ((32,) if plain else (22, 42))]]
    something = OBJECT_THINGS[0]
    backdrop = WHITE if plain else PLACES[0]
    scene = arrange(rng_of("anchors"), backdrop, relation, something, something, jitter=0)
    return [[Anchor(placed.x, placed.y, (placed.size,))] for placed in scene.placed]


def _nearest_thing(pixels: np.ndarray, backdrop: Backdrop, anchors: Sequence[Anchor]) -> Thing:
    """The thing that, pasted on the background near one of the anchors, comes nearest to the picture there."""
    background = _backdrop(backdrop)
    untouched = ((background - pixels) ** 2).sum(-1)
    reach = max(anchors[0].sizes) // 2 + 4
    left, right = max(anchors[0].x - reach, 0), anchors[0].x + reach
    top, bottom = max(min(anchor.y for anchor in anchors) - reach, 0), max(anchor.y for anchor in anchors) + reach
    window = untouched[top:bottom, left:right].sum()
    best, nearest = float("inf"), OBJECT_THINGS[0]
    for thing in (*OBJECT_THINGS, *SHAPE_THINGS) if backdrop.plain else OBJECT_THINGS:
        for rows, columns, size in _boxes(anchors):
            colour, alpha = _sprite(thing, size)
            pasted = background[rows, columns] * (1 - alpha) + colour * alpha
            touched = ((pasted - pixels[rows, columns]) ** 2).sum()
            error = window - untouched[rows, columns].sum() + touched
            if error < best:
                best, nearest = error, thing
    return nearest


def _boxes(anchors: Iterable[Anchor]) -> list[tuple[slice, slice, int]]:
    """All places that jitter can put a thing at, as rows, columns and size; those beyond the edge are left out."""
    boxes = []
    for x, y, sizes in anchors:
        for size in sizes:
            for dx in (-2, 0, 2):
                for dy in (-3, -1, 0, 1, 3):
                    left, top = x + dx - size // 2, y + dy - size // 2
                    if min(left, top) >= 0 and max(left, top) + size <= SIZE:
                        boxes.append((slice(top, top + size), slice(left, left + size), size))
    return boxes


@cache
def _backdrop(backdrop: Backdrop) -> np.ndarray:
    return np.asarray(backdrop_image(backdrop), dtype=np.float32)


@cache
def _sprite(thing: Thing, size: int) -> tuple[np.ndarray, np.ndarray]:
    """A thing's colours [size, size, 3] and its opacity [size, size, 1] in [0, 1]."""
    array = np.asarray(thing_image(thing, size), dtype=np.float32)
    return array[..., :3], array[..., 3:] / 255


def scores(pairs: Iterable[tuple[Reading, Reading]]) -> dict[str, tuple[int, int]]:
    """From (what was read, what was asked for) to right and all, for every property."""
    counts: dict[str, list[bool]] = defaultdict(list)
    for got, wanted in pairs:
        counts["background"].append(got.backdrop == wanted.backdrop)
        shapes = bool(wanted.things[0].colour)
        for found, thing in zip(got.things, wanted.things, strict=True):
            if shapes:
                counts["colour"].append(found.colour == thing.colour)
                counts["shape"].append(found.name == thing.name)
        if not shapes:
            name = "single object" if len(wanted.things) == 1 else "two objects, both right and in place"
            counts[name].append(got.things == wanted.things)
        elif len(wanted.things) > 1:
            counts["two shapes, all right and in place"].append(got.things == wanted.things)
    return {name: (sum(right), len(right)) for name, right in counts.items()}


def shuffled(scenes: Sequence[Scene]) -> list[Scene]:
    """Every scene replaced by the next one of its relation and kind of things."""
    groups: dict[tuple[Relation, bool], list[int]] = defaultdict(list)
    for number, scene in enumerate(scenes):
        groups[scene.relation, bool(scene.first.colour)].append(number)
    result = list(scenes)
    for group in groups.values():
        for number, other in zip(group, group[1:] + group[:1], strict=True):
            result[number] = scenes[other]
    return result


def main() -> None:
    """Draw, read, and print the share that is right, beside the control."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pipeline", type=Path)
    parser.add_argument("--captions", type=int, default=500)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--out", type=Path, help="folder for evaluation.json and a sheet (default: beside the pipeline)"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    out = arguments.out or arguments.pipeline.parent

    rng = rng_of("evaluation")
    scenes: list[Scene] = []
    while len(scenes) < arguments.captions:
        scene = sample_scene(rng, held_out=True)
        if scene.relation is not Relation.KITE_SURFING:
            scenes.append(scene)
    captions = [caption(scene, rng, held_out=number % 2 == 1) for number, scene in enumerate(scenes)]
    pipeline = FluxPipeline.from_pretrained(arguments.pipeline, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    images = generate(pipeline, captions, seeds=range(len(captions)), steps=arguments.steps)

    readings = [read(image, scene.relation) for image, scene in zip(images, scenes, strict=True)]
    right = scores(zip(readings, map(asked, scenes), strict=True))
    control = scores(zip(readings, map(asked, shuffled(scenes)), strict=True))
    print(f"| {len(scenes)} held-out captions, {arguments.steps} steps | right | shuffled captions |\n|---|---|---|")
    for name, (good, total) in right.items():
        print(f"| {name} | {good}/{total} ({good / total:.1%}) | {control[name][0] / control[name][1]:.1%} |")
    (out / "evaluation.json").write_text(json.dumps({"right": right, "control": control}, indent=1))
    wrong = [n for n, scene in enumerate(scenes) if readings[n] != asked(scene)][:48]
    if wrong:
        contact_sheet([images[n] for n in wrong], [captions[n] for n in wrong], out / "wrong.png", columns=8)


if __name__ == "__main__":
    main()
