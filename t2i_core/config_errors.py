"""Messages for values that pydantic refuses: field, what is wrong, the value received, the fix."""

import difflib
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from t2i_core.errors import shorten

# What to write where a pattern does not match, by field: the pattern itself helps nobody.
PATTERN_FIXES = {
    "sizes": "write WIDTHxHEIGHT, for example 1216x832",
    "prepare": "write module:function or file.py:function, for example ./my_models.py:prepare",
    "variant": "write the name between the dots of the files, for example fp16",
    "part": "write part/parts, for example 3/64, or auto, or auto/64",
    "by": "write the name of a column, for example score_clip, or -score_niqe where low is best",
    "dask_scheduler": "write HOST:PORT, for example tcp://10.0.0.1:8786",
    "device": "write auto, cpu, mps, cuda, cuda:1 or xpu",
    "scheduler": "write the name of a diffusers scheduler class, for example EulerDiscreteScheduler",
    "public_url": "write an http:// or https:// address",
    "manifest_name": "write a plain file name that ends in .jsonl",
}

# What other tools call an option: diffusers, DataFlow-MM, and the scripts people have.
OTHER_NAMES = {
    **dict.fromkeys(("first_entry_file_name", "prompt_file", "prompts_file", "from_file", "input_file"), "dataset"),
    **dict.fromkeys(("hf_model_name_or_path", "pretrained_model_name_or_path", "model_name_or_path"), "model"),
    **dict.fromkeys(("model_id", "model_name", "model_path"), "model"),
    **dict.fromkeys(("checkpoint", "checkpoint_path", "ckpt", "ckpt_path", "single_file"), "model"),
    **dict.fromkeys(("unet", "denoiser", "gguf"), "transformer"),
    "hf_cache_dir": "cache_dir",
    "hf_local_dir": "local_dir",
    **dict.fromkeys(("num_inference_steps", "num_steps"), "steps"),
    **dict.fromkeys(("num_images_per_prompt", "num_images"), "images_per_prompt"),
    **dict.fromkeys(("output_dir", "output_path", "out_dir"), "output"),
    "torch_dtype": "dtype",
}
# What other tools have and this one does not -> what to do here.
HINTS = {
    **dict.fromkeys(("prompt", "prompts"), "write the prompts into a .txt file, one a line, and name that as dataset"),
    **dict.fromkeys(("size", "resolution"), "set height and width, or sizes"),
    **dict.fromkeys(("cfg", "cfg_scale"), "set guidance_scale, or true_cfg_scale with a negative_prompt"),
    **dict.fromkeys(("gpu", "gpus", "gpu_id"), "set device, for example cuda:1"),
    "cache_path": "set output, the folder for everything that a run leaves",
}


_OF_ANOTHER_TYPE = ("string_type", "list_type")


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong. `field` is empty where it concerns several fields together."""

    field: str
    reason: str
    value: object
    show_value: bool

    def __str__(self) -> str:
        where = f"{self.field}: " if self.field else ""
        return where + self.reason + (f" (got {shorten(self.value)})" if self.show_value else "")


def problems_of(error: ValidationError, known: Collection[str], unknown: str) -> list[Problem]:
    """Return one `Problem` for each wrong field.

    `known` are the names of the fields; `unknown` says what to do about a field that is like none of them.
    """
    # A default that depends on a wrong field has nothing to say of its own.
    errors = [item for item in error.errors() if item["type"] != "default_factory_not_called"]
    return [_problem(item, known, unknown) for item in _merge_union_members(errors)]


def _merge_union_members(errors: Sequence[Any]) -> list[Any]:
    """Merge pydantic's errors for the members of a union into one message.

    Where a value is a text or a list, and is wrong as such, that alone is said.
    """
    fields = Counter(error["loc"][0] for error in errors if error["loc"] and error["type"] not in _OF_ANOTHER_TYPE)
    errors = [error for error in errors if error["type"] not in _OF_ANOTHER_TYPE or not fields[error["loc"][0]]]
    merged: dict[tuple[Any, ...], Any] = {}
    for error in errors:
        # The second part of a location is a number for an item of a list, and the type's name for a member of a union.
        is_member = len(error["loc"]) > 1 and not isinstance(error["loc"][1], int)
        location = error["loc"][:1] if is_member else error["loc"]
        if is_member and location in merged:
            other = error["msg"].removeprefix("Input should be ")
            merged[location] = merged[location] | {"msg": f"{merged[location]['msg']}, or {other}"}
        else:
            merged[location if location not in merged else (*location, len(merged))] = error
    return list(merged.values())


def _problem(error: Any, known: Collection[str], unknown: str) -> Problem:
    field = str(error["loc"][0]) if error["loc"] else ""
    reason = str(error["msg"]).removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        name = field.replace("-", "_")
        close = [OTHER_NAMES[name]] if name in OTHER_NAMES else difflib.get_close_matches(name, known, n=1)
        fix = HINTS.get(name) or (f"did you mean {close[0]}?" if close else unknown)
        return Problem(field, f"unknown option; {fix}", error["input"], show_value=False)
    if error["type"] == "missing":
        return Problem(field, "is required; see --help", error["input"], show_value=False)
    if error["type"] == "too_short":
        reason = "is empty; give at least one"
    if error["type"] == "string_pattern_mismatch":
        reason = PATTERN_FIXES[field]
    if field:
        reason = reason[:1].lower() + reason[1:]
    return Problem(field, reason, error["input"], show_value=bool(field))
