"""LoRA files: from `--lora` to a content hash, and to a local file."""

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from t2i_core.config import parse_lora
from t2i_core.content import content_hash
from t2i_core.errors import ModelError, shorten
from t2i_core.hub import (
    MAIN,
    cached_repository,
    describe,
    download_file,
    download_files,
    is_repository,
    online_or_cached,
)
from t2i_core.model_files import list_folder

SUFFIX = ".safetensors"
NAMES_SHOWN = 8


@dataclass(frozen=True, slots=True)
class Adapter:
    """A LoRA and its weight. `location`: an absolute path, or the hub id whose `file` at `commit` it is."""

    name: str
    sha256: str
    weight: float
    location: str
    file: str
    commit: str | None = None

    def to_json(self) -> dict[str, Any]:
        """A plain dict; `from_json` reads it back."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Adapter":
        """What `to_json` wrote."""
        return cls(**values)


def resolve_adapter(entry: str, *, cache_dir: str | None = None, commit: str | None = None) -> Adapter:
    """`FILE.safetensors`, `owner/name` or `owner/name/FILE.safetensors`, each with an optional `:weight`.

    From the hub, at `commit` or else where its main branch is now, only the hash is asked; `fetch_adapter` fetches.

    Raises:
        ModelError: in one line, with the fix.
        HubUnavailable: the hub does not answer, or not now.
    """
    name, weight = parse_lora(entry)
    path = Path(name).expanduser()
    if path.is_file():
        if path.suffix != SUFFIX:
            raise ModelError(f"lora: {name} is not a {SUFFIX} file; other formats can run code and are not loaded")
        return Adapter(name, content_hash(path), weight, str(path.resolve()), path.name)
    if path.is_dir():
        inside = sorted(file.name for file in path.glob(f"*{SUFFIX}"))
        example = path / (inside[0] if inside else f"style{SUFFIX}")
        raise ModelError(f"lora: {name} is a folder; name the file, for example {example}")
    owner, _, rest = name.partition("/")
    repository, _, file = rest.partition("/")
    repository = f"{owner}/{repository}"
    if not is_repository(repository) or file.startswith(("/", ".")) or (not file and name.endswith(SUFFIX)):
        raise ModelError(f"lora: {shorten(name)} does not exist; name a {SUFFIX} file, or a hub id owner/name")
    revision = commit or MAIN

    def at_hub(file: str, sha256: str, commit: str) -> Adapter:
        return Adapter(name, sha256, weight, repository, file, commit)

    return online_or_cached(
        repository,
        revision,
        online=lambda: at_hub(*_resolve_online(repository, revision, file, cache_dir)),
        cached=lambda: (found := _resolve_cached(repository, revision, file, cache_dir)) and at_hub(*found),
    )


def fetch_adapter(adapter: Adapter, cache_dir: str | None) -> Path:
    """The local file, downloaded into the hub cache if it is not there.

    Raises:
        ModelError: a file that is gone, or as `resolve_adapter`.
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
    sha256 = found.files[file].sha256 or content_hash(download_file(repository, file, found.commit, cache_dir))
    return file, sha256, found.commit


def _resolve_cached(repository: str, revision: str, file: str, cache_dir: str | None) -> Found | None:
    cached = cached_repository(repository, revision, cache_dir)
    if cached is None:
        return None
    listing, folder = cached
    file = _only_file(repository, file, listing.files if listing else list_folder(folder))
    try:
        return file, content_hash(folder / file), folder.name
    except OSError:
        return None


def _only_file(repository: str, file: str, files: Collection[str]) -> str:
    there = sorted(path for path in files if path.endswith(SUFFIX))
    if file in there:
        return file
    if len(there) == 1 and not file:
        return there[0]
    if not there:
        raise ModelError(f"lora: {repository} has no {SUFFIX} file; other formats can run code and are not loaded")
    more = f" and {len(there) - NAMES_SHOWN} more" if len(there) > NAMES_SHOWN else ""
    names = ", ".join(there[:NAMES_SHOWN]) + more
    what = f"has no {file}, but" if file else "has several:"
    raise ModelError(f"lora: {repository} {what} {names}; write {repository}/{there[0]}")
