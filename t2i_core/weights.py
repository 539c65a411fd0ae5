"""Model name -> identity, and -> local files.

`resolve_model` downloads small files only; weights move in `fetch_weights`. The identity is a digest of the files a
pipeline loads, so a folder, the hub and a hub cache that hold the same files are the same model.
"""

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from t2i_core.adapters import Adapter, fetch_adapter, resolve_adapter
from t2i_core.config import DEMO
from t2i_core.content import content_hash
from t2i_core.errors import HubUnavailable, ModelError, shorten
from t2i_core.hub import (
    MAIN,
    HubFile,
    Repository,
    cached_repository,
    describe,
    download_file,
    download_files,
    is_commit,
    is_copy_of,
    is_offline,
    is_repository,
    online_or_cached,
)
from t2i_core.hub_errors import offline_error
from t2i_core.model_files import PICKLE_SUFFIXES, Selection, list_folder, select_files

__all__ = [
    "Adapter",
    "Model",
    "ModelFile",
    "bundled_identity",
    "fetch_adapter",
    "fetch_weights",
    "folder_fingerprint",
    "is_commit",
    "locate",
    "resolve_adapter",
    "resolve_model",
]

BUNDLED = Path(__file__).parent / "data" / "demo_model"
BUNDLED_LICENCE = "Apache-2.0"


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A file the pipeline loads: path relative to the model's folder, content hash, size in bytes."""

    path: str
    sha256: str
    size: int


@dataclass(frozen=True, slots=True)
class Model:
    """A model, known without its weights.

    `location`: an absolute folder, or a hub id. `commit`: of a hub model. `configs`: the settings of `transformer` or
    `unet`, `vae` and `scheduler`, as far as the pipeline has them.
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

    @property
    def weights_bytes(self) -> int:
        """Bytes of all safetensors files: what a download moves and memory must hold at least."""
        return sum(file.size for file in self.files if file.path.endswith(".safetensors"))

    def to_json(self) -> dict[str, Any]:
        """A plain dict; `from_json` reads it back."""
        return asdict(self) | {"files": [asdict(file) for file in self.files]}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Model":
        """What `to_json` wrote."""
        return cls(**{**values, "files": tuple(ModelFile(**file) for file in values["files"])})


def resolve_model(
    name: str, *, revision: str | None = None, cache_dir: str | None = None, commit: str | None = None
) -> Model:
    """`demo`, a folder or a hub id -> the model. A folder's weights are hashed; the hub tells the hashes of its own.

    Args:
        name: what the user wrote, a preset's name already replaced by its repository.
        revision: branch, tag or commit of a hub model.
        cache_dir: hub cache; None: the hub's own.
        commit: the commit to stay with, whatever `revision` points to by now.

    Raises:
        ModelError: in one line that says what to do.
        HubUnavailable: the hub does not answer, or not now, and the cache cannot stand in.
    """
    path = _folder_of(name)
    if path is not None:
        if revision is not None:
            raise ModelError(f"revision: {shorten(revision)} concerns hub models, and {name} is a folder; leave it out")
        return _resolve_folder(name, path)
    if is_repository(name):
        wanted = commit or revision or MAIN
        return online_or_cached(
            name,
            wanted,
            online=lambda: _resolve_online(name, wanted, cache_dir),
            cached=lambda: _resolve_cached(name, wanted, cache_dir),
        )
    raise _no_model(name)


@lru_cache(maxsize=1)
def bundled_identity() -> str:
    """Identity of the bundled demo model."""
    return _resolve_folder(DEMO, BUNDLED).identity


def folder_fingerprint(path: str) -> str:
    """Digest of where a folder's model files lie, their sizes and times: unchanged, so is their content.

    Takes milliseconds where hashing takes a minute. `demo` stands for the bundled model.

    Raises:
        ModelError: if this is no folder with a model.
    """
    folder = _folder_of(path)
    if folder is None:
        raise _no_model(path)
    states = [[str(folder.resolve())]]
    for relative in _select_in_folder(path, folder).paths:
        status = os.stat(folder / relative)
        states.append([relative, str(status.st_size), str(status.st_mtime_ns)])
    return _digest(states)


def locate(model: Model, *, cache_dir: str | None, local_dir: str | None) -> Path | None:
    """The local folder with all files of the model, or None if one is missing or of another size; no network."""
    folder = _home(model, cache_dir, local_dir)
    if folder is None:
        return None
    for file in model.files:
        path = folder / file.path
        try:
            if path.stat().st_size != file.size:
                return None
        except OSError:
            return None
        if model.commit and local_dir is not None and not is_copy_of(folder, file.path, model.commit):
            return None
    return folder


def fetch_weights(model: Model, *, cache_dir: str | None, local_dir: str | None) -> Path:
    """The local folder with all files of the model; what is missing is downloaded, and nothing else.

    With `local_dir` each hub model has a folder of its own in it, `owner--name`; without, it lies in the hub cache.

    Raises:
        ModelError: in one line that says what to do.
        HubUnavailable: the hub does not answer, or not now.
    """
    folder = locate(model, cache_dir=cache_dir, local_dir=local_dir)
    if folder is not None:
        return folder
    if model.commit is None:
        raise ModelError(f"{model.name}: files in {model.location} changed or vanished during the run; start it again")
    plain_copy = _local_copy(model, local_dir) if local_dir is not None else None
    folder = download_files(
        model.location, [file.path for file in model.files], model.commit, cache_dir, local_dir=plain_copy
    )
    # Without network the library is content with any folder that is there, also with that of another commit.
    if locate(model, cache_dir=cache_dir, local_dir=local_dir) is None:
        if is_offline():
            raise offline_error(model.location, model.commit)
        raise HubUnavailable(f"{model.name}: {folder} does not hold all of commit {model.commit[:12]}; run again")
    return folder


def _folder_of(name: str) -> Path | None:
    path = BUNDLED if name == DEMO else Path(name).expanduser()
    return path if path.is_dir() else None


def _resolve_folder(name: str, folder: Path) -> Model:
    selection = _select_in_folder(name, folder)
    files = tuple(_hashed(path, HubFile(0, None), folder.joinpath) for path in selection.paths)
    bundled = name == DEMO
    source: Literal["folder", "bundled"] = "bundled" if bundled else "folder"
    return _model(name, source, str(folder.resolve()), None, selection, files, BUNDLED_LICENCE if bundled else None)


def _resolve_online(name: str, revision: str, cache_dir: str | None) -> Model:
    found = describe(name, revision, cache_dir)

    def local(path: str) -> Path:
        return download_file(name, path, found.commit, cache_dir)

    selection = select_files(name, found.files, lambda path: local(path).read_text(encoding="utf-8"))
    # A file outside LFS is a small one, by the hub's own limit of 10 MB: it is fetched to be hashed, all in one go.
    small = [path for path in selection.paths if found.files[path].sha256 is None]
    download_files(name, small, found.commit, cache_dir, quiet=True)
    files = tuple(_hashed(path, found.files[path], local) for path in selection.paths)
    return _model(name, "hub", name, found.commit, selection, files, found.licence)


def _resolve_cached(name: str, revision: str, cache_dir: str | None) -> Model | None:
    """The same from the hub cache alone; None if that is not complete enough."""
    cached = cached_repository(name, revision, cache_dir)
    if cached is None:
        return None
    listing, folder = cached
    found = listing or Repository(folder.name, dict.fromkeys(list_folder(folder), HubFile(0, None)), None)
    try:
        selection = select_files(name, found.files, lambda path: (folder / path).read_text(encoding="utf-8"))
        files = tuple(_hashed(path, found.files[path], folder.joinpath) for path in selection.paths)
    except OSError:
        return None
    except ModelError:
        if listing is None:  # what looks like a broken model is rather a torn download
            return None
        raise
    return _model(name, "hub", name, found.commit, selection, files, None)


def _model(
    name: str,
    source: Literal["folder", "bundled", "hub"],
    location: str,
    commit: str | None,
    selection: Selection,
    files: tuple[ModelFile, ...],
    licence: str | None,
) -> Model:
    identity = _digest([[file.path, file.sha256] for file in files])
    return Model(name, source, location, commit, identity, selection.pipeline_class, files, licence, selection.configs)


def _hashed(path: str, known: HubFile, local: Callable[[str], Path]) -> ModelFile:
    if known.sha256 is not None:
        return ModelFile(path, known.sha256, known.size)
    file = local(path)
    return ModelFile(path, content_hash(file), file.stat().st_size)


def _select_in_folder(name: str, folder: Path) -> Selection:
    try:
        return select_files(name, list_folder(folder), lambda path: (folder / path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ModelError(f"{name}: cannot read {error.filename}: {error.strerror}; check its permissions") from error


def _home(model: Model, cache_dir: str | None, local_dir: str | None) -> Path | None:
    if model.source == "bundled":
        return BUNDLED  # of this installation, which may have moved since the model was resolved
    if model.commit is None:
        return Path(model.location)
    if local_dir is not None:
        return _local_copy(model, local_dir)
    cached = cached_repository(model.location, model.commit, cache_dir)
    return cached[1] if cached else None


def _local_copy(model: Model, local_dir: str) -> Path:
    return Path(local_dir).expanduser().resolve() / model.location.replace("/", "--")


def _digest(parts: list[list[str]]) -> str:
    return hashlib.sha256(json.dumps(sorted(parts), separators=(",", ":")).encode()).hexdigest()


def _no_model(name: str) -> ModelError:
    path = Path(name).expanduser()
    if path.is_file():
        if path.suffix in PICKLE_SUFFIXES:
            why = "is a pickle file, which can run code and is not loaded"
        else:
            why = "is a file, not a folder"
        return ModelError(f"{name}: {why}; name a folder written by a diffusers pipeline's save_pretrained")
    if name.startswith((".", "~", "/", "\\")) or "\\" in name or name.count("/") > 1 or path.is_absolute():
        return ModelError(f"{name}: this folder does not exist; check the path")
    return ModelError(f"model: {shorten(name)} is neither a preset, nor a folder, nor a hub id of the form owner/name")
