"""Exception hierarchy: `UserError` is wrong input (exit code 2), the rest are internal.

T2IError
├── UserError          wrong input: one line that says what was found and what to do
│   ├── ConfigError        a field of the configuration
│   ├── DatasetError       the input as a whole (a single bad row is a rejected row, not an error)
│   ├── ModelError         a model that cannot be found, read or used
│   │   └── HubUnavailable     no usable answer from the hub: the one transient ModelError, so worth a retry
│   ├── OutputError        the output folder
│   └── DeviceLost         the device answers this process no more; another process may use it
├── ImageFailure       a permanent failure of one image: recorded, and reused as failed
│   └── SafetyFailure      the model's safety checker replaced the image, or refused the prompt
├── DamagedImage       a stored image that is torn, foreign, or holds other pixels than its header names
├── MeasureFailed      the speed of a model could not be measured; other images may still be generated
└── Stopped            a stop was asked for; finished work stays
"""

from collections.abc import Iterable, Sequence
from typing import Any

VALUE_SHOWN = 80


class T2IError(Exception):
    """Base of every error that this project raises on purpose."""


class UserError(T2IError, ValueError):
    """Wrong input. The message is complete: it names the thing, the value and the fix."""


class ConfigError(UserError):
    """One or more fields of the configuration are wrong; `problems` has a line for each."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = list(problems)
        super().__init__("\n".join(self.problems))

    def __reduce__(self) -> tuple[Any, ...]:
        """Let it come whole from another process: by default its message would be taken for its problems."""
        return type(self), (self.problems,)


class DatasetError(UserError):
    """The data set cannot be read, or has no usable row."""


class ModelError(UserError):
    """A model or adapter cannot be found, read or used."""


class HubUnavailable(ModelError):
    """The hub cannot be reached, or answers with an error of its own; the same call may work later.

    `reached` is False where no answer came at all (no network, time-out): then cached files may be used instead.
    """

    def __init__(self, message: str, *, reached: bool = True) -> None:
        self.reached = reached
        super().__init__(message)


class OutputError(UserError):
    """The output folder cannot be used for this run."""


class DeviceLost(UserError):
    """The device answers this process no more, whatever it is asked; another process may use it."""


class ImageFailure(T2IError):
    """One image cannot be generated, and another attempt would fail again."""


class SafetyFailure(ImageFailure):
    """The model's safety checker replaced the image, or refused the prompt. The message begins with `PREFIX`."""

    PREFIX = "safety checker: "


class DamagedImage(T2IError):
    """A stored image is torn, foreign, or holds other pixels than its header names. The message says which."""


class MeasureFailed(T2IError):
    """The speed of a model could not be measured."""


class Stopped(T2IError):
    """Generation ends early because a stop was asked for."""


def shorten(value: object, limit: int = VALUE_SHOWN) -> str:
    """Return `repr(value)` cut to `limit` characters, on one line, for messages and failure rows."""
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 1] + "…"


def listed(names: Iterable[str], limit: int) -> str:
    """Return `a, b` for messages, of more than `limit` names the first: `a, b and 7 more`."""
    known = list(names)
    more = f" and {len(known) - limit} more" if len(known) > limit else ""
    return ", ".join(known[:limit]) + more
