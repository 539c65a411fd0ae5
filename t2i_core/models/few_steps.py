"""Whether a model was distilled to few steps, or such a distillation was trained away: by its configuration and names.

The configuration is asked first. Fine-tunes and merges often keep the configuration of the model that they began with;
then only a name such as `RealVisXL-Lightning` or `FLUX.1-dev-de-distilled` tells.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from t2i_core.models.names import DENOISERS

# A word of a name -> the steps that such models are made for, where the name does not say how many.
WORDS = {
    r"turbo|lightning": 4,
    r"(?<![a-z])(lcm|tcd|schnell|dmd2?)(?![a-z])": 4,
    r"(?<![a-z])(hyper|flash)(?![a-z])|hyper-?(sd|flux)": 8,
}
NUMBER = re.compile(r"(?<![0-9a-z.])(\d{1,2})-?steps?(?![a-z])")
UNDISTILLED = re.compile(r"(?<![a-z])(de|un)-?(distill|turbo)|openflux|libreflux")
SCHEDULERS = {"LCMScheduler", "TCDScheduler"}
# Of these, `timestep_spacing` trailing is a sign of few steps; other schedulers have it for many steps, too.
TRAILING = {"EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler", "DDIMScheduler"}


@dataclass(frozen=True, slots=True)
class FewSteps:
    """How many steps a distilled model takes; why that is assumed; whether a name alone says so."""

    steps: int
    why: str
    by_name: bool = False


def names_of(called: Sequence[str], configs: Mapping[str, Any]) -> list[str]:
    """Return the names of a model, each as `owner/name` or the last part of a path: those in `called` come first.

    The others are in its configurations: what diffusers saved notes where it was loaded from (`_name_or_path`).
    """
    noted = [configs.get(part, {}).get("_name_or_path") for part in ("index", *DENOISERS)]
    names = [repository_in(path) for path in (*called, *noted) if isinstance(path, str) and path]
    return list(dict.fromkeys(names))


def repository_in(path: str) -> str:
    """Return `owner/name` of a path in a hub cache, of a copy of this tool's, or of a hub id; else the last part."""
    parts = PurePath(path).parts
    for part in parts:
        if part.startswith("models--"):
            return part.removeprefix("models--").replace("--", "/", 1)
    if len(parts) == 2 and not path.startswith("."):
        return path
    return parts[-1].replace("--", "/", 1) if parts else path


def few_steps(configs: Mapping[str, Any], names: Sequence[str]) -> FewSteps | None:
    """Return how many steps a model was distilled to, or None where nothing says that it was."""
    found = _by_configuration(configs) or _by_name(names)
    number = steps_in_name(names)
    if found is None or number is None:
        return found
    return FewSteps(number[0], f"{found.why}; {number[1]}", found.by_name)


def steps_in_name(names: Sequence[str]) -> tuple[int, str] | None:
    """Return (how many steps a name says, that name's own words), as in `SDXL-Lightning-4step`; or None."""
    for name in names:
        if (match := NUMBER.search(_spelled(name))) and int(match[1]):
            return int(match[1]), f"{match[0]} in its name"
    return None


def is_undistilled(names: Sequence[str]) -> bool:
    """Return whether a name says that a distillation was trained away."""
    return any(UNDISTILLED.search(_spelled(name)) for name in names)


def _by_configuration(configs: Mapping[str, Any]) -> FewSteps | None:
    if configs.get("index", {}).get("is_distilled") is True:
        return FewSteps(8, "is_distilled in model_index.json")
    scheduler = configs.get("scheduler", {})
    kind = scheduler.get("_class_name")
    if kind in SCHEDULERS:
        return FewSteps(4, f"its scheduler {kind}")
    many = scheduler.get("rescale_betas_zero_snr") or scheduler.get("prediction_type", "epsilon") != "epsilon"
    if kind in TRAILING and scheduler.get("timestep_spacing") == "trailing" and not many:
        return FewSteps(4, f"timestep_spacing trailing of its {kind}")
    return None


def _by_name(names: Sequence[str]) -> FewSteps | None:
    if is_undistilled(names):
        return None
    for name in names:
        for pattern, steps in WORDS.items():
            if match := re.search(pattern, _spelled(name)):
                return FewSteps(steps, f"{match[0]} in its name {name}", by_name=True)
    return None


def _spelled(name: str) -> str:
    """Return a name without its owner in one spelling: `owner/Z_Image Turbo` as `z-image-turbo`."""
    return re.sub(r"[_ ]", "-", name.rpartition("/")[2].casefold())
