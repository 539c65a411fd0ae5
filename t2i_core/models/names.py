"""Names of files and components of models; what a name that may be a path or a hub id means."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from t2i_core.errors import ModelError, shorten
from t2i_core.local_paths import is_file, is_folder, similar_name

SAFETENSORS = ".safetensors"
GGUF = ".gguf"
PICKLE_SUFFIXES = (".bin", ".ckpt", ".pt", ".pth")
WEIGHT_SUFFIXES = (SAFETENSORS, GGUF, *PICKLE_SUFFIXES)
# The components that run at each denoising step; a pipeline has one of them.
DENOISERS = ("transformer", "unet")


def kind_on_disk(option: str, name: str) -> Literal["file", "folder"] | None:
    """Return what is under this path; None for a name that may be a hub id. What is on this machine is never one.

    Raises:
        ModelError: for what cannot be read, and for the path of a file of weights that does not exist; one line.
    """
    path = Path(name)
    try:
        if is_file(path):
            return "file"
        if is_folder(path):
            return "folder"
    except ValueError as error:
        raise ModelError(f"{option}: {shorten(name)} {error}") from None
    # A file in a repository is written owner/name/file; with such a folder here, it is a file of that folder.
    is_in_folder = name.count("/") < 2 or path.is_absolute() or path.parent.is_dir()
    if is_in_folder and name.lower().endswith(WEIGHT_SUFFIXES):
        raise ModelError(f"{option}: {shorten(name)} does not exist; check the path{similar_name(path)}")
    return None


def denoiser_config(configs: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the configuration of the denoiser among those of a model's components; empty where there is none."""
    return next((configs[name] for name in DENOISERS if configs.get(name)), {})


def repository_and_path(name: str) -> tuple[str, str]:
    """Return (repository, path in it) of `owner/name` or `owner/name/path`; the path of the first is empty."""
    owner, _, rest = name.partition("/")
    repository, _, path = rest.partition("/")
    return f"{owner}/{repository}", path
