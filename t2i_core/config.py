"""The configuration of a run: `Config`, and `RowSettings` for what a row may set for itself.

`Config` is flat: a field has the same name as a command line flag, a flow parameter, a key of `--config run.yaml` and a
parameter in `prefect.yaml`. Its base classes group the fields for readers and for `--help`.
"""

import math
import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator, model_validator

from t2i_core.config_errors import problems_of
from t2i_core.errors import ConfigError, shorten
from t2i_core.json_values import flat_object
from t2i_core.local_paths import is_url, local_path
from t2i_core.speed_options import SpeedOptions

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


class DatasetOptions(BaseModel):
    """Options of the input: where it is, and what its columns mean."""

    heading: ClassVar = "Data set"

    dataset: Key | Annotated[list[Key], Field(min_length=1)] = Field(
        EXAMPLE,
        description="File of prompts (.jsonl .ndjson .json .csv .tsv .parquet .txt, text also .gz .bz2 .xz .zst), a "
        "folder of them, a glob, s3://, https:// or hf://, hf:name[:config]:split, or 'example' for the bundled one. "
        "Several are read one after the other.",
    )
    conversation_key: Key = Field(
        "conversations", description="Column with the conversation of a row, or a path such as body.messages."
    )
    prompt_key: Key | None = Field(
        None, description="Column with a plain prompt, or a path such as body.prompt; replaces the conversation."
    )
    image_key: Key = Field("images", description="Column for image paths; a row that has some already is skipped.")
    id_key: Key | None = Field(None, description="Column whose value names the files instead of the row number.")
    roles: list[Key] = Field(["user"], min_length=1, description="Roles whose messages are prompts.")
    settings_key: Key = Field("generation", description="Column with settings of a row: seed, steps, height, ...")
    prompt_template: str | None = Field(None, description='Text around every prompt, for example "{prompt}, photo".')
    limit: int | None = Field(None, ge=1, description="Read only the first N rows.")

    @field_validator("prompt_template")
    @classmethod
    def _template_has_the_prompt(cls, value: str | None) -> str | None:
        if value is not None and "{prompt}" not in value:
            raise ValueError('has no {prompt}; write where the prompt goes, for example "{prompt}, photo"')
        return value


class ModelOptions(BaseModel):
    """Options of the model: which one, and how it is loaded."""

    heading: ClassVar = "Model"

    model: str = Field(
        default_factory=lambda data: DEMO if data.get("dataset") == EXAMPLE else DEFAULT_MODEL,
        min_length=1,
        description="Preset name, hub id, folder, or a .safetensors file of a whole model. Default: flux-dev; for "
        "the bundled example 'demo', which knows fewer than 200 English words.",
    )
    base: Key | None = Field(
        None,
        description="With a file as the model: preset, hub id or folder of the pipeline that it belongs to, for its "
        "configuration and for what the file lacks. Default: what diffusers takes it for.",
    )
    transformer: Key | None = Field(
        None,
        description="Transformer or unet in place of the model's own: a .safetensors or .gguf file, a folder, or on "
        "the hub owner/name, owner/name/folder, owner/name/file.gguf.",
    )
    revision: Key | None = Field(None, description="Branch, tag or commit of a hub model.")
    variant: Annotated[str, Field(pattern=r"^[A-Za-z0-9_]+$")] | None = Field(
        None, description="Variant of the weights, where a part of the model has it: fp16 for *.fp16.safetensors."
    )
    cache_dir: Key | None = Field(None, description="Hub cache folder. Default: the hub's own.")
    local_dir: Key | None = Field(None, description="Folder for plain copies of hub models, one subfolder a model.")
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = Field(
        "auto", description="Number format of the weights; auto: the preset's, else that of the weights."
    )
    prepare: Annotated[str, Field(pattern=r"^(.+\.py|[A-Za-z_][\w.]*):[A-Za-z_]\w*$")] | None = Field(
        None,
        description="Your function, module:function or file.py:function, called with the loaded pipeline; part of an "
        "image's identity.",
    )
    lora: list[Key] = Field([], description="LoRA files or hub ids, with an optional weight: style.safetensors:0.8")
    lora_partial: bool = Field(False, description="Use a LoRA even if the model has no place for some of its weights.")


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
    reseed: bool = Field(False, description="With retry_failed: give the images that are tried again a new seed.")
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
    dry_run: bool = Field(False, description="Only say what a run would generate, and how much disk it needs.")
    estimate: bool = Field(False, description="Like dry_run, and load the model to estimate time and memory.")

    @field_validator("max_failures")
    @classmethod
    def _whole_counts(cls, value: float) -> float:
        if value >= 1 and value != int(value):
            raise ValueError("write a whole number, or a share below 1 such as 0.01")
        return value


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
    public_url: Annotated[str, Field(pattern=r"^https?://\S+$")] | None = Field(
        None, description="URL under which the output folder is served, for links in Prefect's UI."
    )
    png_compress_level: int = Field(1, ge=0, le=9, description="PNG compression: 1 is fast, 9 is small; same pixels.")

    @field_validator("manifest_name")
    @classmethod
    def _not_another_file(cls, value: str) -> str:
        if value == "failures.jsonl":
            raise ValueError("failures.jsonl is where failures are written; choose another name")
        return value


# Bases in reverse: pydantic collects fields from the last base to the first, and a default may look at earlier fields.
class Config(OutputOptions, RunOptions, SpeedOptions, SamplingOptions, ModelOptions, DatasetOptions):
    """Every option of one run. Unknown keys, wrong types and impossible combinations are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    @model_validator(mode="before")
    @classmethod
    def _none_means_default(cls, values: Any) -> Any:
        """Drop null values: a form and a YAML file write null for "not set"."""
        return {k: v for k, v in values.items() if v is not None} if isinstance(values, dict) else values

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
        if self.reseed and not self.retry_failed:
            raise ValueError("reseed only concerns images tried again; add retry_failed")
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

    @classmethod
    def from_values(cls, values: Mapping[str, object], source: str = "") -> Self:
        """Return the configuration that `values` describe. `source` names the file they come from, for messages.

        Raises:
            ConfigError: with a line for each wrong field.
        """
        try:
            return cls.model_validate(dict(values))
        except ValidationError as error:
            where = f"{source}: " if source else ""
            problems = problems_of(error, cls.model_fields, "see --help for the options")
            raise ConfigError([f"{where}{problem}" for problem in problems]) from None

    @property
    def dataset_names(self) -> list[str]:
        """Return the names of what the data set consists of: files, folders, globs, URLs, splits on the hub."""
        return [self.dataset] if isinstance(self.dataset, str) else self.dataset

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


def parse_size(size: str) -> tuple[int, int]:
    """Return (width, height) of `WIDTHxHEIGHT`, in pixels."""
    width, height = size.split("x")
    return int(width), int(height)


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
