"""Measure what the demo model draws, read off the pixels, on captions that training never saw.

    python examples/bundled_model/evaluate.py training/pipeline

Every scene holds a pair of things, or a thing with its background, that was kept from training; every second caption
also uses kept wordings. What is in a picture is read without knowing what was asked for: the nearest of all drawn
backgrounds, and at every place where the relation puts a thing the nearest of all things, in any pose. The
control scores the same readings against the captions of other pictures: it is what luck would reach.
"""

import argparse
import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from diffusers import FluxPipeline
from PIL import Image

from captions import caption
from loop import rng_of
from scenes import (
    SIZE,
    STRAIGHT,
    VIEWS,
    Lesson,
    Placed,
    Relation,
    Scene,
    View,
    arrange,
    backdrop_image,
    sample_scene,
    thing_image,
    variants,
)
from sheet import contact_sheet, generate
from world import COLOURS, OBJECTS, PLACES, PLAINS, SHAPES, WHITE, Backdrop, Habitat, Thing

OBJECT_THINGS = tuple(Thing(name) for name in OBJECTS)
SHAPE_THINGS = tuple(Thing(shape, colour) for shape in SHAPES for colour in COLOURS)
VARIETY_CAPTIONS, VARIETY_SEEDS = 50, 4
_OUTLIER = 60.0**2  # a pixel this far off counts no more: things hide a part of every background


class Reading(NamedTuple):
    """What a picture shows: its background, and the thing at each place of the scene's relation."""

    backdrop: Backdrop
    things: tuple[Thing, ...]


class Pose(NamedTuple):
    """How a picture shows it: what the noise decides."""

    view: View
    placed: tuple[Placed, ...]


def asked(scene: Scene) -> Reading:
    """What a picture of the scene should show."""
    return Reading(scene.backdrop, tuple(placed.thing for placed in scene.placed))


def read(image: Image.Image, relation: Relation) -> tuple[Reading, Pose]:
    """Read a picture; of the scene only the relation is known, which says where to look."""
    pixels = np.asarray(image, dtype=np.float32)
    errors = {
        (backdrop, view): np.minimum(((_backdrop(backdrop, view) - pixels) ** 2).mean(-1), _OUTLIER).mean()
        for backdrop in (*PLACES, *PLAINS)
        for view in (VIEWS if backdrop.ground else (STRAIGHT,))
    }
    backdrop, view = min(errors, key=errors.__getitem__)
    background = _backdrop(backdrop, view)
    things = (*OBJECT_THINGS, *SHAPE_THINGS) if backdrop.plain else OBJECT_THINGS
    placed = tuple(_nearest(pixels, background, things, poses) for poses in _poses(relation, bool(backdrop.plain)))
    return Reading(backdrop, tuple(one.thing for one in placed)), Pose(view, placed)


@cache
def _poses(relation: Relation, plain: bool) -> list[list[Placed]]:
    """For every place of a relation all that may be seen there, with some object for the thing."""
    lesson, backdrop = Lesson(objects=len(OBJECTS), jitter=0), WHITE if plain else PLACES[0]
    if relation is Relation.ALONE:
        # Where a lone thing stands depends on what it is.
        examples = [{thing.habitat: Thing(name) for name, thing in OBJECTS.items()}[habitat] for habitat in Habitat]
    else:
        examples = [OBJECT_THINGS[0]]
    scenes = [arrange(rng_of("poses"), backdrop, relation, one, _other(relation, one), lesson) for one in examples]
    slots = zip(*(scene.placed for scene in scenes), strict=True)
    return [list(dict.fromkeys(pose for placed in slot for pose in _somewhere(placed, relation))) for slot in slots]


def _other(relation: Relation, thing: Thing) -> Thing | None:
    return None if relation is Relation.ALONE else thing


def _somewhere(placed: Placed, relation: Relation) -> list[Placed]:
    """All variants of a thing, by the name of one object, and a pixel beside them."""
    return [
        replace(variant, thing=OBJECT_THINGS[0], x=variant.x + dx, y=variant.y + dy)
        for variant in variants(placed, relation)
        for dx in (-1, 0, 1)
        for dy in (-1, 0, 1)
    ]


def _nearest(pixels: np.ndarray, background: np.ndarray, things: Sequence[Thing], poses: Sequence[Placed]) -> Placed:
    """The thing and pose that, pasted on the background, come nearest to the picture."""
    untouched = ((background - pixels) ** 2).sum(-1)
    window = untouched.sum()
    best, nearest = float("inf"), poses[0]
    for pose in poses:
        left, top = pose.x - pose.size // 2, pose.y - pose.size // 2
        if min(left, top) < 0 or max(left, top) + pose.size > SIZE:
            continue
        box = slice(top, top + pose.size), slice(left, left + pose.size)
        outside = window - untouched[box].sum()
        if outside > best:
            continue
        for thing in things:
            colour, alpha = _sprite(thing, pose.size, pose.mirrored)
            pasted = background[box] * (1 - alpha) + colour * alpha
            error = outside + ((pasted - pixels[box]) ** 2).sum()
            if error < best:
                best, nearest = error, replace(pose, thing=thing)
    return nearest


@cache
def _backdrop(backdrop: Backdrop, view: View) -> np.ndarray:
    return np.asarray(backdrop_image(backdrop, view), dtype=np.float32)


@cache
def _sprite(thing: Thing, size: int, mirrored: bool) -> tuple[np.ndarray, np.ndarray]:
    """A thing's colours [size, size, 3] and its opacity [size, size, 1] in [0, 1]."""
    array = np.asarray(thing_image(thing, size, mirrored), dtype=np.float32)
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


def poses_by_seed(pipeline: FluxPipeline, scenes: Sequence[Scene], captions: Sequence[str], steps: int) -> float:
    """The mean number of poses (place, size, direction, view) that `VARIETY_SEEDS` seeds of one caption show."""
    repeated = [text for text in captions[: len(scenes)] for _ in range(VARIETY_SEEDS)]
    images = generate(pipeline, repeated, seeds=range(len(repeated)), steps=steps)
    poses = [
        {read(image, scene.relation)[1] for image in images[number * VARIETY_SEEDS : (number + 1) * VARIETY_SEEDS]}
        for number, scene in enumerate(scenes)
    ]
    return sum(map(len, poses)) / len(poses)


def main() -> None:
    """Draw, read, and print the share that is right, beside the control."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pipeline", type=Path)
    parser.add_argument("--captions", type=int, default=500)
    parser.add_argument(
        "--single", action="store_true", help="only scenes of one object, of which a sample of all has few"
    )
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--out", type=Path, help="folder for evaluation.json and a sheet (default: beside the pipeline)"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    out = arguments.out or arguments.pipeline.parent
    out.mkdir(parents=True, exist_ok=True)

    rng = rng_of("evaluation")
    scenes: list[Scene] = []
    while len(scenes) < arguments.captions:
        scene = sample_scene(rng, held_out=True)
        single = scene.relation is Relation.ALONE and not scene.first.colour
        if scene.relation is not Relation.KITE_SURFING and (single or not arguments.single):
            scenes.append(scene)
    captions = [caption(scene, rng, held_out=number % 2 == 1) for number, scene in enumerate(scenes)]
    pipeline = FluxPipeline.from_pretrained(arguments.pipeline, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    images = generate(pipeline, captions, seeds=range(len(captions)), steps=arguments.steps)

    readings = [read(image, scene.relation)[0] for image, scene in zip(images, scenes, strict=True)]
    right = scores(zip(readings, map(asked, scenes), strict=True))
    control = scores(zip(readings, map(asked, shuffled(scenes)), strict=True))
    print(f"| {len(scenes)} held-out captions, {arguments.steps} steps | right | shuffled captions |\n|---|---|---|")
    for name, (good, total) in right.items():
        print(f"| {name} | {good}/{total} ({good / total:.1%}) | {control[name][0] / control[name][1]:.1%} |")
    poses = poses_by_seed(pipeline, scenes[:VARIETY_CAPTIONS], captions, arguments.steps)
    print(f"{poses:.2f} of {VARIETY_SEEDS} seeds of one caption show a pose of their own ({VARIETY_CAPTIONS} captions)")
    result = {"right": right, "control": control, "poses": poses}
    (out / "evaluation.json").write_text(json.dumps(result, indent=1))
    wrong = [n for n, scene in enumerate(scenes) if readings[n] != asked(scene)][:48]
    if wrong:
        contact_sheet([images[n] for n in wrong], [captions[n] for n in wrong], out / "wrong.png", columns=8)


if __name__ == "__main__":
    main()
