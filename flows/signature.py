"""The flow's signature: one parameter for each field of the configuration."""

import inspect
from collections.abc import Callable
from typing import Any

from t2i_core.config import Config, parameters


def takes_configuration(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a function of `**values` the configuration's fields as its signature and documentation.

    Prefect builds the form and the checks of a deployment from them. The signature is flat, because a deployment's
    nested parameter is replaced whole when one value in it is overridden.
    """
    arguments = "\n".join(f"    {name}: {field.description}" for name, field in Config.model_fields.items())
    function.__signature__ = inspect.Signature(parameters())  # type: ignore[attr-defined]
    function.__doc__ = f"{inspect.getdoc(function)}\n\nArgs:\n{arguments}"
    return function
