"""LoRA files: from an entry of `--lora` to the hash of its content, and to a local file."""

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from t2i_core.config import parse_lora
from t2i_core.errors import ModelError, listed, shorten
from t2i_core.hashing import file_sha256
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
from t2i_core.models.loaded_files import FileState, file_state, unchanged
from t2i_core.models.names import SAFETENSORS, kind_on_disk, repository_and_path
from t2i_core.models.pipeline_files import list_folder

SUFFIX = SAFETENSORS
NAMES_SHOWN = 8


@dataclass(frozen=True, slots=True)
class Adapter:
    """A LoRA and its weight. `location` is an absolute path, or the hub id that has `file` at `commit`.

    state: of a local file, when it was hashed.
    """

    name: str
    sha256: str
    weight: float
    location: str
    file: str
    commit: str | None = None
    state: FileState | None = field(default=None, compare=False)

    def to_json(self) -> dict[str, Any]:
        """Return the adapter as a dict of JSON types; `from_json` reads it back."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Adapter":
        """Return the adapter that `to_json` wrote."""
        state = values.get("state")
        return cls(**{**values, "state": tuple(state) if state else None})


def resolve_adapter(entry: str, *, cache_dir: str | None = None, commit: str | None = None) -> Adapter:
    """Return the LoRA that `FILE.safetensors`, `owner/name` or `owner/name/FILE.safetensors` names.

    Each form may end in `:weight`. Of a hub LoRA only the hash is asked, at `commit` or else at the commit of its main
    branch now; `fetch_adapter` downloads the file.

    Raises:
        ModelError: for a LoRA that cannot be found or used, in one line with the fix.
        HubUnavailable: where the hub gives no usable answer.
    """
    name, weight = parse_lora(entry)
    path = find_adapter(name)
    if path is not None:
        try:
            state = file_state(path)
            with unchanged([path]):
                return Adapter(name, file_sha256(path), weight, str(path.resolve()), path.name, state=state)
        except OSError as error:
            raise ModelError(f"lora: {name} cannot be read: {error.strerror}; check the file") from error
    repository, file = repository_and_path(name)
    revision = commit or MAIN

    def at_hub(file: str, sha256: str, commit: str) -> Adapter:
        return Adapter(name, sha256, weight, repository, file, commit)

    return online_or_cached(
        repository,
        revision,
        online=lambda: at_hub(*_resolve_online(repository, revision, file, cache_dir)),
        cached=lambda: (found := _resolve_cached(repository, revision, file, cache_dir)) and at_hub(*found),
    )


def find_adapter(name: str) -> Path | None:
    """Return the LoRA file that a name means, or None for a name of the form of a hub id.

    Raises:
        ModelError: for anything else, in one line with the fix.
    """
    path = Path(name)
    kind = kind_on_disk("lora", name)
    if kind == "file":
        if path.suffix != SUFFIX:
            raise ModelError(f"lora: {name} is not a {SUFFIX} file; other formats can run code and are not loaded")
        return path
    if kind == "folder":
        inside = sorted(file.name for file in path.glob(f"*{SUFFIX}"))
        example = path / (inside[0] if inside else f"style{SUFFIX}")
        raise ModelError(f"lora: {name} is a folder; name the file, for example {example}")
    repository, file = repository_and_path(name)
    if not is_repository(repository) or file.startswith(("/", ".")):
        raise ModelError(
            f"lora: {shorten(name)} does not exist; name a {SUFFIX} file, or a hub id owner/name{similar_name(path)}"
        )
    return None


def adapter_fingerprint(entry: str) -> list[int] | None:
    """Return the state of a LoRA file: while it is equal, so is its content. None for one from the hub.

    Raises:
        ModelError: as `find_adapter`.
    """
    path = find_adapter(parse_lora(entry)[0])
    return None if path is None else list(file_state(path))


def fetch_adapter(adapter: Adapter, cache_dir: str | None) -> Path:
    """Return the local file of a LoRA, after a download into the hub cache if it is not in it.

    Raises:
        ModelError: for a local file that no longer exists, and as `resolve_adapter`.
        HubUnavailable: as `resolve_adapter`.
    """
    if adapter.commit is None:
        if not Path(adapter.location).is_file():
            raise ModelError(f"lora: {adapter.location} does not exist any more; put it back, or change --lora")
        return Path(adapter.location)
    return download_files(adapter.location, [adapter.file], adapter.commit, cache_dir) / adapter.file


# (file, its SHA-256, commit)
Found = tuple[str, str, str]


def _resolve_online(repository: str, revision: str, file: str, cache_dir: str | None) -> Found:
    found = describe(repository, revision, cache_dir)
    file = _only_file(repository, file, found.files)
    sha256 = found.files[file].sha256 or file_sha256(download_file(repository, file, found.commit, cache_dir))
    return file, sha256, found.commit


def _resolve_cached(repository: str, revision: str, file: str, cache_dir: str | None) -> Found | None:
    cached = cached_repository(repository, revision, cache_dir)
    if cached is None:
        return None
    listing, folder = cached
    file = _only_file(repository, file, listing.files if listing else list_folder(folder))
    try:
        return file, file_sha256(folder / file), folder.name
    except OSError:
        return None


def _only_file(repository: str, file: str, files: Collection[str]) -> str:
    present = sorted(path for path in files if path.endswith(SUFFIX))
    if file in present:
        return file
    if len(present) == 1 and not file:
        return present[0]
    if not present:
        raise ModelError(f"lora: {repository} has no {SUFFIX} file; other formats can run code and are not loaded")
    names = listed(present, NAMES_SHOWN)
    what = f"has no {file}, but" if file else "has several:"
    raise ModelError(f"lora: {repository} {what} {names}; write {repository}/{present[0]}")
