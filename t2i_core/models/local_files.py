"""The files of a model on the machine that generates: fetched and verified once, however many processes ask."""

from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from t2i_core.errors import ModelError
from t2i_core.hashing import digest, file_sha256
from t2i_core.models.adapters import Adapter, fetch_adapter
from t2i_core.models.hub import cache_folder
from t2i_core.models.identity import ResolvedModel
from t2i_core.models.loaded_files import LoadedFile, file_state
from t2i_core.models.prepare import prepare_digest
from t2i_core.models.weights import fetch_checkpoint, fetch_weights, locate

# In the hub cache: locks, and the names of what was verified.
_NOTES = ".text2image"


@dataclass(frozen=True, slots=True)
class ModelSource:
    """What a process needs to have the model of a run on its own machine: no paths of another one but those of folders.

    prepare: the user's function as named, and the SHA-256 of the file that defines it.
    """

    model: ResolvedModel
    adapters: tuple[Adapter, ...] = ()
    cache_dir: str | None = None
    local_dir: str | None = None
    prepare: tuple[str, str] | None = None


def fetch_files(source: ModelSource) -> dict[str, Any]:
    """Return local paths of the model's folder, its checkpoints and the adapters' files; download what is missing.

    Raises:
        ModelError: for files that cannot be had.
        HubUnavailable: where the hub gives no usable answer.
    """
    folders = {"cache_dir": source.cache_dir, "local_dir": source.local_dir}
    return {
        "model": str(fetch_weights(source.model, **folders)),
        "checkpoints": [str(fetch_checkpoint(one, **folders)) for one in source.model.checkpoints],
        "adapters": [str(fetch_adapter(adapter, source.cache_dir)) for adapter in source.adapters],
    }


def fetch_and_verify(source: ModelSource) -> dict[str, Any]:
    """Return the paths of `fetch_files` on this machine, after a check that they hold what the run resolved.

    One process of a machine fetches and hashes, the others wait for it. Under "files" there is a `LoadedFile` for each
    file, in the state in which it was hashed.

    Raises:
        ModelError: for files that cannot be had, or that have another content.
        ConfigError: for another source of the user's own function.
    """
    if source.prepare is not None and prepare_digest(source.prepare[0]) != source.prepare[1]:
        raise ModelError(f"prepare: {source.prepare[0]} has another source here; copy the file of the flow's machine")
    notes = cache_folder(source.cache_dir) / _NOTES
    with ExitStack() as stack:
        with suppress(OSError):  # a cache that was filled by someone else, and cannot be written
            notes.mkdir(parents=True, exist_ok=True)
            stack.enter_context(FileLock(notes / f"{source.model.identity}.lock"))
        _check_folder(source)
        paths = fetch_files(source)
        files = [LoadedFile(str(path), sha256, file_state(path)) for path, sha256 in _wanted(source, paths)]
        note = notes / digest([[file.path, file.sha256, *map(str, file.state or ())] for file in files])
        if not note.exists():
            for file in files:
                if file_sha256(Path(file.path)) != file.sha256:
                    raise ModelError(f"{file.path} has another content than the model of this run: copy it again")
            with suppress(OSError):
                note.touch()
    return paths | {"files": files}


def _check_folder(source: ModelSource) -> None:
    """Refuse a model that lies in a folder and not on the hub, where this machine does not have that folder whole.

    Raises:
        ModelError: naming the folder.
    """
    model = source.model
    if locate(model, cache_dir=source.cache_dir, local_dir=source.local_dir) is not None:
        return
    places = [(model.location, model.commit), *((one.location, one.commit) for one in model.checkpoints)]
    for location, commit in places:
        if commit is None and model.source != "bundled" and not Path(location).is_dir():
            raise ModelError(f"{location} is not there: copy it, or name a shared folder or a model on the hub")


def _wanted(source: ModelSource, paths: dict[str, Any]) -> Iterator[tuple[Path, str]]:
    """Yield each file with the SHA-256 that it must have."""
    for file in source.model.files:
        yield Path(paths["model"]) / file.path, file.sha256
    for checkpoint, found in zip(source.model.checkpoints, paths["checkpoints"], strict=True):
        # `found` is the location of the files plus the checkpoint's own path.
        folder = Path(found[: -len(checkpoint.path)]) if checkpoint.path else Path(found)
        for file in checkpoint.files:
            yield folder / file.path, file.sha256
    for adapter, found in zip(source.adapters, paths["adapters"], strict=True):
        yield Path(found), adapter.sha256
