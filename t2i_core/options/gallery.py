"""`GalleryOptions`: every option of the command `gallery`."""

from typing import ClassVar

from pydantic import Field

from t2i_core.options.command import Options


class GalleryOptions(Options):
    """Options of the command that writes the gallery of a finished output."""

    heading: ClassVar = "Gallery"
    positional: ClassVar = ("output",)

    output: str = Field(min_length=1, description="Output folder of a text2image run.")
