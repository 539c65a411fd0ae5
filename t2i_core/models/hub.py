"""Access to the Hugging Face hub, or to the mirror that HF_ENDPOINT names, and to its cache on disk.

huggingface_hub is imported inside functions, because its import takes half a second. It logs in by itself, from
HF_TOKEN or `hf auth login`; no token passes through this module.
"""

import json
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from t2i_core.errors import HubUnavailable, ModelError
from t2i_core.models.hub_errors import endpoint, explained, host, offline_error

TIMEOUT_SECONDS = 20.0
MAIN = "main"
Found = TypeVar("Found")
COMMIT = re.compile(r"[0-9a-f]{40}")
REPOSITORY = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
CARD_HEAD = re.compile(r"\s*---[ \t]*\r?\n(.*?)\r?\n---[ \t]*\r?(?:\n|$)", re.DOTALL)
SNAPSHOT = re.compile(r"/models--([^/]+?)--([^/]+)/snapshots/[0-9a-f]{40}$")


@dataclass(frozen=True, slots=True)
class HubFile:
    """A file of a repository. `sha256` is the hash of its content where the hub knows it: for files in LFS."""

    size: int
    sha256: str | None


@dataclass(frozen=True, slots=True)
class Repository:
    """A repository at one commit: its files by relative path, and the licence that the model card states."""

    commit: str
    files: dict[str, HubFile]
    licence: str | None


def is_commit(revision: str) -> bool:
    """Return whether a revision is a full commit hash, which always means the same files."""
    return COMMIT.fullmatch(revision) is not None


def is_repository(name: str) -> bool:
    """Return whether a name has the form of a hub id, `owner/name`."""
    return REPOSITORY.fullmatch(name) is not None and ".." not in name


def is_offline() -> bool:
    """Return whether HF_HUB_OFFLINE was set when huggingface_hub was imported."""
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


def online_or_cached(
    name: str, revision: str, online: Callable[[], Found], cached: Callable[[], Found | None]
) -> Found:
    """Return what `online` finds, or what `cached` finds where the hub cannot be asked.

    Raises:
        ModelError: what `online` raised, where the cache may not be used instead or holds nothing.
    """
    unavailable: ModelError = offline_error(name, revision)
    if not is_offline():
        try:
            return online()
        except HubUnavailable as error:
            # While the hub answers with errors, the cache serves for a commit, which cannot have changed, but not for
            # a branch.
            if error.reached and not is_commit(revision):
                raise
            unavailable = error
    found = cached()
    if found is None:
        raise unavailable
    return found


def describe(name: str, revision: str, cache_dir: str | None) -> Repository:
    """Return a repository's commit, file sizes, LFS hashes and licence, as the hub tells them; download nothing.

    The commit of a branch or tag is noted in the cache's `refs/`, so that it can be resolved offline later.

    Raises:
        ModelError: for a missing, private or gated repository, or a missing revision.
        HubUnavailable: where the hub does not answer, or answers with an error of its own.
    """
    from huggingface_hub import HfApi

    with explained(name, revision):
        info = HfApi(endpoint=endpoint()).model_info(
            name, revision=revision, files_metadata=True, timeout=TIMEOUT_SECONDS
        )
    if info.sha is None or not is_commit(info.sha):
        raise HubUnavailable(f"{name}: the answer of {host()} names no commit; check HF_ENDPOINT, or try again later")
    files = {}
    for sibling in info.siblings or ():
        lfs = sibling.lfs
        files[sibling.rfilename] = HubFile(lfs.size, lfs.sha256) if lfs else HubFile(sibling.size or 0, None)
    if not is_commit(revision):
        _note_ref(name, revision, info.sha, cache_dir)
    return Repository(info.sha, files, stated_licence(info.card_data))


def weights_header(name: str, path: str, commit: str) -> Any:
    """Return {tensor: its description} of a safetensors file, read from its first bytes on the hub.

    Raises:
        ModelError: as `describe`.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import SafetensorsParsingError

    with explained(name, commit):
        try:
            found = HfApi(endpoint=endpoint()).parse_safetensors_file_metadata(name, path, revision=commit)
        except SafetensorsParsingError:
            return {}
    return {tensor: {"dtype": info.dtype, "shape": info.shape} for tensor, info in found.tensors.items()}


def card_licence(folder: Path) -> str | None:
    """Return the licence that the model card of a folder states, or None where it states none or there is no card."""
    import yaml

    try:
        head = CARD_HEAD.match((folder / "README.md").read_text(encoding="utf-8-sig"))
        card = yaml.safe_load(head[1]) if head else None
    except (OSError, ValueError, yaml.YAMLError):
        return None
    return stated_licence(card) if isinstance(card, dict) else None


def stated_licence(card: Any) -> str | None:
    """Return the licence that the head of a model card states; `other` comes with a name of its own."""
    licence = card.get("license") if card else None
    if licence == "other":
        licence = card.get("license_name") or licence
    return ", ".join(map(str, licence)) if isinstance(licence, list) else str(licence) if licence else None


def download_file(name: str, path: str, commit: str, cache_dir: str | None) -> Path:
    """Return the local path of one small file of a commit, after a download if the cache lacks it.

    Raises:
        ModelError: as `describe`.
    """
    return download_files(name, [path], commit, cache_dir, quiet=True) / path


def download_files(
    name: str,
    paths: Sequence[str],
    commit: str,
    cache_dir: str | None,
    local_dir: Path | None = None,
    *,
    quiet: bool = False,
) -> Path:
    """Return the folder with these files of a commit, after a download of those that it lacks.

    A download that broke off goes on where it stopped. `quiet` shows no progress bar.

    Raises:
        ModelError: as `describe`.
    """
    from huggingface_hub import snapshot_download

    # The paths are patterns to the library: without the escape a "[" in a name would match something else.
    patterns = [re.sub(r"([*?[])", r"[\1]", path) for path in paths]
    bars = {"tqdm_class": _no_bar()} if quiet else {}
    with explained(name, commit):
        folder = snapshot_download(
            name,
            revision=commit,
            cache_dir=cache_dir,
            local_dir=local_dir,
            allow_patterns=patterns,
            endpoint=endpoint(),
            **bars,
        )
    return Path(folder)


def cached_repository(name: str, revision: str, cache_dir: str | None) -> tuple[Repository | None, Path] | None:
    """Return (the repository as the cache knows it, its snapshot folder), without network; None if it is not cached.

    Files may be missing in the folder. The repository is None where the cache has no list of its files, as in caches
    written by earlier versions of the library.
    """
    storage = _storage(name, cache_dir)
    commit = revision
    if not is_commit(revision):
        try:
            commit = (storage / "refs" / revision).read_text(encoding="utf-8").strip()
        except (OSError, ValueError):
            return None
    folder = storage / "snapshots" / commit
    # Where the cache may not be entered, it holds nothing for this user.
    if not is_commit(commit) or not os.path.isdir(folder):  # noqa: PTH112 - False where Path.is_dir raises
        return None
    try:
        # Written by snapshot_download; the library's own reader leaves the hashes out.
        listing = json.loads((storage / "trees" / f"{commit}.json").read_text(encoding="utf-8"))
        files = {
            str(path): HubFile(int(entry.get("lfs_size") or entry["size"]), entry.get("lfs_sha256"))
            for path, entry in listing["files"].items()
        }
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None, folder
    return Repository(commit, files, None), folder


def repository_of_snapshot(folder: str) -> str | None:
    """Return the hub id of a folder that is a snapshot in a hub cache, `.../models--owner--name/snapshots/COMMIT`."""
    match = SNAPSHOT.search(folder.replace("\\", "/"))
    return f"{match[1]}/{match[2]}" if match else None


def is_copy_of(folder: Path, path: str, commit: str) -> bool:
    """Return whether a file in a `local_dir` is that of this commit and unchanged, by the library's note beside it.

    The size alone does not tell: weights of two commits are equally large.
    """
    try:
        note = (folder / ".cache" / "huggingface" / "download" / f"{path}.metadata").read_text(encoding="utf-8")
        noted_commit, _, noted_time = note.split()
        return noted_commit == commit and (folder / path).stat().st_mtime - 1 <= float(noted_time)
    except (OSError, ValueError):
        return False


def cache_folder(cache_dir: str | None) -> Path:
    """Return the hub cache: `cache_dir`, or the hub's own."""
    from huggingface_hub import constants

    return Path(cache_dir or constants.HF_HUB_CACHE)


def _storage(name: str, cache_dir: str | None) -> Path:
    # The layout is documented: huggingface.co/docs/huggingface_hub/guides/manage-cache
    return cache_folder(cache_dir) / f"models--{name.replace('/', '--')}"


def _note_ref(name: str, revision: str, commit: str, cache_dir: str | None) -> None:
    """Note the commit of a branch or tag in the cache; the library does not, because files are downloaded by commit."""
    ref = _storage(name, cache_dir) / "refs" / revision
    try:
        ref.parent.mkdir(parents=True, exist_ok=True)
        temporary = ref.with_name(f"{ref.name}.{os.getpid()}.tmp")
        temporary.write_text(commit, encoding="utf-8")
        temporary.replace(ref)
    except OSError:
        return  # a read-only cache will do: only an offline run uses the note


def _no_bar() -> Any:
    """Return the library's progress bar class with the bar switched off, for files too small to wait for."""
    from huggingface_hub.utils import tqdm  # type: ignore[attr-defined]

    bar: Any = tqdm

    def switch_off(self: Any, *args: Any, **kwargs: Any) -> None:
        bar.__init__(self, *args, **{**kwargs, "disable": True})

    return type("NoBar", (bar,), {"__init__": switch_off})
