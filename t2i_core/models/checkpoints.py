"""Checkpoints: weights in place of a model's own, from the name that a user writes to their hashes."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from t2i_core.errors import ModelError, listed
from t2i_core.hashing import digest
from t2i_core.models.diffusers_source import single_file_classes
from t2i_core.models.file_contents import Contents
from t2i_core.models.hub import (
    MAIN,
    HubFile,
    cached_repository,
    describe,
    download_file,
    is_repository,
    online_or_cached,
)
from t2i_core.models.identity import Checkpoint, ResolvedModel, check_model, hashed, identity_of
from t2i_core.models.loaded_files import file_state, unchanged
from t2i_core.models.names import DENOISERS, GGUF, SAFETENSORS, WEIGHT_SUFFIXES, repository_and_path
from t2i_core.models.pipeline_files import (
    CONFIGS,
    INDEX,
    PipelineFiles,
    ReadText,
    list_folder,
    select_component,
    variants_of,
)
from t2i_core.models.request import CheckpointRequest, ModelRequest

NAMES_SHOWN = 8


def check_request(request: ModelRequest, revision: str | None) -> PipelineFiles | None:
    """Refuse what can be no model, without network.

    Returns:
        What is loaded from the folder of the pipeline; None for a hub id.

    Raises:
        ModelError: in one line that says what to do.
    """
    files = check_model(request.pipeline, revision, request.wanted)
    for checkpoint in request.checkpoints:
        config = _folder_config(checkpoint, request.wanted.variant)
        if files is not None:
            check_fit(checkpoint, request.named, files.classes, files.configs, config)
    return files


def resolve_checkpoint(
    request: CheckpointRequest, *, variant: str | None = None, cache_dir: str | None = None, commit: str | None = None
) -> Checkpoint:
    """Return the checkpoint that is asked for, with the hashes of its files. Weights on the hub are not downloaded.

    Raises:
        ModelError: for a checkpoint that cannot be found or used, in one line with the fix.
        HubUnavailable: where the hub gives no usable answer.
    """
    path = Path(request.name)
    try:
        if path.is_file():
            file = hashed(path.name, HubFile(0, None), path.parent.joinpath)
            return Checkpoint(request.name, request.components, str(path.parent.resolve()), path.name, (file,))
        if path.is_dir():
            with unchanged(path / file for file in _select_in_folder(request, path, variant)[1]):
                config, chosen = _select_in_folder(request, path, variant)
                files = tuple(hashed(file, HubFile(0, None), path.joinpath) for file in chosen)
            return Checkpoint(request.name, request.components, str(path.resolve()), "", files, config=config)
    except OSError as error:
        raise _cannot_be_read(request, error) from error
    repository, inside = repository_and_path(request.name)
    assert is_repository(repository)
    revision = commit or MAIN
    return online_or_cached(
        repository,
        revision,
        online=lambda: _resolve_online(request, repository, inside, revision, variant, cache_dir),
        cached=lambda: _resolve_cached(request, repository, inside, revision, variant, cache_dir),
    )


def checkpoint_fingerprint(request: CheckpointRequest, variant: str | None) -> str | None:
    """Return a digest of paths and states of the files of a checkpoint; None for one on the hub.

    Raises:
        ModelError: for a folder that holds no denoiser.
    """
    path = Path(request.name)
    if path.is_file():
        files = [path]
    elif path.is_dir():
        files = [path / file for file in _select_in_folder(request, path, variant)[1]]
    else:
        return None
    states = [[str(file.resolve()), *file_state(file)] for file in files]
    return digest([states, list(request.components)])


def with_checkpoints(model: ResolvedModel, request: ModelRequest, checkpoints: Sequence[Checkpoint]) -> ResolvedModel:
    """Return the model with the checkpoints in place of its own weights.

    Raises:
        ModelError: for a checkpoint that does not belong to such a pipeline, in one line that says why.
    """
    if not checkpoints:
        return model
    given = []
    for asked, checkpoint in zip(request.checkpoints, checkpoints, strict=True):
        check_fit(asked, model.name, model.classes, model.configs, checkpoint.config)
        given.append(replace(checkpoint, components=_components(asked, model.classes)))
    # What a folder holds takes the place of the model's own configuration, too.
    replaced = {checkpoint.components[0]: checkpoint.config for checkpoint in given if checkpoint.config is not None}
    files = tuple(file for file in model.files if file.path.partition("/")[0] not in replaced)
    loaded = [file.path for file in files] + [file.path for checkpoint in given for file in checkpoint.files]
    variant = request.wanted.variant
    if variant and variant not in variants_of(loaded):
        raise ModelError(f"variant: {model.name} has no weights of the {variant} variant; leave it out")
    return replace(
        model,
        identity=identity_of(files, given),
        files=files,
        configs={**model.configs, **replaced},
        checkpoints=tuple(given),
    )


def check_fit(
    request: CheckpointRequest,
    pipeline: str,
    classes: Mapping[str, str],
    configs: Mapping[str, Any],
    config: Mapping[str, Any] | None,
) -> None:
    """Refuse a checkpoint that cannot supply the components of a pipeline, as far as small files tell.

    Args:
        request: the checkpoint, with the contents of a file.
        pipeline: the name of the pipeline, for messages.
        classes: the class of each of its components.
        configs: their configurations.
        config: the configuration of a checkpoint that is a folder.

    Raises:
        ModelError: in one line that says what does not fit.
    """
    name = f"{request.option}: {request.name}"
    denoiser = next((component for component in DENOISERS if component in classes), None)
    if denoiser is None:
        raise ModelError(f"{name} has no place in {pipeline}, which has neither a transformer nor a unet; leave it out")
    wanted = classes[denoiser]
    if config is not None:
        if config.get("_class_name") != wanted:
            raise ModelError(
                f"{name} is of class {config.get('_class_name')}, and {pipeline} has a {wanted}; name a folder of one"
            )
        return
    if wanted not in single_file_classes():
        raise ModelError(f"{name} cannot be used: diffusers loads no {wanted} from a single file; name a folder")
    own = configs.get(denoiser)
    if own is None:
        raise ModelError(f"{name} needs {denoiser}/{CONFIGS[denoiser]} of {pipeline}, which is not there; get it again")
    if request.contents is not None:
        _check_contents(name, request.contents, pipeline, wanted, own)
        prediction = configs.get("scheduler", {}).get("prediction_type")
        if request.contents.predicts_v and prediction != "v_prediction":
            raise ModelError(
                f"{name} is marked as a model that predicts the velocity (v_pred), and the scheduler of {pipeline} has "
                f"prediction_type {prediction}; name a pipeline whose scheduler has v_prediction"
            )


def _check_contents(name: str, contents: Contents, pipeline: str, wanted: str, own: Mapping[str, Any]) -> None:
    """Compare what the file holds with the class and the configuration of the pipeline's denoiser."""
    if contents.denoiser not in (None, wanted):
        raise ModelError(
            f"{name} holds a {contents.denoiser}, and {pipeline} has a {wanted}; "
            f"name a pipeline such as {contents.example}"
        )
    widths = own.get("cross_attention_dim")
    differences = {
        "channels": (contents.channels, own.get("in_channels")),
        "as the width of texts": (contents.text_width, widths[0] if isinstance(widths, list) else widths),
        "as guidance_embeds": (contents.guidance, own.get("guidance_embeds")),
    }
    for what, (found, expected) in differences.items():
        if None not in (found, expected) and found != expected:
            raise ModelError(
                f"{name} has {found} {what}, and {pipeline} has {expected}; name the pipeline that it was made for"
                + (f", such as {contents.base}" if contents.base not in (None, pipeline) else "")
            )


def _components(request: CheckpointRequest, classes: Mapping[str, str]) -> tuple[str, ...]:
    """Return the components that a checkpoint supplies to a pipeline with these classes."""
    return tuple(component for component in request.components if component in classes)


def _select_in_folder(
    request: CheckpointRequest, folder: Path, variant: str | None
) -> tuple[dict[str, Any], list[str]]:
    name = f"{request.option}: {request.name}"
    return select_component(name, "", list_folder(folder), lambda path: (folder / path).read_text("utf-8"), variant)


def _folder_config(request: CheckpointRequest, variant: str | None) -> Mapping[str, Any] | None:
    """Return the configuration of a checkpoint that is a folder on this machine, else None."""
    path = Path(request.name)
    if not path.is_dir():
        return None
    try:
        return _select_in_folder(request, path, variant)[0]
    except OSError as error:
        raise _cannot_be_read(request, error) from error


def _resolve_online(
    request: CheckpointRequest, repository: str, inside: str, revision: str, variant: str | None, cache_dir: str | None
) -> Checkpoint:
    found = describe(repository, revision, cache_dir)

    def local(path: str) -> Path:
        return download_file(repository, path, found.commit, cache_dir)

    config, chosen = _select_at_hub(request, inside, found.files, lambda path: local(path).read_text("utf-8"), variant)
    files = tuple(hashed(path, found.files[path], local) for path in chosen)
    return Checkpoint(request.name, request.components, repository, inside, files, found.commit, config)


def _resolve_cached(
    request: CheckpointRequest, repository: str, inside: str, revision: str, variant: str | None, cache_dir: str | None
) -> Checkpoint | None:
    cached = cached_repository(repository, revision, cache_dir)
    if cached is None:
        return None
    listing, folder = cached
    known = listing.files if listing else dict.fromkeys(list_folder(folder), HubFile(0, None))
    try:
        config, chosen = _select_at_hub(
            request, inside, known, lambda path: (folder / path).read_text("utf-8"), variant
        )
        files = tuple(hashed(path, known[path], folder.joinpath) for path in chosen)
    except OSError:
        return None
    return Checkpoint(request.name, request.components, repository, inside, files, folder.name, config)


def _select_at_hub(
    request: CheckpointRequest, inside: str, paths: Mapping[str, HubFile], read: ReadText, variant: str | None
) -> tuple[dict[str, Any] | None, list[str]]:
    """Return (configuration, paths) of what a name means in a repository; no configuration for a file."""
    name = f"{request.option}: {request.name}"
    is_file = inside.lower().endswith(WEIGHT_SUFFIXES)
    if is_file and inside in paths:
        return None, [inside]
    if not is_file and any(f"{inside}/{file}".lstrip("/") in paths for file in ("config.json", INDEX)):
        return select_component(name, inside, paths, read, variant)
    what = "is not in the repository" if is_file else "is no folder with a config.json"
    files = sorted(path for path in paths if path.endswith((SAFETENSORS, GGUF)))
    shown = listed(files, NAMES_SHOWN) or "none"
    raise ModelError(f"{name} {what}; files of weights in the repository: {shown}; name one as owner/name/file")


def _cannot_be_read(request: CheckpointRequest, error: OSError) -> ModelError:
    return ModelError(f"{request.option}: {error.filename} cannot be read: {error.strerror}; check its permissions")
