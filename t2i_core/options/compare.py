"""`CompareOptions`: the options of the command that shows several outputs side by side."""

from typing import Annotated, ClassVar

from pydantic import Field, field_validator

from t2i_core.local_paths import local_path
from t2i_core.options.command import Options
from t2i_core.options.values import Key


class CompareOptions(Options):
    """Options of a comparison: which outputs, where the page goes, and what it shows."""

    heading: ClassVar = "Comparison"
    positional = ("outputs",)

    outputs: Annotated[list[Key], Field(min_length=2, max_length=6)] = Field(
        description="Output folders of two to six text2image runs over the same prompts."
    )
    to: Key = Field("comparison", description="Folder for the page; it is written anew if it is a comparison already.")
    by: Annotated[str, Field(pattern=r"^-?[A-Za-z_]\w*$")] | None = Field(
        None,
        description="Numeric column of images.parquet : those that differ most in it come first (score_clip). "
        "Default: images spread over the data set, in its order.",
    )
    limit: int = Field(200, ge=1, le=5000, description="Show only N images of each run.")

    @field_validator("outputs")
    @classmethod
    def _outputs_are_local(cls, value: list[str]) -> list[str]:
        paths = [local_path(path, "name a local folder") for path in value]
        if len({path.rstrip("/") for path in paths}) < len(paths):
            raise ValueError("names one folder twice; name different outputs")
        return paths

    @field_validator("to")
    @classmethod
    def _to_is_local(cls, value: str) -> str:
        return local_path(value, "name a local folder")
