"""A model's identity: from the name that a user writes to the files of a pipeline and the digest of them.

The identity is a digest of the files that a pipeline loads, so a folder, the hub and a hub cache that hold the same
files are the same model. Small files are read and, from the hub, downloaded; weights are not downloaded.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from t2i_core.bundled import DEMO_MODEL
from t2i_core.errors import ModelError, shorten
from t2i_core.hashing import digest, file_sha256
from t2i_core.local_paths import similar_name
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
from t2i_core.models.loaded_files import FileState, file_state, unchanged
from t2i_core.models.names import WEIGHT_SUFFIXES, kind_on_disk
from t2i_core.models.pipeline_files import PipelineFiles, Wanted, list_folder, select_files
from t2i_core.models.presets import has_preset, similar_model
from t2i_core.models.tensor_names import safetensors_header
from t2i_core.models.weights_dtype import weights_dtype
from t2i_core.options.values import DEMO

BUNDLED_LICENCE = "Apache-2.0"
ALL = Wanted()


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A file that the pipeline loads: path relative to the model's folder, SHA-256 of its content, size in bytes.

    state: its state when it was hashed; None for one whose hash the hub told.
    """

    path: str
    sha256: str
    size: int
    state: FileState | None = field(default=None, compare=False)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "ModelFile":
        """Return the file that `asdict` wrote; earlier versions wrote no state."""
        state = values.get("state")
        return cls(**{**values, "state": tuple(state) if state else None})


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Weights that take the place of a model's own: a single file, or the folder of a denoiser.

    components: the components that it supplies.
    location: an absolute folder, or a hub id; `commit`: None for a folder.
    path: in the location: of the file, or of the folder that holds config.json.
    config: that configuration; None for a file, which goes by the one of the model.
    """

    name: str
    components: tuple[str, ...]
    location: str
    path: str
    files: tuple[ModelFile, ...]
    commit: str | None = None
    config: Mapping[str, Any] | None = field(default=None, hash=False)

    def content(self) -> list[list[str]]:
        """Return [what it is, SHA-256] for all that is loaded; of a folder as if it were in the model's."""
        if self.config is None:
            return [[component, file.sha256] for component in self.components for file in self.files]
        prefix = f"{self.path}/" if self.path else ""
        (component,) = self.components
        return [[f"{component}/{file.path.removeprefix(prefix)}", file.sha256] for file in self.files]

    def to_json(self) -> dict[str, Any]:
        """Return the checkpoint as a dict of JSON types; `from_json` reads it back."""
        return asdict(self) | {"files": [asdict(file) for file in self.files], "components": list(self.components)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Checkpoint":
        """Return the checkpoint that `to_json` wrote."""
        files = tuple(ModelFile.from_json(file) for file in values["files"])
        return cls(**{**values, "files": files, "components": tuple(values["components"])})


@dataclass(frozen=True, slots=True)
class ResolvedModel:
    """A model whose identity and files are known, without its weights.

    location: an absolute folder, or a hub id.
    commit: the commit of a hub model; None for a folder.
    files: those that are loaded from the location.
    licence: as its own model card states it.
    configs: the configurations of `transformer` or `unet`, `vae` and `scheduler`, as far as the pipeline has them, and
        under "index" what model_index.json says of the pipeline itself.
    dtype: of the denoiser's weights; None where the preset of its class decides, or the files do not tell.
    classes: the class of each component.
    checkpoints: what supplies the weights that are not loaded from the location.
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
    classes: Mapping[str, str] = field(default_factory=dict, hash=False)
    checkpoints: tuple[Checkpoint, ...] = ()

    @property
    def weights_bytes(self) -> int:
        """The bytes of all files of weights: what memory must hold at least."""
        own = sum(file.size for file in self.files if file.path.endswith(WEIGHT_SUFFIXES))
        return own + sum(_weights_bytes(checkpoint) for checkpoint in self.checkpoints)

    @property
    def download_bytes(self) -> int:
        """The bytes of those files of weights that lie on the hub."""
        local = sum(_weights_bytes(checkpoint) for checkpoint in self.checkpoints if not checkpoint.commit)
        return self.weights_bytes - local

    def to_json(self) -> dict[str, Any]:
        """Return the model as a dict of JSON types; `from_json` reads it back."""
        checkpoints = [checkpoint.to_json() for checkpoint in self.checkpoints]
        return asdict(self) | {"files": [asdict(file) for file in self.files], "checkpoints": checkpoints}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "ResolvedModel":
        """Return the model that `to_json` wrote; earlier versions wrote no checkpoints and no classes."""
        files = tuple(ModelFile.from_json(file) for file in values["files"])
        checkpoints = tuple(Checkpoint.from_json(checkpoint) for checkpoint in values.get("checkpoints", ()))
        return cls(**{**values, "files": files, "checkpoints": checkpoints})


def _weights_bytes(checkpoint: Checkpoint) -> int:
    return sum(file.size for file in checkpoint.files if file.path.endswith(WEIGHT_SUFFIXES))


def resolve_model(
    name: str,
    *,
    revision: str | None = None,
    cache_dir: str | None = None,
    commit: str | None = None,
    wanted: Wanted = ALL,
) -> ResolvedModel:
    """Return the model that `demo`, a folder or a hub id names.

    The weights of a folder are hashed; the hub tells the hashes of its files.

    Args:
        name: the name that the user wrote, or the repository of a preset in its place.
        revision: branch, tag or commit of a hub model.
        cache_dir: hub cache; None: the hub's own.
        commit: the commit to use, wherever `revision` points by now.
        wanted: which of its weights are loaded.

    Raises:
        ModelError: for a model that cannot be found or used, in one line that says what to do.
        HubUnavailable: where the hub gives no usable answer and the cache cannot be used instead.
    """
    folder = _folder_or_hub(name, revision)
    if folder is not None:
        return _resolve_folder(name, folder, wanted)
    at = commit or revision or MAIN
    return online_or_cached(
        name,
        at,
        online=lambda: _resolve_online(name, at, cache_dir, wanted),
        cached=lambda: _resolve_cached(name, at, cache_dir, wanted),
    )


def check_model(name: str, revision: str | None = None, wanted: Wanted = ALL) -> PipelineFiles | None:
    """Refuse what can be no model, without network: a folder without a pipeline, or no form of a hub id.

    Returns:
        What is loaded from a folder; None for a hub id.

    Raises:
        ModelError: in one line that says what to do.
    """
    folder = _folder_or_hub(name, revision)
    return None if folder is None else _select_in_folder(name, folder, wanted)


@lru_cache(maxsize=1)
def bundled_identity() -> str:
    """Return the identity of the bundled demo model."""
    return _resolve_folder(DEMO, DEMO_MODEL, ALL).identity


def folder_fingerprint(name: str, wanted: Wanted = ALL) -> str | None:
    """Return a digest of the paths and states of a folder's model files: while it is equal, so is their content.

    It takes milliseconds, where hashing the content takes a minute. `demo` is the folder of the bundled model; None for
    a name that is no folder.

    Raises:
        ModelError: for a folder without a model, or one that cannot be read.
    """
    folder = _folder_of(name)
    if folder is None:
        return None
    states = [[str(folder.resolve())]]
    for relative in _select_in_folder(name, folder, wanted).paths:
        states.append([relative, *map(str, file_state(folder / relative))])
    return digest(sorted(states))


def _folder_of(name: str) -> Path | None:
    """Return the folder that a name means, or None for a name that may be a hub id.

    Raises:
        ModelError: for a file, and for what cannot be read.
    """
    if name == DEMO:
        return DEMO_MODEL
    kind = kind_on_disk("model", name)
    if kind == "file":
        raise ModelError(f"{name}: is a file, not a folder; name a folder written by a pipeline's save_pretrained")
    return Path(name) if kind else None


def _folder_or_hub(name: str, revision: str | None) -> Path | None:
    """Return the folder that a name means, or None for a hub id."""
    folder = _folder_of(name)
    if folder is None and not is_repository(name):
        raise _no_model(name)
    if folder is not None and revision is not None:
        raise ModelError(f"revision: {shorten(revision)} concerns hub models, and {name} is a folder; leave it out")
    return folder


def _resolve_folder(name: str, folder: Path, wanted: Wanted) -> ResolvedModel:
    paths = [folder / path for path in _select_in_folder(name, folder, wanted).paths]
    try:
        with unchanged(paths):  # what of them is parsed is what is hashed, too
            chosen = _select_in_folder(name, folder, wanted)
            files = tuple(hashed(path, HubFile(0, None), folder.joinpath) for path in chosen.paths)
    except OSError as error:
        raise _cannot_be_read(name, error) from error
    bundled = name == DEMO
    source: Literal["folder", "bundled"] = "bundled" if bundled else "folder"
    licence = BUNDLED_LICENCE if bundled else card_licence(folder)
    dtype = _dtype(chosen, lambda path: safetensors_header(folder / path))
    return _model(name, source, str(folder.resolve()), None, chosen, files, licence, dtype)


def _resolve_online(name: str, revision: str, cache_dir: str | None, wanted: Wanted) -> ResolvedModel:
    found = describe(name, revision, cache_dir)

    def local(path: str) -> Path:
        return download_file(name, path, found.commit, cache_dir)

    chosen = select_files(name, found.files, lambda path: local(path).read_text(encoding="utf-8"), wanted)
    # A file outside LFS is small, at most 10 MB by the hub's own limit: such files are downloaded together and hashed.
    small = [path for path in chosen.paths if found.files[path].sha256 is None]
    download_files(name, small, found.commit, cache_dir, quiet=True)
    files = tuple(hashed(path, found.files[path], local) for path in chosen.paths)
    dtype = _dtype(chosen, lambda path: weights_header(name, path, found.commit))
    return _model(name, "hub", name, found.commit, chosen, files, found.licence, dtype)


def _resolve_cached(name: str, revision: str, cache_dir: str | None, wanted: Wanted) -> ResolvedModel | None:
    """Return the model from the hub cache alone; None if the cache does not hold enough of it."""
    cached = cached_repository(name, revision, cache_dir)
    if cached is None:
        return None
    listing, folder = cached
    found = listing or Repository(folder.name, dict.fromkeys(list_folder(folder), HubFile(0, None)), None)
    try:
        chosen = select_files(name, found.files, lambda path: (folder / path).read_text(encoding="utf-8"), wanted)
        files = tuple(hashed(path, found.files[path], folder.joinpath) for path in chosen.paths)
    except OSError:
        return None
    except ModelError:
        if listing is None:  # a download that broke off looks like a broken model
            return None
        raise
    # With --local-dir the weights lie elsewhere, and their dtype cannot be told offline.
    here = {path for path in chosen.paths if (folder / path).is_file()}
    dtype = _dtype(chosen, lambda path: safetensors_header(folder / path) if path in here else {})
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
    return ResolvedModel(
        name=name,
        source=source,
        location=location,
        commit=commit,
        identity=identity_of(files),
        pipeline_class=chosen.pipeline_class,
        files=files,
        licence=licence,
        configs=chosen.configs,
        dtype=dtype,
        classes=chosen.classes,
    )


def _dtype(chosen: PipelineFiles, header: Callable[[str], Mapping[str, Any]]) -> str | None:
    """Return the dtype of a model's weights, where no preset of its class decides it; on the hub it costs requests."""
    return None if has_preset(chosen.pipeline_class) else weights_dtype(chosen.paths, header)


def identity_of(files: Iterable[ModelFile], checkpoints: Iterable[Checkpoint] = ()) -> str:
    """Return the digest of all that is loaded."""
    content = [[file.path, file.sha256] for file in files]
    return digest(sorted(content + [item for checkpoint in checkpoints for item in checkpoint.content()]))


def hashed(path: str, known: HubFile, local: Callable[[str], Path]) -> ModelFile:
    """Return a file with its hash: the one that the hub knows, or that of the content at `local(path)`."""
    if known.sha256 is not None:
        return ModelFile(path, known.sha256, known.size)
    file = local(path)
    state = file_state(file)
    with unchanged([file]):
        return ModelFile(path, file_sha256(file), state[0], state)


def _select_in_folder(name: str, folder: Path, wanted: Wanted) -> PipelineFiles:
    try:
        chosen = select_files(name, list_folder(folder), lambda path: (folder / path).read_text("utf-8"), wanted)
        for path in chosen.paths:
            (folder / path).open("rb").close()
    except OSError as error:
        raise _cannot_be_read(name, error) from error
    return chosen


def _cannot_be_read(name: str, error: OSError) -> ModelError:
    return ModelError(f"{name}: cannot read {error.filename}: {error.strerror}; check its permissions")


def _no_model(name: str) -> ModelError:
    path = Path(name)
    if name.startswith((".", "/", "\\")) or "\\" in name or name.count("/") > 1 or path.is_absolute():
        return ModelError(f"{name}: this folder does not exist; check the path{similar_name(path)}")
    return ModelError(
        f"model: {shorten(name)} is neither a preset, nor a folder, nor a hub id of the form owner/name"
        f"{similar_model(name) or similar_name(path)} (--list-models shows the presets)"
    )
