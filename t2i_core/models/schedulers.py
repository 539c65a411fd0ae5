"""The check of `--scheduler` and `--scheduler-options` against a model, from small files alone.

diffusers names the schedulers that are compatible with a model's own. That alone does not keep from noise: a scheduler
also has to predict what the model was trained to predict, and to take what the pipeline's call passes to it. Models of
flow matching have no compatible schedulers at all in diffusers, but some that work with the right options.
"""

import difflib
import importlib.util
import json
from collections.abc import Mapping
from types import NoneType
from typing import Any

from t2i_core.errors import ConfigError, shorten
from t2i_core.models.pipeline_signature import timesteps_call
from t2i_core.models.scheduler_source import (
    Option,
    SchedulerClass,
    check_scheduler_name,
    karras_schedulers,
    packages_of,
    scheduler_class,
    scheduler_names,
)

Options = Mapping[str, Any]

FLOW = "flow_prediction"
# Solvers of flow matching and nothing else: they have no `prediction_type`.
FLOW_MATCHING = ("FlowMatchEulerDiscreteScheduler", "FlowMatchHeunDiscreteScheduler")
# No scheduler names these compatible: they are for weights that were distilled for few steps, which come as a LoRA.
DISTILLED = ("LCMScheduler", "TCDScheduler")
# What a model was trained with. Classes differ in its defaults, and the settings of a model may leave it out.
TRAINED = ("beta_start", "beta_end", "beta_schedule", "num_train_timesteps", "prediction_type")
SIGMAS = ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas", "use_flow_sigmas")
# The fewest steps of the Runge-Kutta start of PNDM.
PRK_STEPS = 4
TYPE_NAMES = {bool: "true or false", int: "a whole number", float: "a number", str: "a text", list: "a list of numbers"}


def check_scheduler(
    name: str | None,
    options: Options | None,
    *,
    lora: bool = False,
    pipeline_class: str | None = None,
    own: Options | None = None,
    steps: int | None = None,
) -> str | None:
    """Refuse a scheduler, or options of one, with which the model would fail or make noise.

    Args:
        name: the scheduler class that the user chose; None: the model's own.
        options: parameters of the class, over the settings of the model's own scheduler.
        lora: whether the model gets a LoRA.
        pipeline_class: of the model; None where it is not known yet.
        own: the settings of the model's own scheduler, with its `_class_name`; None where they are not known yet.
        steps: denoising steps of the run; None where they are not known yet.

    Returns:
        The options as canonical JSON without those that the model has anyway; None where none is left.

    Raises:
        ConfigError: in one line that says what to choose or to set.
    """
    if name is not None:
        check_scheduler_name(name)
    if (name is not None or options) and "Combined" in (pipeline_class or ""):
        option = "scheduler" if name is not None else "scheduler_options"
        raise ConfigError([f"{option}: {pipeline_class} has pipelines within, each with its scheduler; leave it out"])
    settings = own or {}
    own_name = settings.get("_class_name")
    model = scheduler_class(own_name) if isinstance(own_name, str) and own_name in scheduler_names() else None
    chosen = scheduler_class(name) if name is not None else model
    if chosen is None:
        if options and own is not None:
            raise ConfigError(["scheduler_options: the class of the model's own scheduler is not known; set scheduler"])
        return None
    values = _checked(chosen, options or {})
    if (name is not None or options) and model is not None and pipeline_class is not None:
        _Pair(model, settings, pipeline_class, lora).check(chosen, values)
    _check_seeded(chosen, model)
    _check_packages(chosen)
    _check_sigmas(chosen, effective(chosen, settings, values))
    if steps is not None and own is not None:
        _check_steps(chosen, effective(chosen, settings, values), steps)
    before = effective(chosen, settings, {})
    changed = {key: value for key, value in values.items() if own is None or before[key] != value}
    return json.dumps(changed, sort_keys=True) if changed else None


def effective(chosen: SchedulerClass, settings: Options, values: Options) -> dict[str, Any]:
    """Return the settings of a scheduler that takes over `settings` as diffusers' `from_config` does, and `values`."""
    defaulted = settings.get("_use_default_values") or ()
    known = {key: value for key, value in settings.items() if key not in defaulted}
    defaults = {key: option.default for key, option in chosen.options.items()}
    return {key: values.get(key, known.get(key, default)) for key, default in defaults.items()}


def _check_packages(chosen: SchedulerClass) -> None:
    missing = [package for package in packages_of(chosen.name) if importlib.util.find_spec(package) is None]
    if missing:
        raise ConfigError(
            [f"scheduler: {chosen.name} needs {' and '.join(missing)}; run `pip install {' '.join(missing)}`"]
        )


def _check_seeded(chosen: SchedulerClass, model: SchedulerClass | None) -> None:
    if not chosen.seeded:
        whose = "the model's own " if chosen is model else ""
        raise ConfigError(
            [
                f"scheduler: {whose}{chosen.name} draws its noise without the seeds of the images, which would change "
                "with their batch mates; choose another, for example DPMSolverMultistepScheduler"
            ]
        )


def _check_sigmas(chosen: SchedulerClass, becomes: Options) -> None:
    chosen_sigmas = [key for key in SIGMAS if becomes.get(key)]
    if len(chosen_sigmas) > 1:
        raise ConfigError(
            [f"scheduler_options: {' and '.join(chosen_sigmas)} exclude each other; set all but one to false"]
        )
    if "use_beta_sigmas" in chosen_sigmas and importlib.util.find_spec("scipy") is None:
        raise ConfigError([f"scheduler_options: use_beta_sigmas of {chosen.name} needs scipy; run `pip install scipy`"])


def _check_steps(chosen: SchedulerClass, becomes: Options, steps: int) -> None:
    """Refuse a number of steps with which every image would fail."""
    most = becomes.get("original_inference_steps")
    if most is not None and steps > most:
        raise ConfigError([f"steps: {chosen.name} takes at most {most}, its original_inference_steps (got {steps})"])
    if becomes.get("skip_prk_steps") is False and steps < PRK_STEPS:
        raise ConfigError(
            [f"steps: {chosen.name} takes {PRK_STEPS} or more, unless skip_prk_steps is true (got {steps})"]
        )


def _checked(chosen: SchedulerClass, options: Options) -> dict[str, Any]:
    """Return the options in the types of the class's parameters: 1 is 1.0 where the parameter is a float.

    Raises:
        ConfigError: with a line for each option that is unknown or of another type.
    """
    problems, values = [], {}
    for key, value in options.items():
        option = chosen.options.get(key)
        if option is None:
            close = difflib.get_close_matches(key, chosen.options, n=1)
            fix = f"did you mean {close[0]}?" if close else f"it has {', '.join(sorted(chosen.options))}"
            problems.append(f"scheduler_options.{key}: {chosen.name} has no such option; {fix}")
            continue
        try:
            values[key] = _converted(option, value)
        except ValueError as error:
            problems.append(f"scheduler_options.{key}: {error} (got {shorten(value)})")
    if problems:
        raise ConfigError(problems)
    return values


def _converted(option: Option, value: Any) -> Any:
    """Return a value in a type that the option takes.

    Raises:
        ValueError: what it takes.
    """
    if option.choices and value not in option.choices and not (value is None and NoneType in option.types):
        raise ValueError(f"write one of {', '.join(option.choices)}")
    if type(value) in (int, float):
        if float in option.types:
            return float(value) + 0.0  # -0.0 becomes 0.0
        if int in option.types and value == int(value):
            return int(value)
    elif type(value) is list and list in option.types:
        if all(type(item) in (int, float) for item in value):
            return [option.items(item) for item in value]
    elif type(value) in option.types:
        return value
    names = [text for kind, text in TYPE_NAMES.items() if kind in option.types]
    raise ValueError(f"write {' or '.join(names)}" if names else "it cannot be set here; leave it out")


class _Pair:
    """A model's own scheduler class with its settings, and the pipeline that calls it."""

    def __init__(self, model: SchedulerClass, settings: Options, pipeline_class: str, lora: bool) -> None:
        self.model, self.settings, self.pipeline_class, self.lora = model, settings, pipeline_class, lora
        self.call = timesteps_call(pipeline_class)
        self.own = effective(model, settings, {})
        self.is_flow = self.own.get("prediction_type") == FLOW or model.name in FLOW_MATCHING

    def check(self, chosen: SchedulerClass, values: Options) -> None:
        """Refuse a class that does not go with the model, and options that are missing for it to go.

        Raises:
            ConfigError: in one line.
        """
        if chosen is not self.model and (why := self._obstacle(chosen)):
            others = [name for name in self._candidates() if self._obstacle(scheduler_class(name)) is None]
            fix = f"choose one of {', '.join(others)}" if len(others) > 1 else "leave it out"
            raise ConfigError([f"scheduler: {chosen.name} {why}; {fix}"])
        becomes = effective(chosen, self.settings, values)
        if missing := self._missing(chosen, becomes, values):
            example = json.dumps({**values, **missing})
            raise ConfigError(
                [
                    f"scheduler: {chosen.name} makes images of this model only with {' and '.join(missing)} set; "
                    f"add --scheduler-options '{example}'"
                ]
            )
        if problem := self._wrong(chosen, becomes):
            raise ConfigError([f"scheduler_options: {problem}"])

    def _candidates(self) -> list[str]:
        names = list(self.model.compatibles)
        if self.is_flow:
            names += [*FLOW_MATCHING, *karras_schedulers()]
        if self.lora and not self.is_flow and "beta_start" in self.model.options:
            names += DISTILLED
        return list(dict.fromkeys(names))

    def _obstacle(self, chosen: SchedulerClass) -> str | None:
        """Return why the class cannot work with the model whatever its options; None where it can."""
        if chosen is self.model:
            return None
        if chosen.name not in self._candidates():
            if chosen.name in DISTILLED and not self.is_flow:
                return "is for weights distilled for few steps, and there is no --lora"
            return f"is not compatible with the model's own {self.model.name}"
        if not chosen.seeded:
            return "draws its noise without the seeds of the images"
        if "sigma_data" in chosen.options and "sigma_data" not in self.model.options:
            return "is for models trained as EDM's, and this one would make noise"
        if self.is_flow and chosen.name not in FLOW_MATCHING and "use_flow_sigmas" not in chosen.options:
            return "has no form for flow matching, and this model would make noise"
        if self.is_flow and chosen.name not in FLOW_MATCHING and "final_sigmas_type" not in chosen.options:
            return "leaves out the last step of flow matching, and noise in the images"
        dropped = {"sigmas"} if "use_flow_sigmas" in self.call.asks and "use_flow_sigmas" in chosen.options else set()
        if "use_dynamic_shifting" in self.call.asks:
            dropped.add("mu")  # passed only to a scheduler that shifts dynamically
        refused = self.call.passes - chosen.timesteps - dropped
        if refused:
            return f"does not take the {' and '.join(sorted(refused))} that {self.pipeline_class} sets"
        if "sigmas" in self.call.passes - dropped and not self.call.arrays and chosen.name not in FLOW_MATCHING:
            return f"does not take sigmas in the form in which {self.pipeline_class} sets them"
        return None

    def _missing(self, chosen: SchedulerClass, becomes: Options, values: Options) -> dict[str, Any]:
        """Return the options, with their values, without which the class would fail or make something else."""
        missing: dict[str, Any] = {}
        if chosen is self.model:
            return missing
        solves_flow = self.is_flow and "use_flow_sigmas" in chosen.options
        if solves_flow:
            wanted = {"prediction_type": FLOW, "use_flow_sigmas": True}
            # These take the `mu` of a call only then; others ignore it.
            if "mu" in self.call.passes and "use_dynamic_shifting" not in self.call.asks:
                wanted["use_dynamic_shifting"] = True
            missing |= {key: value for key, value in wanted.items() if becomes[key] != value}
        if self.is_flow and not {**becomes, **missing}.get("use_dynamic_shifting"):
            key = "flow_shift" if solves_flow else "shift"
            shift = self.own.get("shift", self.own.get("flow_shift"))
            if key not in values and becomes[key] != shift:
                missing[key] = shift
        if not self.is_flow:
            lost = [key for key in TRAINED if key in self.own.keys() & becomes.keys() - values.keys()]
            missing |= {key: self.own[key] for key in lost if becomes[key] != self.own[key]}
        return missing

    def _wrong(self, chosen: SchedulerClass, becomes: Options) -> str | None:
        """Return what is wrong with the settings that the class has in the end."""
        prediction = becomes.get("prediction_type")
        if self.is_flow and prediction not in (None, FLOW):
            return f"prediction_type {prediction} makes noise with this model; set {FLOW}"
        if self.is_flow and becomes.get("use_flow_sigmas") is False:
            return "use_flow_sigmas false makes noise with this model; set true"
        if not self.is_flow and (prediction == FLOW or becomes.get("use_flow_sigmas")):
            return "prediction_type flow_prediction and use_flow_sigmas are for models of flow matching; leave them out"
        if self.is_flow and becomes.get("final_sigmas_type") == "sigma_min":
            return "final_sigmas_type sigma_min leaves noise in images of flow matching; set zero"
        choices = chosen.options["prediction_type"].choices if prediction is not None else ()
        if chosen is not self.model and choices and prediction not in choices:
            return f"{chosen.name} has no prediction_type {prediction}, which the model has; choose another scheduler"
        if becomes.get("use_dynamic_shifting") and "mu" not in self.call.passes:
            return f"use_dynamic_shifting needs a mu, which {self.pipeline_class} does not set; leave it out"
        return None
