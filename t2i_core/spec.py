"""An image spec: everything that decides one image's pixels, and its key.

The fields of the classes below are the one place where an argument of an image is declared. Derived from them: the key,
the columns of the plan and of the provenance table, what the images of a batch share, and the arguments of the
pipeline's call. A new argument is a field here, an option in `options/sampling.py`, a default in `models/presets.py`,
and whatever the engine has to do with it.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Self

import pyarrow as pa

from t2i_core.hashing import canonical_json, digest

# This project's own way of turning a spec into pixels; raised when that changes.
PIXELS_VERSION = 1


@dataclass(frozen=True, slots=True)
class Argument:
    """How a field of a spec is stored, and how the pipeline's call takes it."""

    column: pa.DataType  # of the plan and of images.parquet
    # The call's keyword, for an argument that all images of a batch share.
    keyword: str | None = None
    # The name in the canonical JSON, where it is not the field's own; then the field is always in it.
    json_name: str | None = None


def _argument(column: pa.DataType, keyword: str | None = None, json_name: str | None = None) -> dict[str, Argument]:
    return {"argument": Argument(column, keyword, json_name)}


@dataclass(frozen=True, kw_only=True)
class ModelSettings:
    """The model as it is loaded: the part of a spec that no row can change."""

    model: str = field(metadata=_argument(pa.string()))  # identity: the digest of the model's files
    dtype: str = field(metadata=_argument(pa.string()))
    # (SHA-256 of the file, weight), in the order they are applied; JSON text in a column
    adapters: tuple[tuple[str, float], ...] = field(default=(), metadata=_argument(pa.string()))
    quantization: str | None = field(default=None, metadata=_argument(pa.string()))
    # SHA-256 of the source of the user's own function
    prepare: str | None = field(default=None, metadata=_argument(pa.string()))
    # Backend of the denoiser's attention; None: torch's own choice
    attention: str | None = field(default=None, metadata=_argument(pa.string()))
    tf32: bool = field(default=False, metadata=_argument(pa.bool_()))
    step_cache: str | None = field(default=None, metadata=_argument(pa.string()))


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """The sampling settings of one image, resolved. None: the argument is not passed to the pipeline."""

    height: int = field(metadata=_argument(pa.int32(), "height"))
    width: int = field(metadata=_argument(pa.int32(), "width"))
    steps: int = field(metadata=_argument(pa.int32(), "num_inference_steps"))
    guidance_scale: float | None = field(default=None, metadata=_argument(pa.float64(), "guidance_scale"))
    true_cfg_scale: float | None = field(default=None, metadata=_argument(pa.float64(), "true_cfg_scale"))
    max_sequence_length: int | None = field(default=None, metadata=_argument(pa.int32(), "max_sequence_length"))
    negative_prompt: str | None = field(default=None, metadata=_argument(pa.string()))
    scheduler: str | None = field(default=None, metadata=_argument(pa.string()))
    # Canonical JSON of the scheduler's options, without those that the model has anyway
    scheduler_options: str | None = field(default=None, metadata=_argument(pa.string()))


@dataclass(frozen=True, kw_only=True)
class GenerationSettings(ModelSettings):
    """What all images of a run share, unless a row sets its own sampling."""

    sampling: Sampling


@dataclass(frozen=True, kw_only=True)
class ImageSpec(Sampling, ModelSettings):
    """What decides one image's pixels; nothing else belongs here.

    A new field needs a default that means "as before it existed": fields at their default stay out of the key, so no
    old key changes.
    """

    prompt: str = field(metadata=_argument(pa.string()))
    seed: int = field(metadata=_argument(pa.int64()))
    pixels_version: int = field(default=PIXELS_VERSION, metadata=_argument(pa.int32(), json_name="recipe"))

    def canonical(self) -> dict[str, Any]:
        """Return the fields that are not at their default, numbers in one form (3 and 3.0 are one guidance scale)."""
        result: dict[str, Any] = {}
        for name, argument in ARGUMENTS.items():
            value = getattr(self, name)
            if argument.json_name is None and value == _DEFAULTS.get(name, ...):
                continue
            if pa.types.is_floating(argument.column):
                value = float(value) + 0.0  # -0.0 becomes 0.0
            elif name == "adapters":
                value = [[sha256, float(weight) + 0.0] for sha256, weight in value]
            result[argument.json_name or name] = value
        return result

    @property
    def key(self) -> str:
        """The SHA-256 of the canonical JSON, in 64 hexadecimal digits."""
        return digest(self.canonical())

    @property
    def call_group(self) -> tuple[Any, ...]:
        """What must be equal for two specs to share a batch: the call's arguments that are not per image."""
        return (self.negative_prompt is None, *(getattr(self, name) for name in SHARED_ARGUMENTS))

    def to_row(self) -> dict[str, Any]:
        """Return a row of the columns that `ARGUMENTS` names."""
        row = {name: getattr(self, name) for name in ARGUMENTS}
        return row | {"adapters": json.dumps(self.adapters)}

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Self:
        """Return the spec that `to_row` wrote; other columns are ignored."""
        values = {name: row[name] for name in ARGUMENTS}
        values["adapters"] = tuple((sha256, weight) for sha256, weight in json.loads(row["adapters"]))
        return cls(**values)


# Field -> how it is stored and called. Prompt and seed come first: they are what people look for in a table.
ARGUMENTS: dict[str, Argument] = {
    item.name: item.metadata["argument"]
    for item in sorted(fields(ImageSpec), key=lambda item: item.name not in ImageSpec.__annotations__)
}
# The fields that all images of a batch share -> the keyword of the pipeline's call.
SHARED_ARGUMENTS: dict[str, str] = {name: item.keyword for name, item in ARGUMENTS.items() if item.keyword is not None}
_DEFAULTS = {item.name: item.default for item in fields(ImageSpec)}


class KeyMaker:
    """Makes the keys of specs that differ from an example in prompt and seed alone: a million of them in seconds."""

    def __init__(self, example: ImageSpec) -> None:
        fields = {
            name: f"{canonical_json(name)}:{canonical_json(value)}" for name, value in example.canonical().items()
        }
        before = [text for name, text in fields.items() if name < "prompt"]
        between = [fields[name] for name in sorted(fields) if "prompt" < name < "seed"]
        after = [fields[name] for name in sorted(fields) if name > "seed"]
        self._start = "{" + ",".join([*sorted(before), '"prompt":'])
        self._middle = ",".join(["", *between, '"seed":'])
        self._end = ",".join(["", *after]) + "}"
        assert self.key(example.prompt, example.seed) == example.key

    def key(self, prompt: str, seed: int) -> str:
        """Return `ImageSpec.key` of the example with another prompt and seed."""
        text = f"{self._start}{canonical_json(prompt)}{self._middle}{seed}{self._end}"
        return hashlib.sha256(text.encode("ascii")).hexdigest()
