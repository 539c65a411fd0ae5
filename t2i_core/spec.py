"""An image spec: everything that decides one image's pixels, and its key."""

import hashlib
import json
from dataclasses import dataclass, fields
from typing import Any

# Raised when this project's own way of turning a spec into pixels changes.
RECIPE = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageSpec:
    """What decides one image's pixels; nothing else belongs here.

    A new field needs a default that means "as before it existed": fields at their default stay out of the key, so no
    old key changes.
    """

    model: str  # identity: the digest of the model's files
    prompt: str
    seed: int
    height: int
    width: int
    steps: int
    dtype: str
    recipe: int = RECIPE
    negative_prompt: str | None = None
    guidance_scale: float | None = None
    true_cfg_scale: float | None = None
    max_sequence_length: int | None = None
    scheduler: str | None = None
    adapters: tuple[tuple[str, float], ...] = ()  # (SHA-256 of the file, weight), in the order they are applied
    quantization: str | None = None
    prepare: str | None = None  # SHA-256 of the source of the user's own function

    def canonical(self) -> dict[str, Any]:
        """The fields that are not at their default, numbers in one form (3 and 3.0 are one guidance scale)."""
        result: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name != "recipe" and value == field.default:
                continue
            if field.name in ("guidance_scale", "true_cfg_scale"):
                value = float(value) + 0.0  # -0.0 becomes 0.0
            elif field.name == "adapters":
                value = [[digest, float(weight) + 0.0] for digest, weight in value]
            result[field.name] = value
        return result

    @property
    def key(self) -> str:
        """SHA-256 of the canonical JSON, 64 hex digits."""
        return digest(self.canonical())

    @property
    def call_group(self) -> tuple[Any, ...]:
        """What must be equal for two specs to share a batch: the call arguments that are not per image."""
        return (
            self.height,
            self.width,
            self.steps,
            self.guidance_scale,
            self.true_cfg_scale,
            self.max_sequence_length,
            self.negative_prompt is None,
        )


def digest(value: object) -> str:
    """SHA-256 of `value` as canonical JSON: sorted keys, no spaces, ASCII."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def derive_seed(*parts: object) -> int:
    """32 bits from `parts`, the same on every machine and in every version."""
    return int(digest(list(parts))[:8], 16)
