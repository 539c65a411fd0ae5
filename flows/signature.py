"""The options of a command as parameters: the signature of its flow, and the flags of its command line."""

import inspect
from collections.abc import Callable
from typing import Annotated, Any

from pydantic import Field

from t2i_core.options.command import Options


def takes_options(options: type[Options]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Give a function of `**values` the fields of `options` as its signature and documentation.

    Prefect builds the form and the checks of a deployment from them. The signature is flat, because a deployment's
    nested parameter is replaced whole when one value in it is overridden.
    """

    def give(function: Callable[..., Any]) -> Callable[..., Any]:
        arguments = "\n".join(f"    {name}: {field.description}" for name, field in options.model_fields.items())
        function.__signature__ = inspect.Signature(parameters(options))  # type: ignore[attr-defined]
        function.__doc__ = f"{inspect.getdoc(function)}\n\nArgs:\n{arguments}"
        return function

    return give


def parameters(options: type[Options]) -> list[inspect.Parameter]:
    """Return the fields as keyword-only parameters, those of `first_in_form` first.

    Bounds and descriptions are in the annotation. A default that depends on other fields is None here.
    """
    result = []
    rest = (name for name in options.model_fields if name not in options.first_in_form)
    for name in (*options.first_in_form, *rest):
        field = options.model_fields[name]
        annotation: Any = field.annotation
        default: Any = inspect.Parameter.empty if field.is_required() else field.get_default()
        if field.default_factory is not None:
            annotation, default = annotation | None, None
        annotated = Annotated[annotation, *(field.metadata or [None]), Field(description=field.description)]
        result.append(inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotated))
    return result


def group_of(options: type[Options], name: str) -> str:
    """Return the heading under which `--help` lists a field: that of the class which declares it."""
    for base in options.__mro__:
        if name in vars(base).get("__annotations__", {}):
            heading: str = base.heading  # type: ignore[attr-defined]
            return heading
    raise KeyError(name)
