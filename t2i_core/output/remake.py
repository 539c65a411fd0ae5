"""The command that makes exactly one image again, from what is known of it."""

import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from t2i_core.spec import ARGUMENTS

# Options of a run that say what is loaded, and that do not follow from an image spec: a record holds them by name.
LOADED = ("model", "base", "transformer", "revision", "variant", "lora", "lora_partial", "prepare")
# Of a spec: what is no option, or what another option names.
_NO_OPTION = ("prompt", "seed", "negative_prompt", "model", "adapters", "prepare", "pixels_version")
# Before images had their options, their record named the model as one text.
_NAMES = re.compile(r"(?P<model>.+?)(?:, base (?P<base>.+?))?(?:, transformer (?P<transformer>.+))?")


@dataclass(frozen=True, slots=True)
class Remake:
    """How to make an image again.

    row: a data set of one row, as JSON in ASCII: it holds whatever people may have written.
    options: those of a run over it.
    missing: what the record does not tell, and has to be added.
    """

    row: str
    options: Mapping[str, Any]
    missing: tuple[str, ...]

    def commands(self, program: str, name: str) -> str:
        """Return two lines for a POSIX shell; `name` is that of the output, and of the data set beside it."""
        flags = [_flag(option, value) for option, value in {**self.options, "output": name}.items()]
        data = f"printf '%s\\n' {shlex.quote(self.row)} > {shlex.quote(f'{name}.jsonl')}"
        return f"{data}\n{program} {' '.join([shlex.quote(f'{name}.jsonl'), *flags])}"


def remake(arguments: Mapping[str, Any], facts: Mapping[str, Any]) -> Remake:
    """Return how to make an image again.

    Args:
        arguments: the image's spec, as canonical JSON or as a row of `images.parquet`.
        facts: of its record, or the same row.
    """
    tuning = _object(facts.get("tuning"))
    loaded = _object(facts.get("options")) or _named_in(facts["model_name"]) | _prepare(tuning)
    if facts.get("commit"):
        loaded["revision"] = facts["commit"]
    asked = {name: arguments.get(name) for name in ARGUMENTS if name not in _NO_OPTION}
    tuned = {name: value for name, value in tuning.items() if name not in _NO_OPTION}
    options = {**loaded, **asked, **tuned, "batch_size": facts.get("batch_size")}
    adapters = arguments.get("adapters") or []
    adapters = json.loads(adapters) if isinstance(adapters, str) else adapters
    missing = () if "lora" in loaded else tuple(_lora(sha256, weight) for sha256, weight in adapters)
    settings = {"seed": arguments["seed"]}
    if (negative := arguments.get("negative_prompt")) is not None:
        settings["negative_prompt"] = negative
        options["negative_prompt"] = ""  # some models are refused a scale without one before a row is read
    row = {"conversations": [{"role": "user", "content": arguments["prompt"]}], "generation": settings}
    used = {name: value for name, value in options.items() if not (value is None or value is False or value == [])}
    return Remake(json.dumps(row), used, missing)


def _object(value: object) -> dict[str, Any]:
    """Return an object that may be JSON text or null."""
    if isinstance(value, str):
        value = json.loads(value)
    return dict(value) if isinstance(value, dict) else {}


def _named_in(model_name: str) -> dict[str, Any]:
    found = _NAMES.fullmatch(model_name)
    return found.groupdict() if found else {"model": model_name}


def _prepare(tuning: Mapping[str, Any]) -> dict[str, Any]:
    return {"prepare": tuning["prepare"]} if "prepare" in tuning else {}


def _lora(sha256: str, weight: float) -> str:
    return f"--lora FILE:{weight!r}, the file with the SHA-256 {sha256}, whose name the image does not tell"


def _flag(option: str, value: object) -> str:
    name = f"--{option.replace('_', '-')}"
    if value is True:
        return name
    values = value if isinstance(value, list) else [value]
    return " ".join(f"{name}={shlex.quote(str(item))}" for item in values)
