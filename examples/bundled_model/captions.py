"""Natural English for scenes, with synonyms, and with wordings that training never sees.

What a caption leaves out has one meaning, so that every caption has one picture: no place is a plain white background,
a sky without a ground is over a meadow, a ground without a sky is on a clear day.
"""

import re
from random import Random
from typing import NamedTuple

from scenes import Relation, Scene
from world import COLOURS, OBJECTS, PLAIN, SHAPES, Habitat, Thing

MAX_WORDS = 23  # with the end token, the 24 tokens that both text encoders take


class Wording(NamedTuple):
    """Ways to say one thing: those of the training, and those kept for the evaluation (of the same words)."""

    seen: tuple[str, ...]
    held_out: tuple[str, ...]

    def choose(self, rng: Random, held_out: bool) -> str:
        """One way to say it."""
        return rng.choice(self.held_out if held_out else self.seen)


GROUND_WORDS = {
    "meadow": Wording(
        ("in a meadow", "on the grass", "in a green field", "on a lawn", "in the park", "on a green meadow"),
        ("on a green lawn", "on the meadow"),
    ),
    "snow": Wording(
        ("in the snow", "on snow", "in a snowy field", "on a snow covered field", "in winter", "on the ice"),
        ("on a snowy field", "in the winter snow"),
    ),
    "sea": Wording(
        (
            *("on the sea", "on the waves", "on emerald waves", "in the ocean", "riding emerald waves"),
            *("riding the waves", "on the water", "on green waves", "on a lake"),
        ),
        ("in the sea", "on the emerald ocean", "riding green waves"),
    ),
    "desert": Wording(
        ("in the desert", "on sand", "on the dunes", "in a sandy desert", "on a beach", "on the sand"),
        ("on the beach", "in the sandy dunes"),
    ),
}
SKY_WORDS = {
    "clear": Wording(
        (
            *("under a clear sky", "under a blue sky", "on a sunny day", "by day", "in daylight"),
            *("under a bright sky", "beneath a clear sky"),
        ),
        ("on a clear day", "beneath a bright blue sky"),
    ),
    "cloudy": Wording(
        (
            *("under a cloudy sky", "under gray clouds", "on a cloudy day", "beneath an overcast sky"),
            *("under clouds", "under an overcast sky"),
        ),
        ("beneath a cloudy sky", "on an overcast day"),
    ),
    "dusk": Wording(
        ("at dusk", "at sunset", "in the evening", "at twilight", "under a sunset sky", "at dawn"),
        ("under an evening sky", "in the twilight"),
    ),
    "night": Wording(
        ("at night", "under the stars", "under a starry sky", "in the dark", "by night", "at midnight"),
        ("beneath the stars", "in the night"),
    ),
}
PLAIN_WORDS = Wording(
    ("on a {} background", "on {}", "against a {} background", "over a plain {} background"),
    ("on a plain {} background", "against plain {}"),
)
RELATION_WORDS = {
    Relation.ALONE: Wording(("{a}",), ("{a}",)),
    Relation.LEFT_OF: Wording(
        (
            *("{a} left of {b}", "{a} to the left of {b}", "{b} right of {a}", "{b} to the right of {a}"),
            *("{a} beside {b}", "{a} and {b}", "{a} next to {b}", "{a} on the left {b} on the right"),
            "on the left {a} and on the right {b}",
        ),
        ("{a} on the left of {b}", "{b} on the right of {a}", "{a} on the left and {b} on the right"),
    ),
    Relation.ABOVE: Wording(
        (
            *("{a} above {b}", "{a} over {b}", "{b} below {a}", "{b} under {a}", "{b} beneath {a}"),
            # An "and" between two things does not always put them side by side.
            *("{a} on top of {b}", "{a} at the top {b} at the bottom", "at the top {a} and at the bottom {b}"),
        ),
        ("{a} at the top and {b} at the bottom", "{a} at the top of {b}"),
    ),
    Relation.BETWEEN: Wording(
        (
            *("{a} between two {bs}", "{a} between {bs}", "{a} between the {bs}"),
            *("{a} in the middle of two {bs}", "two {bs} with {a} between them", "two {bs} and between them {a}"),
        ),
        ("two {bs} and {a} between them", "{a} in the middle of {bs}"),
    ),
    Relation.KITE_SURFING: Wording(
        ("a kite surfer", "the kite surfer", "a kitesurfer", "a surfer with a kite", "a surfer flying a kite"),
        ("the kitesurfer", "the surfer flying a kite"),
    ),
}
SNOWY = ("snow covered", "snowy")
OPENINGS = ("a picture of", "an image of", "a drawing of")
ARTICLES = ("a", "an", "the")
VERBS = {
    Habitat.GROUND: ("standing", "sitting", "darting", "running", "resting", "waiting", "walking", "jumping"),
    Habitat.WATER: ("gliding", "swimming", "floating", "riding"),
    Habitat.SKY: ("flying", "floating", "hovering", "gliding", "drifting"),
}
STANDING = frozenset({"pine", "house", "flower", "mushroom", "car", "palm", "cactus", "apple", "castle"})


def caption(scene: Scene, rng: Random, *, held_out: bool = False) -> str:
    """Word a scene: lower case, at most 23 words; with `held_out`, in phrases that training never uses."""
    while True:
        text = _caption(scene, rng, held_out)
        if len(text.split()) <= MAX_WORDS:
            return text


def vocabulary() -> list[str]:
    """Every word that a caption can have, in alphabetical order."""
    wordings = [PLAIN_WORDS, *GROUND_WORDS.values(), *SKY_WORDS.values(), *RELATION_WORDS.values()]
    phrases: list[str] = [*SNOWY, *OPENINGS, *ARTICLES, *COLOURS, *PLAIN, *SHAPES, *(f"{shape}s" for shape in SHAPES)]
    phrases += [phrase for wording in wordings for phrase in wording.seen + wording.held_out]
    phrases += [word for glyph in OBJECTS.values() for word in glyph.singular + glyph.plural]
    phrases += [verb for verbs in VERBS.values() for verb in verbs]
    return sorted({word for phrase in phrases for word in re.sub(r"\{\w*\}", " ", phrase).split()})


def _caption(scene: Scene, rng: Random, held_out: bool) -> str:
    backdrop = scene.backdrop
    ground = sky = place = snowy = ""
    if backdrop.plain:
        if backdrop.plain != "white" or rng.random() < 0.6:
            place = PLAIN_WORDS.choose(rng, held_out).format(backdrop.plain)
        parts = [_core(scene, rng, held_out, snowy), place]
    else:
        ground = GROUND_WORDS[backdrop.ground].choose(rng, held_out)
        sky = SKY_WORDS[backdrop.sky].choose(rng, held_out)
        if scene.relation is Relation.BETWEEN and backdrop.ground == "snow" and rng.random() < 0.4:
            snowy = rng.choice(SNOWY)
        unsaid = 0.6 if snowy else 0.15 if backdrop.ground == "meadow" and backdrop.sky != "clear" else 0.0
        if rng.random() < unsaid:
            ground = ""
        elif backdrop.sky == "clear" and rng.random() < 0.2:
            sky = ""
        core = _core(scene, rng, held_out, snowy)
        orders = [core, ground, sky], [core, sky, ground], [sky, core, ground]
        parts = rng.choices(orders, weights=(8, 1, 1))[0]
    if parts[0] != sky and rng.random() < 0.05:
        parts = [rng.choice(OPENINGS), *parts]
    return " ".join(" ".join(parts).split())


def _core(scene: Scene, rng: Random, held_out: bool, snowy: str) -> str:
    """The things and how they stand to each other."""
    verb = _verb(scene.first, rng) if scene.relation is not Relation.LEFT_OF or rng.random() < 0.5 else ""
    phrase = RELATION_WORDS[scene.relation].choose(rng, held_out)
    if not phrase.startswith("{a}"):
        verb = ""
    names = {"a": " ".join((_singular(scene.first, rng), verb)), "b": "", "bs": ""}
    if scene.second is not None:
        names["b"] = _singular(scene.second, rng)
        names["bs"] = " ".join((snowy, _noun(scene.second, rng, plural=True)))
    return phrase.format(**names)


def _verb(thing: Thing, rng: Random) -> str:
    if thing.colour or rng.random() < 0.3:
        return ""
    return "standing" if thing.name in STANDING else rng.choice(VERBS[OBJECTS[thing.name].habitat])


def _noun(thing: Thing, rng: Random, *, plural: bool) -> str:
    if thing.colour:
        return f"{thing.colour} {thing.name}{'s' if plural else ''}"
    glyph = OBJECTS[thing.name]
    return rng.choice(glyph.plural if plural else glyph.singular)


def _singular(thing: Thing, rng: Random) -> str:
    noun = _noun(thing, rng, plural=False)
    if rng.random() < 0.12:
        return f"the {noun}"
    return join_article(noun)


def join_article(noun: str) -> str:
    """Put "a" or "an" before a noun."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"
