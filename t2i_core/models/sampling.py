"""The sampling settings of a run and of each row: row over configuration over preset, checked against the model."""

from collections.abc import Collection
from dataclasses import fields, replace
from typing import Any

from t2i_core.config import Config, RowSettings
from t2i_core.errors import ConfigError
from t2i_core.models.as_asked import generated_size
from t2i_core.models.presets import Preset
from t2i_core.options.values import parse_size
from t2i_core.spec import SHARED_ARGUMENTS, Sampling

# Computed once, for rows are many. Options of the scheduler are checked and written against its class (schedulers.py).
_RUN_NAMES = tuple(item.name for item in fields(Sampling) if item.name != "scheduler_options")
_ROW_NAMES = tuple(name for name in _RUN_NAMES if name in RowSettings.model_fields)


def resolve_sampling(config: Config, preset: Preset) -> Sampling:
    """Return the run's settings: those of the configuration, and the preset's where it sets none.

    A preset that is a guess refuses only what the pipeline's call does not take, and sizes that it would change.

    Raises:
        ConfigError: for an argument that the model does not use or would change, with a line for each.
    """
    own = _set_values(config, _RUN_NAMES)
    defaults: dict[str, Any] = {name: getattr(preset, name, None) for name in _RUN_NAMES}
    sampling = Sampling(**defaults | own)
    problems = _refused(own, sampling, preset)
    sizes = [parse_size(size) for size in config.sizes] if config.sizes else [(sampling.width, sampling.height)]
    for width, height in sizes:
        problems += _size_problems(width, height, preset)
    if problems:
        raise ConfigError(problems)
    return sampling


def row_sampling(settings: RowSettings, run: Sampling, preset: Preset) -> tuple[Sampling, str | None]:
    """Return (the row's settings over the run's, what is wrong with them or None).

    A row that sets nothing has the run's settings themselves, which were checked.
    """
    own = _set_values(settings, _ROW_NAMES) if settings.model_fields_set else {}
    if not own:
        return run, None
    sampling = replace(run, **own)
    problems = _refused(own, sampling, preset)
    problems += _size_problems(sampling.width, sampling.height, preset)
    return sampling, "; ".join(problems) or None


def doubtful_settings(settings: Config | RowSettings, sampling: Sampling, preset: Preset) -> list[str]:
    """Return a line for each setting of a run or row that may have no effect, where a guess is no reason to refuse it.

    `sampling` is what the settings are with the preset's.
    """
    if not preset.is_guess:
        return []
    own = _set_values(settings, [name for name in _RUN_NAMES if name in type(settings).model_fields])
    unused = [
        f"{name}: the {preset.about} have none; it is passed, and may have no effect"
        for name in ("guidance_scale", "true_cfg_scale", "max_sequence_length")
        if name in own and preset.name != preset.pipeline_class and getattr(preset, name) is None
    ]
    return unused + _negative_prompt_problems(sampling, preset)


def _refused(own: Collection[str], sampling: Sampling, preset: Preset) -> list[str]:
    """Return a line for each setting, sizes apart, that the model does not use or that would have no effect."""
    problems = _unused_arguments(own, preset)
    if not preset.is_guess or not preset.takes("negative_prompt"):
        problems += _negative_prompt_problems(sampling, preset)
    return problems


def _set_values(settings: Config | RowSettings, names: Collection[str]) -> dict[str, Any]:
    return {name: value for name in names if (value := getattr(settings, name)) is not None}


def _unused_arguments(own: Collection[str], preset: Preset) -> list[str]:
    return [
        f"{name}: {preset.label} does not use it; leave it out"
        for name in SHARED_ARGUMENTS
        if name in own and not preset.takes(name)
    ]


def _negative_prompt_problems(sampling: Sampling, preset: Preset) -> list[str]:
    """Return why a negative prompt, or the scale that needs one, would have no effect: then it is refused."""
    flag = "true_cfg_scale" if preset.takes("true_cfg_scale") else "guidance_scale"
    scale = getattr(sampling, flag)
    if sampling.negative_prompt is None and flag == "true_cfg_scale" and (scale or 0) > 1:
        return [
            f"true_cfg_scale: {preset.label} uses it only with a negative prompt; set negative_prompt (may be empty)"
        ]
    if sampling.negative_prompt is None or sampling.negative_prompt == preset.negative_prompt:
        return []
    if not preset.takes("negative_prompt"):
        return [f"negative_prompt: {preset.label} does not use it; leave it out"]
    if (flag == "true_cfg_scale" and scale is None) or (scale is not None and scale <= 1):
        now = "not set" if scale is None else f"{scale:g}"
        return [f"negative_prompt: {preset.label} uses it only with {flag} above 1 (it is {now}); set {flag}"]
    return []


def _size_problems(width: int, height: int, preset: Preset) -> list[str]:
    """Return a line for each side that the model would silently change, with what it takes."""
    problems = []
    for name, side in (("width", width), ("height", height)):
        if not side:
            problems.append(f"{name}: {preset.label} states no default; set {name}")
        elif side % preset.size_multiple:
            below = side // preset.size_multiple * preset.size_multiple
            nearest = " or ".join(str(n) for n in (below, below + preset.size_multiple) if n)
            problems.append(
                f"{name}: {preset.label} takes multiples of {preset.size_multiple}; use {nearest} (got {side})"
            )
    if problems:
        return problems
    generated = "x".join(map(str, generated_size(preset.pipeline_class, width, height)))
    if generated != f"{width}x{height}":
        return [f"width and height: {preset.label} generates {generated} for {width}x{height}; ask for {generated}"]
    return []
