"""Errors of the operating system in a run: by whose path it is, they are the user's, in one line."""

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from t2i_core.config import Config, parse_lora
from t2i_core.errors import UserError
from t2i_core.local_paths import is_url
from t2i_core.system_errors import as_user_error


def as_users(error: UserError | OSError, values: Mapping[str, Any]) -> UserError:
    """Return what is wrong with a run's use, for an error that ended it. `values`: the options of the run.

    Raises:
        OSError: the error itself, where it says nothing about a path of the user's.
    """
    if isinstance(error, UserError):
        return error
    found = as_user_error(error, _places(values))
    if found is None:
        raise error
    return found


def _places(values: Mapping[str, Any]) -> dict[str, Path]:
    """Return option -> the path that it names, and those of the folders that the libraries of a run write.

    An option that names no path does no harm: nothing lies in it.
    """
    home = Path.home()
    places = {
        "PREFECT_HOME": Path(os.environ.get("PREFECT_HOME") or home / ".prefect"),
        "HF_HOME": Path(os.environ.get("HF_HOME") or home / ".cache/huggingface"),
        "TMPDIR": Path(tempfile.gettempdir()),
    }
    for option, value in {"output": Config.model_fields["output"].default, **values}.items():
        for text in value if isinstance(value, list) else [value]:
            if isinstance(text, str) and text and not is_url(text):
                named = option if text == value else f"{option} {text}"
                places[named] = _file_of(option, text)
    return places


def _file_of(option: str, text: str) -> Path:
    """Return the file or folder that an option's text names: without a LoRA's weight, or a function's name."""
    if option == "lora":
        return Path(parse_lora(text)[0])
    return Path(text.rpartition(":")[0] if option == "prepare" else text)
