"""Splits: which part of a data set an image belongs to, by its prompt alone."""

import math
import re
from dataclasses import dataclass
from typing import Self

from t2i_core.errors import ConfigError
from t2i_core.hashing import digest

_ENTRY = re.compile(r"([A-Za-z][A-Za-z0-9_]*)=([0-9.]+)")
_DIGITS = 13  # hexadecimal: what a float holds exactly


@dataclass(frozen=True, slots=True)
class Splits:
    """The names of the splits, and for each the share of prompts up to and with it."""

    names: tuple[str, ...]
    bounds: tuple[float, ...]

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the splits of `train=0.95,val=0.05`.

        Raises:
            ConfigError: for anything else, and for shares that do not add up to 1.
        """
        entries = [_ENTRY.fullmatch(entry.strip()) for entry in text.split(",")]
        shares: dict[str, float] = {}
        for entry in entries:
            try:
                name, share = entry.groups() if entry else ("", "")
                shares[name] = float(share)
            except ValueError:
                raise ConfigError(
                    [f"split: write NAME=SHARE,..., for example train=0.95,val=0.05 (got {text!r})"]
                ) from None
        if len(shares) < len(entries):
            raise ConfigError([f"split: a name stands twice; write each once (got {text!r})"])
        if not math.isclose(sum(shares.values()), 1, abs_tol=1e-6) or min(shares.values()) <= 0:
            raise ConfigError(
                [f"split: shares must be above 0 and add up to 1, and make {sum(shares.values()):g} (got {text!r})"]
            )
        bounds, below = [], 0.0
        for share in shares.values():
            below += share
            bounds.append(below)
        return cls(tuple(shares), (*bounds[:-1], 1.0))

    def of(self, prompt: str) -> int:
        """Return the number of the split of a prompt.

        All variants of a prompt are in one split: case and blanks do not count. A prompt stays where it is when others
        come or go.
        """
        place = int(digest(["split", " ".join(prompt.casefold().split())])[:_DIGITS], 16) / 16**_DIGITS
        return next(number for number, bound in enumerate(self.bounds) if place < bound)
