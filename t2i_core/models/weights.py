"""A model's weights: from its identity to the local folders that hold its files."""

from collections.abc import Sequence
from pathlib import Path

from t2i_core.bundled import DEMO_MODEL
from t2i_core.errors import HubUnavailable, ModelError
from t2i_core.models.hub import cached_repository, download_files, is_copy_of, is_offline
from t2i_core.models.hub_errors import offline_error
from t2i_core.models.identity import Checkpoint, ModelFile, ResolvedModel


def locate(model: ResolvedModel, *, cache_dir: str | None, local_dir: str | None) -> Path | None:
    """Return the local folder with the model's own files; no network.

    None if one of them, or of its checkpoints, is missing or of another size.
    """
    if any(_checkpoint_folder(one, cache_dir, local_dir) is None for one in model.checkpoints):
        return None
    return _located(_folder(model, cache_dir, local_dir), model.files, model.commit, local_dir)


def fetch_weights(model: ResolvedModel, *, cache_dir: str | None, local_dir: str | None) -> Path:
    """Return the local folder with all of the model's own files, after a download of those that are missing.

    With `local_dir` each hub model has its own folder in it, `owner--name`; without, it is in the hub cache.

    Raises:
        ModelError: for files that cannot be had, in one line that says what to do.
        HubUnavailable: where the hub gives no usable answer.
    """
    folder = _located(_folder(model, cache_dir, local_dir), model.files, model.commit, local_dir)
    if folder is not None:
        return folder
    return _fetched(model.name, model.location, model.commit, model.files, cache_dir, local_dir)


def fetch_checkpoint(checkpoint: Checkpoint, *, cache_dir: str | None, local_dir: str | None) -> Path:
    """Return the local file or folder of a checkpoint, after a download as by `fetch_weights`.

    Raises:
        ModelError: as `fetch_weights`.
        HubUnavailable: as `fetch_weights`.
    """
    folder = _checkpoint_folder(checkpoint, cache_dir, local_dir)
    if folder is None:
        known = (checkpoint.name, checkpoint.location, checkpoint.commit, checkpoint.files)
        folder = _fetched(*known, cache_dir, local_dir)
    return folder / checkpoint.path


def _checkpoint_folder(checkpoint: Checkpoint, cache_dir: str | None, local_dir: str | None) -> Path | None:
    folder = _local(checkpoint.location, checkpoint.commit, cache_dir, local_dir)
    return _located(folder, checkpoint.files, checkpoint.commit, local_dir)


def _located(folder: Path | None, files: Sequence[ModelFile], commit: str | None, local_dir: str | None) -> Path | None:
    """Return the folder if it has all of the files, in their size and of this commit."""
    if folder is None:
        return None
    for file in files:
        path = folder / file.path
        try:
            if path.stat().st_size != file.size:
                return None
        except OSError:
            return None
        if commit and local_dir is not None and not is_copy_of(folder, file.path, commit):
            return None
    return folder


def _fetched(
    name: str,
    location: str,
    commit: str | None,
    files: Sequence[ModelFile],
    cache_dir: str | None,
    local_dir: str | None,
) -> Path:
    if commit is None:
        raise ModelError(f"{name}: files in {location} changed or vanished during the run; start it again")
    plain_copy = _local_copy(location, local_dir) if local_dir is not None else None
    folder = download_files(location, [file.path for file in files], commit, cache_dir, local_dir=plain_copy)
    # Without network the library returns any folder that exists, also one with files of another commit.
    if _located(_local(location, commit, cache_dir, local_dir), files, commit, local_dir) is None:
        if is_offline():
            raise offline_error(location, commit)
        raise HubUnavailable(f"{name}: {folder} does not hold all of commit {commit[:12]}; run again")
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
    return _local(model.location, model.commit, cache_dir, local_dir)


def _local(location: str, commit: str | None, cache_dir: str | None, local_dir: str | None) -> Path | None:
    if commit is None:
        return Path(location)
    if local_dir is not None:
        return _local_copy(location, local_dir)
    cached = cached_repository(location, commit, cache_dir)
    return cached[1] if cached else None


def _local_copy(location: str, local_dir: str) -> Path:
    return Path(local_dir).resolve() / location.replace("/", "--")
