"""`OutputOptions`: the part of the configuration that says where the output is, and its form."""

from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, Field, field_validator

from t2i_core.options.values import DEMO, EXAMPLE


class OutputOptions(BaseModel):
    """Options of the output: where it is, and its form."""

    heading: ClassVar = "Output"

    output: str = Field(
        default_factory=lambda data: (
            "./cache_local/demo"
            if (data.get("dataset"), data.get("model")) == (EXAMPLE, DEMO)
            else "./cache_local/text2image_local"
        ),
        min_length=1,
        description="Folder for images and manifest. Default: ./cache_local/text2image_local; ./cache_local/demo for "
        "the bundled example with the demo model.",
    )
    manifest_name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_. -]*\.jsonl$", max_length=200)] = Field(
        "manifest.jsonl", description="File name of the manifest."
    )
    manifest_paths: Literal["output", "relative"] = Field(
        "output",
        description="Paths of images in the manifest: with the output folder as given, or relative to the manifest, so "
        "that the folder may be moved.",
    )
    named_images: Literal["auto", "always", "never"] = Field(
        "auto", description="Give images readable names (sample0_condition0_0.png), too; auto: up to 100,000 images."
    )
    embed_metadata: Literal["all", "none"] = Field(
        "all",
        description="What named images carry of their making; none: they are copies without metadata, for other eyes. "
        "Images by key always have their record.",
    )
    gallery: Literal["auto", "always", "never"] = Field(
        "auto",
        description="Write gallery/index.html to look at the images in a browser, and thumbnails for it; auto: up to "
        "100,000 images.",
    )
    public_url: Annotated[str, Field(pattern=r"^https?://\S+$")] | None = Field(
        None, description="URL under which the output folder is served, for links in Prefect's UI."
    )
    image_format: Literal["png", "webp", "jpeg"] = Field(
        "png", description="Format of stored images: png and webp keep every pixel, jpeg is smaller and does not."
    )
    png_compress_level: int = Field(1, ge=0, le=9, description="PNG compression: 1 is fast, 9 is small; same pixels.")
    jpeg_quality: int = Field(95, ge=1, le=100, description="Quality of JPEG, 1 to 100; colours in full resolution.")

    @field_validator("manifest_name")
    @classmethod
    def _not_another_file(cls, value: str) -> str:
        if value == "failures.jsonl":
            raise ValueError("failures.jsonl is where failures are written; choose another name")
        return value
