"""What can go wrong, and whose turn it is.

T2IError
├── UserError          wrong use: one line that says what was found and what to do (exit code 2)
│   ├── ConfigError        a field of the configuration
│   ├── DatasetError       the input as a whole (a single bad row is a rejected row, not an error)
│   ├── ModelError         a model that cannot be found, read or used
│   │   └── HubUnavailable     the hub did not answer, or not now: the one ModelError that may pass, so worth a retry
│   └── OutputError        the output folder
├── ImageFailure       one image that will fail again if nothing changes: recorded, reused as failed
├── MeasureFailed      the speed of a model could not be measured; it may draw other images all the same
└── Stopped            a stop was asked for; work that is finished stays
"""

from collections.abc import Sequence

VALUE_SHOWN = 80


class T2IError(Exception):
    """Base of every error this project raises on purpose."""


class UserError(T2IError, ValueError):
    """Wrong use. The message is complete: it names the thing, the value and the fix."""


class ConfigError(UserError):
    """One or more fields of the configuration are wrong; `problems` has a line for each."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = list(problems)
        super().__init__("\n".join(self.problems))


class DatasetError(UserError):
    """The data set cannot be read, or holds no usable row."""


class ModelError(UserError):
    """A model or adapter that cannot be found, read or used."""


class HubUnavailable(ModelError):
    """The hub cannot be reached, or answers with an error of its own; the same call may work later.

    `reached` is False where no answer came at all (no network, time-out): then what is cached may stand in.
    """

    def __init__(self, message: str, *, reached: bool = True) -> None:
        self.reached = reached
        super().__init__(message)


class OutputError(UserError):
    """The output folder cannot be used for this run."""


class ImageFailure(T2IError):
    """One image cannot be made, and making it again would fail again."""


class MeasureFailed(T2IError):
    """The speed of a model could not be measured."""


class Stopped(T2IError):
    """Raised inside generation when a stop was asked for."""


def shorten(value: object, limit: int = VALUE_SHOWN) -> str:
    """`repr(value)` on one line, cut to `limit` characters, for messages and failure rows."""
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 1] + "…"
