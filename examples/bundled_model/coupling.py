"""Noise that decides the pose: the coupling of noise and pictures that stage 4 trains on.

One caption has many pictures. With noise that knows nothing of them, a path that starts at noise leads to the mean of
all pictures first, and must choose later: in few denoising steps, two poses end in one picture. So the pose is made a
function of the noise. The mean of a noise channel over all tokens is normal; each takes one decision, such as whether
the first thing is mirrored, by the quantile it falls into. Noise is still normal, and all pictures of a caption are as
likely as before: flow matching holds for every such coupling (Tong and others, "Improving and generalizing flow-based
generative models with minibatch optimal transport", 2024; Pooladian and others, "Multisample Flow Matching", 2023).
"""

from collections.abc import Callable, Iterable, Sequence
from functools import cache
from itertools import groupby
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from loop import rng_of
from scenes import EVERYTHING, VIEWS, Lesson, Placed, Relation, Scene, arrange, variants

_MOST_THINGS = 3
_THING = ("size", "x", "y", "mirrored")
_VIEW = ("horizon", "shift")
CHANNELS = _MOST_THINGS * len(_THING) + len(_VIEW)


class Share(NamedTuple):
    """The quantiles of a noise channel, from `low` to `high`, that lead to one decision."""

    low: float = 0.0
    high: float = 1.0


ALL = Share()
T = TypeVar("T")


def couple(noise: Tensor, shares: Tensor) -> Tensor:
    """Shift the channel means of normal noise [B, T, C], so that each is one that leads to the pose of its scene.

    Every quantile is moved into the share of its decision, `shares` [B, CHANNELS, 2], and keeps its place there. Over
    scenes whose poses are drawn evenly the result is normal noise again.
    """
    low, high = shares.unbind(-1)
    scale = noise.shape[1] ** 0.5
    means = noise[..., :CHANNELS].mean(1) * scale
    quantiles = low + (high - low) * torch.special.ndtr(means)
    moved = torch.special.ndtri(quantiles.clamp(1e-6, 1 - 1e-6))
    coupled = noise.clone()
    coupled[..., :CHANNELS] += ((moved - means) / scale)[:, None]
    return coupled


def shares_of(scenes: Iterable[Scene]) -> Tensor:
    """The shares of scenes, [B, CHANNELS, 2]."""
    return torch.tensor([_shares(scene) for scene in scenes])


def _shares(scene: Scene) -> tuple[Share, ...]:
    """The share of every coded channel: four a thing, two for the view; `ALL` where there is nothing to decide."""
    straight = arrange(
        rng_of("straight"), scene.backdrop, scene.relation, scene.first, scene.second, Lesson(EVERYTHING.objects, 0.0)
    )
    shares: list[Share] = []
    for before, after in zip(straight.placed, scene.placed, strict=True):
        shares += _thing_shares(before, scene.relation)[after]
    shares += [ALL] * (_MOST_THINGS * len(_THING) - len(shares))
    return (*shares, *((ALL, ALL) if scene.backdrop.plain else _view_shares()[scene.view]))


@cache
def _thing_shares(straight: Placed, relation: Relation) -> dict[Placed, list[Share]]:
    return _decisions(variants(straight, relation), [lambda one, name=name: getattr(one, name) for name in _THING])


@cache
def _view_shares() -> dict[tuple[int, int], list[Share]]:
    return _decisions(VIEWS, [lambda view: view.horizon, lambda view: view.shift])


def _decisions(options: Sequence[T], questions: Sequence[Callable[[T], int]]) -> dict[T, list[Share]]:
    """Ask one question after another about evenly likely options; each answer gets the share of options it leaves."""
    if not questions:
        return {option: [] for option in options}
    first, *rest = questions
    shares: dict[T, list[Share]] = {}
    before = 0
    for _, group in groupby(sorted(options, key=first), key=first):
        left = list(group)
        share = Share(before / len(options), (before + len(left)) / len(options))
        shares |= {option: [share, *later] for option, later in _decisions(left, rest).items()}
        before += len(left)
    return shares
