"""The one configuration object.

`Config` is flat: a field has the same name as a command line flag, a flow parameter, a key of `--config run.yaml` and a
parameter in `prefect.yaml`. The five mixins only group the fields for readers and for `--help`.
"""

import difflib
import inspect
import math
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from t2i_core.errors import ConfigError, shorten

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

# First in Prefect's form, which shows the parameters one below the other: what people change.
FIRST_IN_FORM = (
    *("dataset", "prompt_key", "model", "output", "images_per_prompt"),
    *("steps", "height", "width", "guidance_scale", "seed", "batch_size"),
)

# What to say where a pattern does not match: the pattern itself helps nobody.
PATTERN_FIX = {
    "sizes": "write WIDTHxHEIGHT, for example 1216x832",
    "device": "write auto, cpu, mps, cuda, cuda:1 or xpu",
    "scheduler": "write the name of a diffusers scheduler class, for example EulerDiscreteScheduler",
    "public_url": "write an http:// or https:// address",
    "manifest_name": "write a plain file name that ends in .jsonl",
}


class DatasetOptions(BaseModel):
    """Data set"""

    dataset: str = Field(
        EXAMPLE,
        min_length=1,
        description="File of prompts (.jsonl .json .csv .tsv .parquet .txt, each also .gz), hf:name[:config]:split, or "
        "'example' for the bundled one.",
    )
    conversation_key: Key = Field("conversations", description="Column that holds the conversation of a row.")
    prompt_key: Key | None = Field(None, description="Column that holds a plain prompt; replaces the conversation.")
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
    """Model"""

    model: str = Field(
        default_factory=lambda data: DEMO if data.get("dataset") == EXAMPLE else DEFAULT_MODEL,
        min_length=1,
        description="Preset name, hub id or folder. Default: flux-dev; 'demo' for the bundled example.",
    )
    revision: Key | None = Field(None, description="Branch, tag or commit of a hub model.")
    cache_dir: Key | None = Field(None, description="Hub cache folder. Default: the hub's own.")
    local_dir: Key | None = Field(None, description="Folder for plain copies of hub models, one subfolder a model.")
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = Field("auto", description="auto: the preset's.")
    quantization: Literal["none", "fp8", "int8", "nf4"] = Field(
        "none", description="Smaller weights of denoiser and large text encoders; other pixels, so other images."
    )
    prepare: Annotated[str, Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")] | None = Field(
        None, description="Your function module:function, called with the loaded pipeline; part of an image's identity."
    )
    lora: list[Key] = Field([], description="LoRA files or hub ids, with an optional weight: style.safetensors:0.8")

    @field_validator("lora")
    @classmethod
    def _lora_weights_are_numbers(cls, value: list[str]) -> list[str]:
        for entry in value:
            parse_lora(entry)
        return value


class SamplingOptions(BaseModel):
    """Sampling (default: the model's own)"""

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
    images_per_prompt: ImagesPerPrompt = Field(1, description="Images of each prompt.")
    seed: Seed = Field(0, description="Base seed; each image's own seed is derived from it and the prompt.")

    @field_validator("sizes")
    @classmethod
    def _sides_within_bounds(cls, value: list[str] | None) -> list[str] | None:
        for size in value or []:
            if not all(SIDE_MIN <= side <= SIDE_MAX for side in parse_size(size)):
                raise ValueError(f"{size} has a side outside {SIDE_MIN} to {SIDE_MAX}; write another size")
        return value


class RunOptions(BaseModel):
    """Run"""

    device: Annotated[str, Field(pattern=r"^(auto|cpu|mps|(cuda|xpu)(:\d+)?)$")] = Field(
        "auto", description="auto, cpu, mps, cuda, cuda:1, xpu."
    )
    text_encoder: Literal["auto", "resident", "staged"] = Field(
        "auto", description="Keep text encoders on the device, or only while they encode; auto: as memory allows."
    )
    offload: Literal["none", "model", "group"] = Field(
        "none", description="Weights in host memory, brought to the device by the model or by the layer."
    )
    compile: bool = Field(False, description="Compile the denoiser's blocks (torch.compile, by region).")
    batch_size: Annotated[int, Field(ge=1, le=1024)] | Literal["auto"] = Field(
        4, description="Images the model makes in one call; auto: measured once for an output, then kept."
    )
    save_interval: int = Field(10, ge=1, le=10_000, description="Batches in a shard: one task, one stored result.")
    retries: int = Field(2, ge=0, le=100, description="Retries of a task that failed for a passing reason.")
    max_failures: float = Field(
        0, ge=0, allow_inf_nan=False, description="Failures tolerated: a count, or a share below 1 such as 0.01."
    )
    retry_failed: bool = Field(False, description="Try again what failed for a lasting reason in earlier runs.")
    reseed: bool = Field(False, description="With retry_failed: give those images a new seed.")
    refresh: bool = Field(False, description="Make every image again.")
    replace: bool = Field(False, description="Let another data set take over the output folder.")
    prune: bool = Field(False, description="Delete stored images that the manifest does not name.")
    dry_run: bool = Field(False, description="Say what would be made, and stop.")
    estimate: bool = Field(False, description="The same with time and memory, measured with the model, and stop.")

    @field_validator("max_failures")
    @classmethod
    def _whole_counts(cls, value: float) -> float:
        if value >= 1 and value != int(value):
            raise ValueError("write a whole number, or a share below 1 such as 0.01")
        return value


class OutputOptions(BaseModel):
    """Output"""

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
    manifest_name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_. -]*\.jsonl$")] = Field(
        "manifest.jsonl", description="File name of the manifest."
    )
    named_images: Literal["auto", "always", "never"] = Field(
        "auto", description="Images also under sample{row}_condition{message}; auto: up to 100,000 images."
    )
    public_url: Annotated[str, Field(pattern=r"^https?://\S+$")] | None = Field(
        None, description="Where the output folder is served, for links in Prefect's UI."
    )
    png_compress_level: int = Field(1, ge=0, le=9, description="1 is fast, 9 is small; the pixels are the same.")

    @field_validator("manifest_name")
    @classmethod
    def _not_another_file(cls, value: str) -> str:
        if value == "failures.jsonl":
            raise ValueError("failures.jsonl is where failures are written; choose another name")
        return value


# Mixins in reverse: pydantic collects fields from the last base to the first, and a default may look at earlier fields.
class Config(OutputOptions, RunOptions, SamplingOptions, ModelOptions, DatasetOptions):
    """Everything a run can be told. Unknown keys, wrong types and impossible combinations are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    @model_validator(mode="before")
    @classmethod
    def _none_means_default(cls, values: Any) -> Any:
        """A form or a YAML file says null for "not set"; the defaults that depend on other fields count on absence."""
        return {k: v for k, v in values.items() if v is not None} if isinstance(values, dict) else values

    @model_validator(mode="after")
    def _possible_combination(self) -> Self:
        if self.sizes and (self.height or self.width):
            raise ValueError("sizes excludes height and width; give one or the other")
        if self.reseed and not self.retry_failed:
            raise ValueError("reseed only concerns images tried again; add retry_failed")
        if self.offload != "none" and self.text_encoder != "auto":
            raise ValueError("offload moves the text encoders, too; leave text_encoder out")
        keys = {"image_key": self.image_key, "settings_key": self.settings_key}
        keys |= {"prompt_key": self.prompt_key} if self.prompt_key else {"conversation_key": self.conversation_key}
        for name, key in keys.items():
            clash = [other for other, value in keys.items() if value == key and other != name]
            if clash:
                raise ValueError(f"{name} and {clash[0]} are both {key!r}; name two different columns")
        return self

    @classmethod
    def from_values(cls, values: Mapping[str, object], source: str = "") -> Self:
        """Validate `values`; every problem becomes one line. `source` names a file, for the message.

        Raises:
            ConfigError: with a line for each wrong field.
        """
        try:
            return cls.model_validate(dict(values))
        except ValidationError as error:
            # A default that depends on a wrong field has nothing to say of its own.
            errors = [e for e in error.errors() if e["type"] != "default_factory_not_called"]
            raise ConfigError([explain(e, cls, source) for e in _one_a_choice(errors)]) from None

    @property
    def model_is_implied(self) -> bool:
        """True when nobody named a model, so that the default must announce itself."""
        return "model" not in self.model_fields_set


class RowSettings(BaseModel):
    """What a row may set for itself under `settings_key`; validated like the configuration."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    seed: Seed | None = None
    negative_prompt: str | None = None
    steps: Steps | None = None
    guidance_scale: Guidance | None = None
    height: Side | None = None
    width: Side | None = None
    images_per_prompt: ImagesPerPrompt | None = None


def _one_a_choice(errors: list[Any]) -> list[Any]:
    """Of a field that takes one type or another pydantic says what is wrong by each: here in one sentence."""
    result: dict[tuple[Any, ...], Any] = {}
    for error in errors:
        # In a list the second part of the place is a number; of a choice it is the type's name.
        place = error["loc"] if len(error["loc"]) < 2 or isinstance(error["loc"][1], int) else error["loc"][:1]
        if place in result and len(place) == 1 and place != error["loc"]:
            other = error["msg"].removeprefix("Input should be ")
            result[place] = result[place] | {"msg": f"{result[place]['msg']}, or {other}"}
        else:
            result[place if place not in result else (*place, len(result))] = error
    return list(result.values())


def explain(error: Any, model: type[BaseModel], source: str = "") -> str:
    """One line for one pydantic error: field, what is wrong, the value received, the fix."""
    field = str(error["loc"][0]) if error["loc"] else ""
    where = f"{source}: " if source else ""
    message = str(error["msg"]).removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        close = _closest(field, list(model.model_fields))
        fix = f"did you mean {close}?" if close else "see --help for the options"
        return f"{where}{field}: unknown option; {fix}"
    if not field:
        return f"{where}{message}"
    if error["type"] == "string_pattern_mismatch":
        message = PATTERN_FIX[field]
    return f"{where}{field}: {_lower_first(message)} (got {shorten(error['input'])})"


def parse_lora(entry: str) -> tuple[str, float]:
    """`file-or-hub-id[:weight]` -> (name, weight); the weight defaults to 1."""
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
    """`WIDTHxHEIGHT` -> (width, height)."""
    width, height = size.split("x")
    return int(width), int(height)


def parameters() -> list[inspect.Parameter]:
    """The fields as keyword-only parameters, the one source of the flow's signature and of the command line.

    Those of `FIRST_IN_FORM` come first. Bounds and descriptions travel in the annotation. A default that depends on
    other fields is None here.
    """
    result = []
    rest = (name for name in Config.model_fields if name not in FIRST_IN_FORM)
    for name in (*FIRST_IN_FORM, *rest):
        field = Config.model_fields[name]
        annotation: Any = field.annotation
        default = field.get_default()
        if field.default_factory is not None:
            annotation, default = annotation | None, None
        annotated = Annotated[annotation, *(field.metadata or [None]), Field(description=field.description)]
        result.append(inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotated))
    return result


def group_of(name: str) -> str:
    """The heading under which `--help` lists a field: the docstring of the mixin that defines it."""
    owner = next(base for base in Config.__mro__[1:] if name in inspect.get_annotations(base))
    return inspect.getdoc(owner) or ""


def _closest(name: str, known: list[str]) -> str | None:
    matches = difflib.get_close_matches(name.replace("-", "_"), known, n=1)
    return matches[0] if matches else None


def _lower_first(text: str) -> str:
    return text[:1].lower() + text[1:]
