"""`SelectionOptions`: the part of a command's options that says which images it takes."""

from typing import Annotated, ClassVar, Self

from pydantic import BaseModel, Field, model_validator

from t2i_core.options.values import Key


class SelectionOptions(BaseModel):
    """Options that choose among the images of a finished output. The rules apply in this order; default: all images."""

    heading: ClassVar = "Selection"

    review: Key | None = Field(
        None, description="CSV file with the columns key and keep (yes or no): images with no are left out."
    )
    where: Key | None = Field(
        None, description='Condition on columns of images.parquet, for example "score_clip > 0.28 and not duplicate".'
    )
    best_of: int | None = Field(None, ge=1, description="Keep only the best N images of each prompt, by --by.")
    by: Annotated[str, Field(pattern=r"^-?[A-Za-z_]\w*$")] | None = Field(
        None, description="Numeric column of images.parquet for --best-of; high is best, with --by=-COLUMN low is best."
    )
    limit: int | None = Field(None, ge=1, description="Keep only the first N of the images that are left.")

    @model_validator(mode="after")
    def _best_by_something(self) -> Self:
        if (self.best_of is None) != (self.by is None):
            raise ValueError("best_of and by go together: so many images of a prompt, and by which column")
        return self
