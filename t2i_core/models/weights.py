"""A model's weights: from its identity to the local folder that holds its files."""

from collections.abc import Sequence
from pathlib import Path

from t2i_core.bundled import DEMO_MODEL
from t2i_core.errors import HubUnavailable, ModelError
from t2i_core.models.hub import cached_repository, download_files, is_copy_of, is_offline
from t2i_core.models.hub_errors import offline_error
from t2i_core.models.identity import ResolvedModel


def locate(model: ResolvedModel, *, cache_dir: str | None, local_dir: str | None) -> Path | None:
    """Return the local folder with all files of the model; None if a file is missing or of another size; no network."""
    folder = _folder(model, cache_dir, local_dir)
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


def fetch_weights(model: ResolvedModel, *, cache_dir: str | None, local_dir: str | None) -> Path:
    """Return the local folder with all files of the model, after a download of those that are missing.

    With `local_dir` each hub model has its own folder in it, `owner--name`; without, it is in the hub cache.

    Raises:
        ModelError: for files that cannot be had, in one line that says what to do.
        HubUnavailable: where the hub gives no usable answer.
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
    # Without network the library returns any folder that exists, also one with files of another commit.
    if locate(model, cache_dir=cache_dir, local_dir=local_dir) is None:
        if is_offline():
            raise offline_error(model.location, model.commit)
        raise HubUnavailable(f"{model.name}: {folder} does not hold all of commit {model.commit[:12]}; run again")
    return folder


def fetch_some(model: ResolvedModel, paths: Sequence[str], *, cache_dir: str | None, local_dir: str | None) -> Path:
    """Return a local folder with these small files of the model, after a download of those that are missing.

    Raises:
        ModelError: as `fetch_weights`.
    """
    folder = locate(model, cache_dir=cache_dir, local_dir=local_dir)
    if folder is not None:
        return folder
    if model.commit is None:
        return Path(model.location)
    # Into the cache, wherever the weights go: resolving the model put most small files there.
    return download_files(model.location, paths, model.commit, cache_dir, quiet=True)


def _folder(model: ResolvedModel, cache_dir: str | None, local_dir: str | None) -> Path | None:
    if model.source == "bundled":
        return DEMO_MODEL  # of this installation, which may have moved since the model was resolved
    if model.commit is None:
        return Path(model.location)
    if local_dir is not None:
        return _local_copy(model, local_dir)
    cached = cached_repository(model.location, model.commit, cache_dir)
    return cached[1] if cached else None


def _local_copy(model: ResolvedModel, local_dir: str) -> Path:
    return Path(local_dir).resolve() / model.location.replace("/", "--")
