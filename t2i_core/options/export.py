"""`ExportOptions`: what is exported, and in which form."""

from typing import ClassVar, Literal

from pydantic import BaseModel, Field

from t2i_core.options.command import Options
from t2i_core.options.selection import SelectionOptions

FormatName = Literal[
    "imagefolder", "webdataset", "parquet", "captions",
    "diffsynth", "musubi", "llava", "qwen-vl", "llama-factory", "dataflow",
]  # fmt: skip


class FormOptions(BaseModel):
    """Options that say what an export looks like."""

    heading: ClassVar[str] = "Export"

    output: str = Field(min_length=1, description="Output folder of a run of text2image.")
    format: FormatName = Field(description="What the export is for.")
    to: str | None = Field(
        None, min_length=1, description="Folder of the export. Default: exports/FORMAT in the output."
    )
    caption: str | None = Field(
        None, min_length=1, description="Column of the input whose text takes the prompt's place."
    )
    split: str = Field(
        "train=1",
        description="Splits and their shares, for example train=0.95,val=0.05; all variants of a prompt are in one.",
    )
    images: Literal["link", "copy", "in-place"] | None = Field(
        None,
        description="Image files: hard links to those of the output, copies, or none of their own, so that the export "
        "names those of the output. Default: link for imagefolder and captions, in-place for lists of images.",
    )
    image_format: Literal["png", "webp", "jpeg"] | None = Field(
        None,
        description="Convert images: webp keeps every pixel, jpeg does not. Default: the bytes as they are stored.",
    )
    questions: str | None = Field(
        None,
        min_length=1,
        description="Text file with a question a line, of which each image gets one; {name} stands for a column.",
    )
    shard_size: int = Field(1000, ge=1, le=1_000_000, description="Images in a shard of webdataset and parquet.")


class ExportOptions(SelectionOptions, FormOptions, Options):
    """The options of an export."""

    positional: ClassVar[tuple[str, ...]] = ("output",)
    first_in_form: ClassVar[tuple[str, ...]] = ("output", "format", "to")
