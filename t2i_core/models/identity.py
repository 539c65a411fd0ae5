"""A model's identity: from the name that a user writes to the files of a pipeline and the digest of them.

The identity is a digest of the files that a pipeline loads, so a folder, the hub and a hub cache that hold the same
files are the same model. Small files are read and, from the hub, downloaded; weights are not downloaded.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from t2i_core.bundled import DEMO_MODEL
from t2i_core.config import DEMO
from t2i_core.errors import ModelError, shorten
from t2i_core.hashing import digest, file_sha256
from t2i_core.local_paths import is_file, is_folder, similar_name
from t2i_core.models.hub import (
    MAIN,
    HubFile,
    Repository,
    cached_repository,
    card_licence,
    describe,
    download_file,
    download_files,
    is_repository,
    online_or_cached,
    weights_header,
)
from t2i_core.models.pipeline_files import PICKLE_SUFFIXES, PipelineFiles, list_folder, select_files
from t2i_core.models.presets import has_preset, similar_model
from t2i_core.models.weights_dtype import read_header, weights_dtype

BUNDLED_LICENCE = "Apache-2.0"


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A file that the pipeline loads: path relative to the model's folder, SHA-256 of its content, size in bytes."""

    path: str
    sha256: str
    size: int


@dataclass(frozen=True, slots=True)
class ResolvedModel:
    """A model whose identity and files are known, without its weights.

    location: an absolute folder, or a hub id.
    commit: the commit of a hub model; None for a folder.
    licence: as its own model card states it.
    configs: the configurations of `transformer` or `unet`, `vae` and `scheduler`, as far as the pipeline has them, and
        under "index" what model_index.json says of the pipeline itself.
    dtype: of the denoiser's weights; None where the preset of its class decides, or the files do not tell.
    """

    name: str
    source: Literal["folder", "bundled", "hub"]
    location: str
    commit: str | None
    identity: str
    pipeline_class: str
    files: tuple[ModelFile, ...]
    licence: str | None = None
    configs: Mapping[str, Any] = field(default_factory=dict, hash=False)
    dtype: str | None = None

    @property
    def weights_bytes(self) -> int:
        """The bytes of all safetensors files: what is downloaded, and what memory must hold at least."""
        return sum(file.size for file in self.files if file.path.endswith(".safetensors"))

    def to_json(self) -> dict[str, Any]:
        """Return the model as a dict of JSON types; `from_json` reads it back."""
        return asdict(self) | {"files": [asdict(file) for file in self.files]}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "ResolvedModel":
        """Return the model that `to_json` wrote."""
        return cls(**{**values, "files": tuple(ModelFile(**file) for file in values["files"])})


def resolve_model(
    name: str, *, revision: str | None = None, cache_dir: str | None = None, commit: str | None = None
) -> ResolvedModel:
    """Return the model that `demo`, a folder or a hub id names.

    The weights of a folder are hashed; the hub tells the hashes of its files.

    Args:
        name: the name that the user wrote, or the repository of a preset in its place.
        revision: branch, tag or commit of a hub model.
        cache_dir: hub cache; None: the hub's own.
        commit: the commit to use, wherever `revision` points by now.

    Raises:
        ModelError: for a model that cannot be found or used, in one line that says what to do.
        HubUnavailable: where the hub gives no usable answer and the cache cannot be used instead.
    """
    folder = _folder_or_hub(name, revision)
    if folder is not None:
        return _resolve_folder(name, folder)
    wanted = commit or revision or MAIN
    return online_or_cached(
        name,
        wanted,
        online=lambda: _resolve_online(name, wanted, cache_dir),
        cached=lambda: _resolve_cached(name, wanted, cache_dir),
    )


def check_model(name: str, revision: str | None = None) -> PipelineFiles | None:
    """Refuse what can be no model, without network: a folder without a pipeline, or no form of a hub id.

    Returns:
        The files of a folder; None for a hub id.

    Raises:
        ModelError: in one line that says what to do.
    """
    folder = _folder_or_hub(name, revision)
    return _select_in_folder(name, folder) if folder is not None else None


@lru_cache(maxsize=1)
def bundled_identity() -> str:
    """Return the identity of the bundled demo model."""
    return _resolve_folder(DEMO, DEMO_MODEL).identity


def folder_fingerprint(name: str) -> str | None:
    """Return a digest of the paths, sizes and times of a folder's model files: while it is equal, so is their content.

    It takes milliseconds, where hashing the content takes a minute. `demo` is the folder of the bundled model; None for
    a name that is no folder.

    Raises:
        ModelError: for a folder without a model, or one that cannot be read.
    """
    folder = _folder_of(name)
    if folder is None:
        return None
    states = [[str(folder.resolve())]]
    for relative in _select_in_folder(name, folder).paths:
        status = os.stat(folder / relative)
        states.append([relative, str(status.st_size), str(status.st_mtime_ns)])
    return digest(sorted(states))


def _folder_of(name: str) -> Path | None:
    path = DEMO_MODEL if name == DEMO else Path(name)
    try:
        return path if is_folder(path) else None
    except ValueError as error:
        raise ModelError(f"model: {shorten(name)} {error}") from None


def _folder_or_hub(name: str, revision: str | None) -> Path | None:
    """Return the folder that a name means, or None for a hub id."""
    folder = _folder_of(name)
    if folder is None and not is_repository(name):
        raise _no_model(name)
    if folder is not None and revision is not None:
        raise ModelError(f"revision: {shorten(revision)} concerns hub models, and {name} is a folder; leave it out")
    return folder


def _resolve_folder(name: str, folder: Path) -> ResolvedModel:
    chosen = _select_in_folder(name, folder)
    try:
        files = tuple(_hashed(path, HubFile(0, None), folder.joinpath) for path in chosen.paths)
    except OSError as error:
        raise _cannot_be_read(name, error) from error
    bundled = name == DEMO
    source: Literal["folder", "bundled"] = "bundled" if bundled else "folder"
    licence = BUNDLED_LICENCE if bundled else card_licence(folder)
    dtype = _dtype(chosen, lambda path: read_header(folder / path))
    return _model(name, source, str(folder.resolve()), None, chosen, files, licence, dtype)


def _resolve_online(name: str, revision: str, cache_dir: str | None) -> ResolvedModel:
    found = describe(name, revision, cache_dir)

    def local(path: str) -> Path:
        return download_file(name, path, found.commit, cache_dir)

    chosen = select_files(name, found.files, lambda path: local(path).read_text(encoding="utf-8"))
    # A file outside LFS is small, at most 10 MB by the hub's own limit: such files are downloaded together and hashed.
    small = [path for path in chosen.paths if found.files[path].sha256 is None]
    download_files(name, small, found.commit, cache_dir, quiet=True)
    files = tuple(_hashed(path, found.files[path], local) for path in chosen.paths)
    dtype = _dtype(chosen, lambda path: weights_header(name, path, found.commit))
    return _model(name, "hub", name, found.commit, chosen, files, found.licence, dtype)


def _resolve_cached(name: str, revision: str, cache_dir: str | None) -> ResolvedModel | None:
    """Return the model from the hub cache alone; None if the cache does not hold enough of it."""
    cached = cached_repository(name, revision, cache_dir)
    if cached is None:
        return None
    listing, folder = cached
    found = listing or Repository(folder.name, dict.fromkeys(list_folder(folder), HubFile(0, None)), None)
    try:
        chosen = select_files(name, found.files, lambda path: (folder / path).read_text(encoding="utf-8"))
        files = tuple(_hashed(path, found.files[path], folder.joinpath) for path in chosen.paths)
    except OSError:
        return None
    except ModelError:
        if listing is None:  # a download that broke off looks like a broken model
            return None
        raise
    # With --local-dir the weights lie elsewhere, and their dtype cannot be told offline.
    here = {path for path in chosen.paths if (folder / path).is_file()}
    dtype = _dtype(chosen, lambda path: read_header(folder / path) if path in here else {})
    return _model(name, "hub", name, found.commit, chosen, files, card_licence(folder), dtype)


def _model(
    name: str,
    source: Literal["folder", "bundled", "hub"],
    location: str,
    commit: str | None,
    chosen: PipelineFiles,
    files: tuple[ModelFile, ...],
    licence: str | None,
    dtype: str | None,
) -> ResolvedModel:
    identity = digest(sorted([file.path, file.sha256] for file in files))
    return ResolvedModel(
        name, source, location, commit, identity, chosen.pipeline_class, files, licence, chosen.configs, dtype
    )


def _dtype(chosen: PipelineFiles, header: Callable[[str], Mapping[str, Any]]) -> str | None:
    """Return the dtype of a model's weights, where no preset of its class decides it; on the hub it costs requests."""
    return None if has_preset(chosen.pipeline_class) else weights_dtype(chosen.paths, header)


def _hashed(path: str, known: HubFile, local: Callable[[str], Path]) -> ModelFile:
    if known.sha256 is not None:
        return ModelFile(path, known.sha256, known.size)
    file = local(path)
    return ModelFile(path, file_sha256(file), file.stat().st_size)


def _select_in_folder(name: str, folder: Path) -> PipelineFiles:
    try:
        chosen = select_files(name, list_folder(folder), lambda path: (folder / path).read_text(encoding="utf-8"))
        for path in chosen.paths:
            (folder / path).open("rb").close()
    except OSError as error:
        raise _cannot_be_read(name, error) from error
    return chosen


def _cannot_be_read(name: str, error: OSError) -> ModelError:
    return ModelError(f"{name}: cannot read {error.filename}: {error.strerror}; check its permissions")


def _no_model(name: str) -> ModelError:
    path = Path(name)
    try:
        exists = is_file(path)
    except ValueError as error:
        return ModelError(f"model: {shorten(name)} {error}")
    if exists:
        if path.suffix in PICKLE_SUFFIXES:
            why = "is a pickle file, which can run code and is not loaded"
        else:
            why = "is a file, not a folder"
        return ModelError(f"{name}: {why}; name a folder written by a diffusers pipeline's save_pretrained")
    if name.startswith((".", "/", "\\")) or "\\" in name or name.count("/") > 1 or path.is_absolute():
        return ModelError(f"{name}: this folder does not exist; check the path{similar_name(path)}")
    return ModelError(
        f"model: {shorten(name)} is neither a preset, nor a folder, nor a hub id of the form owner/name"
        f"{similar_model(name) or similar_name(path)} (--list-models shows the presets)"
    )
