"""Which model the options ask for: a pipeline, and checkpoints that supply some of its weights.

Single files are opened for their headers; nothing is asked of the hub.
"""

from dataclasses import dataclass, replace
from pathlib import Path

from t2i_core.config import Config
from t2i_core.errors import ModelError, shorten
from t2i_core.models.file_contents import Contents, contents_of
from t2i_core.models.hub import is_repository
from t2i_core.models.names import (
    DENOISERS,
    GGUF,
    PICKLE_SUFFIXES,
    SAFETENSORS,
    WEIGHT_SUFFIXES,
    kind_on_disk,
    repository_and_path,
)
from t2i_core.models.packages import check_installed
from t2i_core.models.pipeline_files import Wanted
from t2i_core.models.presets import repository_of
from t2i_core.models.tensor_names import read_shapes
from t2i_core.options.values import DEMO

SAVED = "name a folder written by a diffusers pipeline's save_pretrained"


@dataclass(frozen=True, slots=True)
class CheckpointRequest:
    """A checkpoint that an option names.

    option: `model` or `transformer`.
    components: what it supplies; of `transformer` the denoiser of the pipeline, whatever its name there.
    contents: of a file on this machine; None for a folder, and for what is on the hub.
    """

    option: str
    name: str
    components: tuple[str, ...]
    contents: Contents | None = None


@dataclass(frozen=True, slots=True)
class ModelRequest:
    """What the options ask for.

    named: the pipeline as the user wrote it: a preset, a folder or a hub id; else the one that a single file implies.
    pipeline: `demo`, a folder or a hub id.
    """

    named: str
    pipeline: str
    wanted: Wanted
    checkpoints: tuple[CheckpointRequest, ...] = ()


def model_request(config: Config) -> ModelRequest:
    """Return what a configuration asks for.

    Raises:
        ModelError: for a file that cannot be a model, in one line with the fix.
    """
    named, checkpoints = config.model, []
    name = repository_of(config.model)
    if name != DEMO and kind_on_disk("model", name) == "file":
        file = _single_file(config)
        named = config.base or _implied_base(config.model, file.contents)
        checkpoints.append(file)
        _check_base(repository_of(named))
    elif name.count("/") > 1 and name.lower().endswith(WEIGHT_SUFFIXES):
        download = "`hf download {} {}`".format(*repository_and_path(name))
        raise ModelError(f"model: {name} is not on this machine; download it with {download}, and name the file")
    elif config.base:
        raise ModelError(f"base: concerns a single file, and --model {config.model} is none; leave it out")
    if config.transformer:
        checkpoints = [_without_denoiser(checkpoint) for checkpoint in checkpoints]
        checkpoints.append(_transformer(config.transformer))
    for checkpoint in checkpoints:
        if config.quantization != "none" and checkpoint.name.lower().endswith(GGUF):
            raise ModelError(f"quantization: {checkpoint.name} is quantized already; leave {config.quantization} out")
    supplied = {component for checkpoint in checkpoints for component in checkpoint.components}
    wanted = Wanted(config.variant, tuple(sorted(supplied)))
    return ModelRequest(named, repository_of(named), wanted, tuple(checkpoints))


def _single_file(config: Config) -> CheckpointRequest:
    name = config.model
    if name.lower().endswith(GGUF):
        contents = _contents("model", name)
        example = config.base or contents.example
        raise ModelError(f"model: {name} holds no whole model; write --model {example} --transformer {name}")
    if name.lower().endswith(PICKLE_SUFFIXES):
        raise ModelError(
            f"{name}: is a pickle file, which can run code and is not loaded; {SAVED}, or a {SAFETENSORS} file"
        )
    if not name.lower().endswith(SAFETENSORS):
        raise ModelError(f"{name}: is a file, not a folder, and no {SAFETENSORS} file; {SAVED}")
    contents = _contents("model", name)
    if len(contents.components) == 1:
        (component,) = contents.components
        example = config.base or contents.example
        raise ModelError(f"model: {name} holds a {component} only; write --model {example} --transformer {name}")
    return CheckpointRequest("model", name, contents.components, contents)


def _transformer(name: str) -> CheckpointRequest:
    kind = kind_on_disk("transformer", name)
    if kind is None:
        repository, _ = repository_and_path(name)
        if not is_repository(repository) or ".." in name or name.endswith("/"):
            raise ModelError(
                f"transformer: {shorten(name)} does not exist; name a {SAFETENSORS} or {GGUF} file, a folder, or "
                "on the hub owner/name, owner/name/transformer or owner/name/file.gguf"
            )
    other = "name another file, or a folder written by a transformer's save_pretrained"
    if kind != "folder" and name.lower().endswith(PICKLE_SUFFIXES):
        raise ModelError(f"transformer: {name} is a pickle file, which can run code and is not loaded; {other}")
    if kind == "file" and not name.lower().endswith((SAFETENSORS, GGUF)):
        raise ModelError(f"transformer: {name} is neither a {SAFETENSORS} nor a {GGUF} file; {other}")
    if name.lower().endswith(GGUF):
        check_installed("gguf", f"transformer: {name}")
    contents = _contents("transformer", name) if kind == "file" else None
    return CheckpointRequest("transformer", name, DENOISERS, contents)


def _without_denoiser(checkpoint: CheckpointRequest) -> CheckpointRequest:
    kept = tuple(component for component in checkpoint.components if component not in DENOISERS)
    return replace(checkpoint, components=kept)


def _contents(option: str, name: str) -> Contents:
    return contents_of(option, name, read_shapes(option, name, Path(name)))


def _implied_base(name: str, contents: Contents | None) -> str:
    assert contents is not None
    if contents.base is None:
        raise ModelError(
            f"model: {name} does not tell which pipeline it belongs to; add --base, for example --base "
            "stabilityai/stable-diffusion-2-1 for a model of 768 pixels, stabilityai/stable-diffusion-2-1-base of 512"
        )
    return contents.base


def _check_base(name: str) -> None:
    if name == DEMO:
        return
    kind = kind_on_disk("base", name)
    if kind == "file":
        raise ModelError(f"base: {name} is a file; {SAVED}, or the hub id of one")
    if kind is None and not is_repository(name):
        raise ModelError(
            f"base: {shorten(name)} is neither a preset, nor a folder, nor a hub id of the form owner/name"
        )
