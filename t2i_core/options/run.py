"""`RunOptions`: the part of the configuration that says on which device, in what portions, and what to do again."""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import BaseModel, Field, field_validator, model_validator

from t2i_core.options.values import Key


class RunOptions(BaseModel):
    """Options of the work: on which device, in what portions, and what to do again."""

    heading: ClassVar = "Run"

    device: Annotated[str, Field(pattern=r"^(auto|cpu|mps|(cuda|xpu)(:\d+)?)$")] = Field(
        "auto", description="Device of the model: auto, cpu, mps, cuda, cuda:1 or xpu."
    )
    batch_size: Annotated[int, Field(ge=1, le=1024)] | Literal["auto"] = Field(
        4, description="Images per call of the model; auto: measured once per output folder, then kept."
    )
    save_interval: int = Field(
        10, ge=1, le=10_000, description="Batches per shard; a shard is one task with one stored result."
    )
    retries: int = Field(
        2, ge=0, le=100, description="Retries of a task after a transient failure (network, busy GPU)."
    )
    max_failures: float = Field(
        0, ge=0, allow_inf_nan=False, description="Failures tolerated: a count, or a share below 1 such as 0.01."
    )
    retry_failed: bool = Field(False, description="Try again the images that failed permanently in earlier runs.")
    only: list[Key] | None = Field(
        None,
        min_length=1,
        description="Make only these images again: sample12_condition0, sample12_condition0_1, keys, or a file of them "
        "(.txt, or a review .csv: those with keep = no). All others stay as they are.",
    )
    reseed: bool = Field(
        False, description="With retry_failed or only: give the images that are made again a new seed."
    )
    refresh: bool = Field(False, description="Generate every image again.")
    replace: bool = Field(False, description="Let another data set take over the output folder.")
    prune: bool = Field(False, description="Delete stored images that the manifest does not name.")
    part: Annotated[str, Field(pattern=r"^(auto(/[1-9]\d*)?|\d+/\d+)$")] | None = Field(
        None,
        description="Make only the images of part 3/64, and no manifest; auto: the part that a Slurm array or torchrun "
        "names, auto/64: that of an indexed Job.",
    )
    status: bool = Field(False, description="Only say what is made, failed and missing, in all and by part.")
    preview: int | None = Field(
        None, ge=1, description="Make only N images, spread over the data set, and preview.jpg to look at."
    )
    verify: bool = Field(
        False,
        description="Only look whether all is right: decode every stored image, and compare records, names and "
        "manifest; exit code 4 where something is not.",
    )
    repair: bool = Field(False, description="With verify: make what is damaged again, and go on as any run.")
    dry_run: bool = Field(False, description="Only say what a run would generate, and how much disk it needs.")
    estimate: bool = Field(False, description="Like dry_run, and load the model to estimate time and memory.")

    @field_validator("max_failures")
    @classmethod
    def _whole_counts(cls, value: float) -> float:
        if value >= 1 and value != int(value):
            raise ValueError("write a whole number, or a share below 1 such as 0.01")
        return value

    @model_validator(mode="after")
    def _which_images(self) -> Self:
        if self.reseed and not (self.retry_failed or self.only):
            raise ValueError("reseed only concerns images tried again; add retry_failed, or name images with only")
        for name in ("refresh", "retry_failed", "preview", "part", "status"):
            if self.only and getattr(self, name):
                raise ValueError(f"only names the images to make, and {name} concerns all; leave one of them out")
        return self

    @model_validator(mode="after")
    def _verify_stands_alone(self) -> Self:
        if self.repair and not self.verify:
            raise ValueError("repair makes again what verify finds damaged; add verify")
        for name in ("preview", "part", "status", "dry_run", "estimate"):
            if self.verify and getattr(self, name):
                raise ValueError(f"verify looks at all of an output, and {name} does something else; leave one out")
        return self
