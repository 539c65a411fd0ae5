"""`Options`: what the options of every command have in common."""

from collections.abc import Mapping
from typing import Any, ClassVar, Self

from pydantic import ConfigDict, ValidationError, model_validator

from t2i_core.config_errors import problems_of
from t2i_core.errors import ConfigError
from t2i_core.options.server import ServerOptions


class Options(ServerOptions):
    """Every option of one command. Unknown keys, wrong types and impossible combinations are refused.

    A field is a flag, a flow parameter and a key of a `--config` file. `heading` is the title above its fields in
    `--help`; base classes may have headings of their own.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    heading: ClassVar[str] = "Options"
    # Fields that may be given without their flag.
    positional: ClassVar[tuple[str, ...]] = ()
    # First in Prefect's form, which shows the parameters one below the other.
    first_in_form: ClassVar[tuple[str, ...]] = ()

    @model_validator(mode="before")
    @classmethod
    def _none_means_default(cls, values: Any) -> Any:
        """Drop null values: a form and a YAML file write null for "not set"."""
        return {k: v for k, v in values.items() if v is not None} if isinstance(values, dict) else values

    @classmethod
    def from_values(cls, values: Mapping[str, object], source: str = "") -> Self:
        """Return the options that `values` describe. `source` names the file they come from, for messages.

        Raises:
            ConfigError: with a line for each wrong field.
        """
        try:
            return cls.model_validate(dict(values))
        except ValidationError as error:
            where = f"{source}: " if source else ""
            problems = problems_of(error, cls.model_fields, "see --help for the options")
            raise ConfigError([f"{where}{problem}" for problem in problems]) from None
