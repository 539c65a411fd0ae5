"""`SamplingOptions`: the part of the configuration that decides images, for rows that do not set it themselves."""

from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, Field, field_validator

from t2i_core.json_values import flat_object
from t2i_core.options.values import (
    SIDE_MAX,
    SIDE_MIN,
    Guidance,
    ImagesPerPrompt,
    Seed,
    Side,
    Size,
    Steps,
    parse_size,
)


class SamplingOptions(BaseModel):
    """Options of sampling, for the rows that do not set their own."""

    heading: ClassVar = "Sampling (default: the model's own)"

    steps: Steps | None = Field(None, description="Denoising steps.")
    height: Side | None = Field(None, description="Image height in pixels.")
    width: Side | None = Field(None, description="Image width in pixels.")
    sizes: list[Size] | None = Field(
        None, min_length=1, description="Sizes WIDTHxHEIGHT, one chosen for each image by a hash of its seed."
    )
    guidance_scale: Guidance | None = Field(None, description="Guidance scale.")
    true_cfg_scale: Guidance | None = Field(None, description="True classifier-free guidance (FLUX, Qwen-Image).")
    negative_prompt: str | None = Field(None, description="Negative prompt.")
    max_sequence_length: int | None = Field(None, ge=1, le=4096, description="Text tokens the model reads.")
    scheduler: Annotated[str, Field(pattern=r"^[A-Z]\w+$")] | None = Field(
        None, description="diffusers scheduler class in place of the model's, e.g. EulerDiscreteScheduler."
    )
    scheduler_options: dict[str, Any] | None = Field(
        None,
        description="Options of the scheduler over the model's own, as JSON, e.g. '{\"use_karras_sigmas\": true}'.",
    )
    images_per_prompt: ImagesPerPrompt = Field(1, description="Images of each prompt.")
    seed: Seed = Field(0, description="Base seed; each image's own seed is derived from it and the prompt.")

    @field_validator("scheduler_options", mode="before")
    @classmethod
    def _options_are_an_object(cls, value: object) -> object:
        """Return the options as a dict of JSON types: a command line gives them as JSON text."""
        try:
            return flat_object(value)
        except ValueError as error:
            raise ValueError(f'{error}; write an object such as {{"use_karras_sigmas": true}}') from None

    @field_validator("sizes")
    @classmethod
    def _sides_within_bounds(cls, value: list[str] | None) -> list[str] | None:
        for size in value or []:
            if not all(SIDE_MIN <= side <= SIDE_MAX for side in parse_size(size)):
                raise ValueError(f"{size} has a side outside {SIDE_MIN} to {SIDE_MAX}; write another size")
        return value
