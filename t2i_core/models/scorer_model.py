"""A CLIP or SigLIP model for scoring: from a folder or a hub id to its files and their digest, without its weights."""

import json
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from t2i_core.errors import ModelError, shorten
from t2i_core.hashing import digest, file_sha256
from t2i_core.local_paths import similar_name
from t2i_core.models.hub import (
    MAIN,
    cached_repository,
    describe,
    download_file,
    download_files,
    is_repository,
    online_or_cached,
)
from t2i_core.models.identity import ModelFile
from t2i_core.models.names import SAFETENSORS, kind_on_disk

# By `model_type` in config.json.
KINDS = ("clip", "siglip")
_CONFIG, _INDEX, _WEIGHTS = "config.json", "model.safetensors.index.json", "model.safetensors"
_SMALL = (
    *(_CONFIG, "preprocessor_config.json", "processor_config.json", "tokenizer_config.json", "tokenizer.json"),
    *("special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt", "spiece.model"),
)


@dataclass(frozen=True, slots=True)
class ScorerModel:
    """A model that scores images. `location`: an absolute folder, or a hub id at `commit`."""

    name: str
    kind: str  # of `KINDS`
    location: str
    files: tuple[ModelFile, ...]
    commit: str | None = None

    @property
    def identity(self) -> str:
        """A digest of the files that are loaded, wherever they lie."""
        return digest(sorted([file.path, file.sha256] for file in self.files))

    def to_json(self) -> dict[str, Any]:
        """Return the model as a dict of JSON types; `from_json` reads it back."""
        return asdict(self) | {"files": [asdict(file) for file in self.files]}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "ScorerModel":
        """Return the model that `to_json` wrote."""
        return cls(**{**values, "files": tuple(ModelFile(**file) for file in values["files"])})


def find_scorer_model(name: str) -> Path | None:
    """Return the folder that a name means, or None for a name of the form of a hub id.

    Raises:
        ModelError: for anything else, in one line with the fix.
    """
    kind = kind_on_disk("score", name)
    if kind == "folder":
        return Path(name)
    if kind == "file" or not is_repository(name):
        what = "is a file" if kind == "file" else "does not exist"
        raise ModelError(
            f"score: {shorten(name)} {what}; name the folder of a CLIP or SigLIP model, or a hub id owner/name"
            + similar_name(Path(name))
        )
    return None


def scorer_model_fingerprint(name: str) -> list[list[Any]] | None:
    """Return path, size and time of the files of a folder: while they are equal, so is their content.

    None for a model from the hub.

    Raises:
        ModelError: as `find_scorer_model`.
    """
    folder = find_scorer_model(name)
    if folder is None:
        return None
    states = ((path, (folder / path).stat()) for path in _chosen(name, _names(folder)))
    return [[str(folder.resolve())], *([path, state.st_size, state.st_mtime_ns] for path, state in states)]


def resolve_scorer_model(name: str, cache_dir: str | None) -> ScorerModel:
    """Return the model that a folder or a hub id names. The weights of a folder are hashed; the hub tells its hashes.

    Raises:
        ModelError: for a model that cannot be found or used, in one line with the fix.
        HubUnavailable: where the hub gives no usable answer.
    """
    folder = find_scorer_model(name)
    if folder is not None:
        return _in_folder(name, folder)
    return online_or_cached(
        name, MAIN, online=lambda: _at_hub(name, cache_dir), cached=lambda: _in_cache(name, cache_dir)
    )


def fetch_scorer_model(model: ScorerModel, cache_dir: str | None) -> Path:
    """Return the local folder of a model, after a download of what the hub cache lacks.

    Raises:
        ModelError: for a folder that is gone, and as `resolve_scorer_model`.
    """
    if model.commit is None:
        if not Path(model.location).is_dir():
            raise ModelError(f"score: {model.location} does not exist any more; put it back, or name another folder")
        return Path(model.location)
    return download_files(model.location, [file.path for file in model.files], model.commit, cache_dir)


def _in_folder(name: str, folder: Path, commit: str | None = None) -> ScorerModel:
    try:
        chosen = _chosen(name, _names(folder))
        files = tuple(ModelFile(path, file_sha256(folder / path), (folder / path).stat().st_size) for path in chosen)
        kind = _kind(name, (folder / _CONFIG).read_text(encoding="utf-8"))
    except OSError as error:
        raise ModelError(f"score: {name} cannot be read: {error.strerror}; check the folder") from error
    return ScorerModel(name, kind, name if commit else str(folder.resolve()), files, commit)


def _in_cache(name: str, cache_dir: str | None) -> ScorerModel | None:
    cached = cached_repository(name, MAIN, cache_dir)
    if cached is None or not (cached[1] / _CONFIG).is_file():
        return None
    return _in_folder(name, cached[1], commit=cached[1].name)


def _at_hub(name: str, cache_dir: str | None) -> ScorerModel:
    found = describe(name, MAIN, cache_dir)
    files = []
    for path in _chosen(name, found.files):
        sha256 = found.files[path].sha256 or file_sha256(download_file(name, path, found.commit, cache_dir))
        files.append(ModelFile(path, sha256, found.files[path].size))
    config = download_file(name, _CONFIG, found.commit, cache_dir).read_text(encoding="utf-8")
    return ScorerModel(name, _kind(name, config), name, tuple(files), found.commit)


def _names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.is_file()]


def _chosen(name: str, names: Collection[str]) -> list[str]:
    """Return the files that are loaded.

    Raises:
        ModelError: for a model without a configuration or without safetensors.
    """
    if _CONFIG not in names:
        raise ModelError(f"score: {name} has no {_CONFIG}; name the folder or the hub id of a CLIP or SigLIP model")
    shards = [path for path in names if path.startswith("model-") and path.endswith(SAFETENSORS)]
    weights = [_WEIGHTS] if _WEIGHTS in names else [_INDEX, *sorted(shards)] if _INDEX in names else []
    if not weights:
        raise ModelError(f"score: {name} has no {_WEIGHTS}; other formats can run code and are not loaded")
    return [*(path for path in _SMALL if path in names), *weights]


def _kind(name: str, config: str) -> str:
    try:
        kind = json.loads(config).get("model_type")
    except (ValueError, AttributeError):
        kind = None
    if kind not in KINDS:
        raise ModelError(f"score: {name} is no CLIP or SigLIP model: its {_CONFIG} has model_type {kind!r}")
    return str(kind)
