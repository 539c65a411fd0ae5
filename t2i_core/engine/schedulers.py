"""The scheduler that the user asks for, in place of the model's own or with other options."""

import json
import logging
from typing import Any

import diffusers
import torch

from t2i_core.engine.attempt import one_line
from t2i_core.errors import ConfigError
from t2i_core.generation.interface import LoadConfig

log = logging.getLogger(__name__)

# Steps of the trial: the fewest that every scheduler takes.
STEPS = 4


def make_scheduler(load_config: LoadConfig, own: Any) -> Any:
    """Return the scheduler that is asked for, with the settings of the model's `own` where no option says otherwise.

    Raises:
        ConfigError: it needs a package that is not installed, or cannot take the settings.
    """
    options = json.loads(load_config.scheduler_options or "{}")
    chosen = getattr(diffusers, load_config.scheduler) if load_config.scheduler else type(own)
    try:
        scheduler = chosen.from_config(own.config, **options)
    except (ImportError, ValueError, TypeError, NotImplementedError) as error:
        raise ConfigError(
            [f"scheduler: {chosen.__name__} cannot be used: {one_line(error)}; choose another"]
        ) from error
    # Some values fail only in the steps, which would be image by image.
    problem = _failure(chosen.from_config(own.config, **options)) if options else None
    if problem is not None and _failure(chosen.from_config(own.config)) is None:
        raise ConfigError(
            [
                f"scheduler_options: {chosen.__name__} fails with {load_config.scheduler_options}: "
                f"{type(problem).__name__}: {one_line(problem)}; choose other values"
            ]
        )
    if scheduler.config.get("clip_sample") and "clip_sample" not in {*own.config, *options}:
        log.warning(
            "scheduler %s clips to -1..1, which the model's own %s does not; "
            """--scheduler-options '{"clip_sample": false}' turns it off""",
            chosen.__name__,
            type(own).__name__,
        )
    return scheduler


def _failure(scheduler: Any) -> Exception | None:
    """Return the error of some steps on a sample of zeros; None where there is none."""
    try:
        scheduler.set_timesteps(STEPS, **({"mu": 1.0} if scheduler.config.get("use_dynamic_shifting") else {}))
        sample = torch.zeros(1, 4, 2, 2)
        for timestep in scheduler.timesteps:
            sample = scheduler.step(torch.zeros_like(sample), timestep, sample, return_dict=False)[0]
    except Exception as error:  # libraries raise anything
        return error
    return None
