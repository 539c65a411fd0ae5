"""The sampling settings of a run and of each row: configuration over preset, checked against what the model takes."""

from dataclasses import dataclass, fields, replace
from typing import Any

from t2i_core.config import Config, RowSettings, parse_size
from t2i_core.errors import ConfigError
from t2i_core.presets import Preset


@dataclass(frozen=True, slots=True)
class Sampling:
    """The settings of one image, resolved: what the pipeline is called with. None: the argument is not passed."""

    steps: int
    height: int
    width: int
    guidance_scale: float | None
    true_cfg_scale: float | None
    negative_prompt: str | None
    max_sequence_length: int | None
    scheduler: str | None


def resolve_sampling(config: Config, preset: Preset) -> Sampling:
    """The run's settings: the configuration's where given, else the preset's.

    Raises:
        ConfigError: for an argument the model does not use, or a size that is not a multiple.
    """
    uses = {
        "guidance_scale": preset.guidance_scale is not None,
        "true_cfg_scale": preset.true_cfg_scale is not None,
        "max_sequence_length": preset.max_sequence_length is not None,
    }
    problems = [
        f"{name}: {preset.name} does not use it; leave it out"
        for name, used in uses.items()
        if not used and getattr(config, name) is not None
    ]
    chosen: dict[str, Any] = {}
    for field in fields(Sampling):
        own = getattr(preset, field.name, None)
        asked = getattr(config, field.name)
        chosen[field.name] = own if asked is None else asked
    sampling = Sampling(**chosen)
    problems += _negative_prompt_problems(sampling, preset)
    sizes = [parse_size(size) for size in config.sizes] if config.sizes else [(sampling.width, sampling.height)]
    for width, height in sizes:
        problems += _size_problems(width, height, preset)
    if problems:
        raise ConfigError(problems)
    return sampling


def row_sampling(settings: RowSettings, run: Sampling, preset: Preset) -> tuple[Sampling, str | None]:
    """(a row's own settings over the run's, what is wrong with them or None)."""
    own = {
        name: value
        for name in ("negative_prompt", "steps", "guidance_scale", "height", "width")
        if (value := getattr(settings, name)) is not None
    }
    if not own:
        return run, None
    sampling = replace(run, **own)
    problems = []
    if "guidance_scale" in own and preset.guidance_scale is None:
        problems.append(f"guidance_scale: {preset.name} does not use it; leave it out")
    problems += _negative_prompt_problems(sampling, preset)
    problems += _size_problems(sampling.width, sampling.height, preset)
    return sampling, "; ".join(problems) or None


def _negative_prompt_problems(sampling: Sampling, preset: Preset) -> list[str]:
    """A negative prompt that would have no effect is refused, not ignored."""
    scale = sampling.true_cfg_scale if preset.true_cfg_scale is not None else sampling.guidance_scale
    flag = "true_cfg_scale" if preset.true_cfg_scale is not None else "guidance_scale"
    if sampling.negative_prompt is None and preset.true_cfg_scale is not None and (scale or 0) > 1:
        return [
            f"true_cfg_scale: {preset.name} uses it only with a negative prompt; set negative_prompt (may be empty)"
        ]
    if sampling.negative_prompt is None or sampling.negative_prompt == preset.negative_prompt:
        return []
    if not preset.takes_negative_prompt:
        return [f"negative_prompt: {preset.name} does not use it; leave it out"]
    if scale is not None and scale <= 1:
        return [f"negative_prompt: {preset.name} uses it only with {flag} above 1 (it is {scale:g}); set {flag}"]
    return []


def _size_problems(width: int, height: int, preset: Preset) -> list[str]:
    """A line for each side that the model would silently change, with the two nearest that it takes."""
    problems = []
    for name, side in (("width", width), ("height", height)):
        if not side:
            problems.append(f"{name}: {preset.name} states no default; set {name}")
        elif side % preset.size_multiple:
            below = side // preset.size_multiple * preset.size_multiple
            nearest = " or ".join(str(n) for n in (below, below + preset.size_multiple) if n)
            problems.append(
                f"{name}: {preset.name} takes multiples of {preset.size_multiple}; use {nearest} (got {side})"
            )
    return problems
