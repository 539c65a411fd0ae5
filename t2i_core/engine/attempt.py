"""One call that may fail, and its outcome: the error comes back as a value, and what the call held is given back."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch

from t2i_core.engine.device import is_out_of_memory, release_memory
from t2i_core.errors import Stopped, UserError

T = TypeVar("T")

MESSAGE_SHOWN = 300


class OutOfMemory(Exception):
    """Memory was too short for a call. It keeps the message of the library's error, and no traceback."""


@dataclass(frozen=True, slots=True)
class Outcome(Generic[T]):
    """What a call came to: a value, or the error in its place."""

    value: T | None
    error: Exception | None = None

    @property
    def out_of_memory(self) -> bool:
        """Whether memory was too short; then the same call, or a smaller one, may be worth another attempt."""
        return isinstance(self.error, OutOfMemory)


def attempt(device: torch.device, function: Callable[..., T], *arguments: Any) -> Outcome[T]:
    """Call `function` without gradients; return its value, or the error that it raised, as an outcome.

    Where memory was too short, the outcome's error is an `OutOfMemory`, and what the call held on `device` is free.

    Raises:
        Stopped: a stop was asked for.
        UserError: the use is wrong, whatever the image.
    """
    try:
        # Not `inference_mode`: weights that torchao quantized cannot be moved under it, and offloading moves them.
        with torch.no_grad():
            return Outcome(function(*arguments))
    except (Stopped, UserError):
        raise
    except Exception as error:
        # A library may raise anything. Tracebacks hold the tensors of every frame, so the outcome keeps none.
        if not is_out_of_memory(error):
            return Outcome(None, error.with_traceback(None))
        message = str(error)
    # Outside the `except` block: within it the error's traceback would keep the tensors alive.
    release_memory(device)
    return Outcome(None, OutOfMemory(message))


def one_line(error: BaseException) -> str:
    """Return the message of an error on one line of at most `MESSAGE_SHOWN` characters; its class where it has none.

    What matters may be in any line: torch names the weights of another shape only in the second.
    """
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= MESSAGE_SHOWN else f"{text[: MESSAGE_SHOWN - 1]}…"
