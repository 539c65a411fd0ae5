"""What several groups of options share: names that mean something, and types of values with their bounds."""

from typing import Annotated

from pydantic import Field

EXAMPLE = "example"
DEMO = "demo"
DEFAULT_MODEL = "flux-dev"
# Exact in every JSON reader (below 2**53), with room for the i that is added for the i-th image of a prompt.
MAX_SEED = 2**53 - 10_000

Steps = Annotated[int, Field(ge=1, le=1000)]
SIDE_MIN, SIDE_MAX = 8, 16384
Side = Annotated[int, Field(ge=SIDE_MIN, le=SIDE_MAX)]
Guidance = Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)]
Seed = Annotated[int, Field(ge=0, le=MAX_SEED)]
ImagesPerPrompt = Annotated[int, Field(ge=1, le=1000)]
Key = Annotated[str, Field(min_length=1)]
Size = Annotated[str, Field(pattern=r"^\d{1,5}x\d{1,5}$")]


def parse_size(size: str) -> tuple[int, int]:
    """Return (width, height) of `WIDTHxHEIGHT`, in pixels."""
    width, height = size.split("x")
    return int(width), int(height)
