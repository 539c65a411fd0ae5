"""The configuration of a run: `Config`, and `RowSettings` for what a row may set for itself.

`Config` is flat: a field has the same name as a command line flag, a flow parameter, a key of `--config run.yaml` and a
parameter in `prefect.yaml`. Its base classes, in `t2i_core.options`, group the fields for readers and for `--help`.
"""

import math
import re
from typing import Any, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator, model_validator

from t2i_core.errors import shorten
from t2i_core.local_paths import is_url, local_path
from t2i_core.options.command import Options
from t2i_core.options.dataset import DatasetOptions
from t2i_core.options.model import ModelOptions
from t2i_core.options.output import OutputOptions
from t2i_core.options.run import RunOptions
from t2i_core.options.sampling import SamplingOptions
from t2i_core.options.speed import SpeedOptions
from t2i_core.options.values import Guidance, ImagesPerPrompt, Seed, Side, Steps

# The options that name something on this machine -> what to write in place of a URL.
PATHS = {
    "dataset": "write s3://, https:// or hf:// for a file elsewhere, or hf:name:split",
    "model": "name a preset, a hub id owner/name, or a local folder or file",
    "base": "name a preset, a hub id owner/name, or a local folder",
    "transformer": "download the file and name it, or write owner/name/file for one on the hub",
    "cache_dir": "name a local folder",
    "local_dir": "name a local folder",
    "lora": "download the file and name it, or write a hub id owner/name",
    "prepare": "download the file and name it",
    "output": "name a local folder",
}


# Bases in reverse: pydantic collects fields from the last base to the first, and a default may look at earlier fields.
class Config(Options, OutputOptions, RunOptions, SpeedOptions, SamplingOptions, ModelOptions, DatasetOptions):
    """Every option of one run. Unknown keys, wrong types and impossible combinations are refused."""

    positional = ("dataset",)
    # What people change.
    first_in_form = (
        *("dataset", "prompt_key", "model", "output", "images_per_prompt"),
        *("steps", "height", "width", "guidance_scale", "seed", "batch_size"),
    )

    @field_validator(*PATHS)
    @classmethod
    def _paths_are_local(cls, value: Any, info: ValidationInfo) -> Any:
        """Expand `~` in every path, and refuse what is no path on this machine.

        A validator of `Config`, not of the types: Prefect checks a flow's parameters by the types, and would refuse a
        deployed run in its own words.
        """
        assert info.field_name is not None
        instead = PATHS[info.field_name]
        if value is None:
            return None
        if info.field_name == "dataset":
            names = [_data_set(name) for name in ([value] if isinstance(value, str) else value)]
            return names[0] if len(names) == 1 else names
        if info.field_name == "prepare":
            return _local_prepare(value, instead)
        if isinstance(value, list):
            return [_local_lora(entry, instead) for entry in value]
        return local_path(value, instead)

    @model_validator(mode="after")
    def _possible_combination(self) -> Self:
        if self.sizes and (self.height or self.width):
            raise ValueError("sizes excludes height and width; give one or the other")
        if self.embed_metadata == "none" and self.named_images == "never":
            raise ValueError("embed_metadata none concerns named images; leave named_images never out")
        if self.prune and (self.limit or self.preview):
            option = "limit" if self.limit else "preview"
            raise ValueError(f"prune deletes images of rows that {option} leaves out; leave one of them out")
        if self.part and not self.part.startswith("auto"):
            number, total = map(int, self.part.split("/"))
            if not 1 <= number <= total:
                raise ValueError(f"part {self.part} does not exist; write one from 1/{total or 64} on")
        for name in ("preview", "prune", "status"):
            if self.part and getattr(self, name):
                raise ValueError(f"{name} concerns all images, and part only some; leave one of them out")
        if self.step_cache != "none" and self.scheduler:
            raise ValueError("step_cache counts the steps of the model's own scheduler; leave scheduler out")
        keys = {"image_key": self.image_key}
        # Prefect passes defaults as if the user had set them. A column of another meaning may have the default name of
        # the settings; then rows have none.
        if self.settings_key != type(self).model_fields["settings_key"].default:
            keys["settings_key"] = self.settings_key
        keys |= {"prompt_key": self.prompt_key} if self.prompt_key else {"conversation_key": self.conversation_key}
        for name, key in keys.items():
            clash = [other for other, value in keys.items() if value == key and other != name]
            if clash:
                raise ValueError(f"{name} and {clash[0]} are both {key!r}; name two different columns")
        return self

    @property
    def dataset_names(self) -> list[str]:
        """Return the names of what the data set consists of: files, folders, globs, URLs, splits on the hub."""
        return [self.dataset] if isinstance(self.dataset, str) else self.dataset

    @property
    def only_looks(self) -> bool:
        """Whether a run makes and writes nothing: it says what there is, and what is to be made."""
        return self.dry_run or self.estimate or self.status or self.only_verifies

    @property
    def needs_device(self) -> bool:
        """Whether a run loads the model: to make images, or to measure its speed."""
        return self.estimate or not self.only_looks

    @property
    def only_verifies(self) -> bool:
        """Whether a run looks at what the last run left, whatever data set and model are named."""
        return self.verify and not self.repair

    @property
    def dataset_title(self) -> str:
        """Return how messages call the data set: by its name, or by the first of several."""
        first, *others = self.dataset_names
        return f"{first} and {len(others)} more" if others else first

    @property
    def model_is_implied(self) -> bool:
        """Whether nobody named a model, so that the default must announce itself."""
        return "model" not in self.model_fields_set


class RowSettings(BaseModel):
    """The settings that a row has under `settings_key`, validated like the configuration; None: the run's."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    seed: Seed | None = None
    negative_prompt: str | None = None
    steps: Steps | None = None
    guidance_scale: Guidance | None = None
    height: Side | None = None
    width: Side | None = None
    images_per_prompt: ImagesPerPrompt | None = None


def parse_lora(entry: str) -> tuple[str, float]:
    """Return (name, weight) of `file-or-hub-id[:weight]`; the weight defaults to 1.

    Raises:
        ValueError: for a colon that no number follows.
    """
    name, colon, weight = entry.rpartition(":")
    if not colon or weight.endswith((".safetensors", "/")) or re.match(r"^[\\/]", weight):
        return entry, 1.0
    try:
        number = float(weight)
        if not math.isfinite(number):
            raise ValueError
        return name, number
    except ValueError:
        raise ValueError(f"{entry!r} ends in no number; write FILE:WEIGHT, for example style.safetensors:0.8") from None


def _local_lora(entry: str, instead: str) -> str:
    # A URL as a whole, for the port in it may look like a weight.
    name = entry if is_url(entry) else parse_lora(entry)[0]
    try:
        return local_path(name, instead) + entry.removeprefix(name)
    except ValueError as error:
        raise ValueError(f"{shorten(entry)}: {error}") from None


def _data_set(name: str) -> str:
    if not is_url(name):
        return local_path(name, "")
    if urlsplit(name).password:
        raise ValueError("holds a password; leave it out of the address, for example in favour of ~/.netrc")
    return name


def _local_prepare(entry: str, instead: str) -> str:
    module, _, function = entry.rpartition(":")
    return f"{local_path(module, instead)}:{function}" if module.endswith(".py") else entry
