"""`ChooseOptions`: the options of the command that writes down a choice among images."""

from typing import ClassVar

from pydantic import field_validator
from pydantic.fields import Field

from t2i_core.local_paths import local_path
from t2i_core.options.command import Options
from t2i_core.options.selection import SelectionOptions
from t2i_core.options.values import Key


class ChooseOptions(Options, SelectionOptions):
    """Options of a choice: which output, by which rules, and where it is written."""

    heading: ClassVar = "Output"
    positional = ("output",)

    output: Key = Field(description="Output folder of a text2image run.")

    @field_validator("output")
    @classmethod
    def _output_is_local(cls, value: str) -> str:
        return local_path(value, "name a local folder")
