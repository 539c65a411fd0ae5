"""The configuration's fields as parameters: the flow's signature, and the flags of the command line."""

import inspect
from collections.abc import Callable
from typing import Annotated, Any

from pydantic import Field

from t2i_core.config import Config
from t2i_core.options.dataset import DatasetOptions
from t2i_core.options.model import ModelOptions
from t2i_core.options.output import OutputOptions
from t2i_core.options.run import RunOptions
from t2i_core.options.sampling import SamplingOptions
from t2i_core.options.speed import SpeedOptions

# First in Prefect's form, which shows the parameters one below the other: what people change.
FIRST_IN_FORM = (
    *("dataset", "prompt_key", "model", "output", "images_per_prompt"),
    *("steps", "height", "width", "guidance_scale", "seed", "batch_size"),
)


def takes_configuration(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a function of `**values` the configuration's fields as its signature and documentation.

    Prefect builds the form and the checks of a deployment from them. The signature is flat, because a deployment's
    nested parameter is replaced whole when one value in it is overridden.
    """
    arguments = "\n".join(f"    {name}: {field.description}" for name, field in Config.model_fields.items())
    function.__signature__ = inspect.Signature(parameters())  # type: ignore[attr-defined]
    function.__doc__ = f"{inspect.getdoc(function)}\n\nArgs:\n{arguments}"
    return function


def parameters() -> list[inspect.Parameter]:
    """Return the fields as keyword-only parameters, those of `FIRST_IN_FORM` first.

    Bounds and descriptions are in the annotation. A default that depends on other fields is None here.
    """
    result = []
    rest = (name for name in Config.model_fields if name not in FIRST_IN_FORM)
    for name in (*FIRST_IN_FORM, *rest):
        field = Config.model_fields[name]
        annotation: Any = field.annotation
        default = field.get_default()
        if field.default_factory is not None:
            annotation, default = annotation | None, None
        annotated = Annotated[annotation, *(field.metadata or [None]), Field(description=field.description)]
        result.append(inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotated))
    return result


def group_of(name: str) -> str:
    """Return the heading under which `--help` lists a field: that of the class which declares it."""
    for options in (DatasetOptions, ModelOptions, SamplingOptions, SpeedOptions, RunOptions, OutputOptions):
        if name in options.model_fields:
            return options.heading
    raise KeyError(name)
