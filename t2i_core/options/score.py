"""`ScoreOptions`: the options of the command that scores a finished output."""

import re
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import Field, field_validator

from t2i_core.local_paths import local_path
from t2i_core.options.command import Options
from t2i_core.options.values import Key

CLIP, PYIQA, FUNCTION = "clip", "pyiqa", "function"
BUILT_IN = ("stats", "phash")
_FUNCTION = re.compile(r"(.+\.py|[A-Za-z_][\w.]*):[A-Za-z_]\w*")


@dataclass(frozen=True, slots=True)
class ScorerRequest:
    """A scorer as the user names it. `kind`: of `BUILT_IN`, clip, pyiqa or function; `argument`: what it takes."""

    kind: str
    argument: str = ""


class ScoreOptions(Options):
    """Options of scoring: which output, which scorers, and with what."""

    heading: ClassVar = "Scores"
    positional = ("output",)

    output: Key = Field(description="Output folder of a text2image run.")
    score: list[Key] = Field(
        list(BUILT_IN),
        min_length=1,
        description="Scorers: stats, phash, clip=FOLDER_OR_ID (CLIP or SigLIP), pyiqa:METRIC, or your own function, "
        "module:function or file.py:function.",
    )
    duplicate_distance: int = Field(
        6, ge=0, le=7, description="With phash: images whose hashes differ in at most N of 64 bits are duplicates."
    )
    processes: Annotated[int, Field(ge=1, le=1024)] | Literal["auto"] = Field(
        "auto", description="Processes for scorers that need no model: stats, phash and your function; auto: all cores."
    )
    device: Annotated[str, Field(pattern=r"^(auto|cpu|mps|(cuda|xpu)(:\d+)?)$")] = Field(
        "auto", description="Device of clip and pyiqa: auto, cpu, mps, cuda, cuda:1 or xpu."
    )
    batch_size: int = Field(32, ge=1, le=4096, description="Images per call of a model.")
    cache_dir: Key | None = Field(None, description="Hub cache folder. Default: the hub's own.")

    @field_validator("output", "cache_dir")
    @classmethod
    def _paths_are_local(cls, value: str | None) -> str | None:
        return value if value is None else local_path(value, "name a local folder")

    @field_validator("score")
    @classmethod
    def _scorers_are_known(cls, value: list[str]) -> list[str]:
        for entry in value:
            parse_scorer(entry)
        return list(dict.fromkeys(value))

    @property
    def requests(self) -> list[ScorerRequest]:
        """The scorers that are asked for."""
        return [parse_scorer(entry) for entry in self.score]


def parse_scorer(entry: str) -> ScorerRequest:
    """Return what an entry of `--score` means.

    Raises:
        ValueError: for anything else, with what there is.
    """
    if entry in BUILT_IN:
        return ScorerRequest(entry)
    if entry.startswith(f"{CLIP}="):
        if name := entry.removeprefix(f"{CLIP}="):
            return ScorerRequest(CLIP, local_path(name, "name a local folder or a hub id"))
        raise ValueError("clip= names no model; write clip=FOLDER or clip=openai/clip-vit-large-patch14")
    if entry.startswith(f"{PYIQA}:") and len(entry) > len(PYIQA) + 1:
        return ScorerRequest(PYIQA, entry.removeprefix(f"{PYIQA}:"))
    if _FUNCTION.fullmatch(entry):
        module, _, function = entry.rpartition(":")
        module = local_path(module, "name a local file") if module.endswith(".py") else module
        return ScorerRequest(FUNCTION, f"{module}:{function}")
    raise ValueError(
        f"{entry!r} is no scorer; there are stats, phash, clip=FOLDER_OR_ID, pyiqa:METRIC, and module:function or "
        "file.py:function of your own"
    )
