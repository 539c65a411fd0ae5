"""What speaks HTTP: the Hugging Face hub, or the mirror HF_ENDPOINT names, and its cache on disk.

huggingface_hub is imported inside functions, for its import takes half a second. It logs in by itself, from HF_TOKEN or
`hf auth login`; no token passes through this module. No message repeats a server's text or the address asked, which may
hold credentials.
"""

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from urllib.parse import urlsplit

from t2i_core.errors import HubUnavailable, ModelError

TIMEOUT_SECONDS = 20.0
MAIN = "main"
COMMIT = re.compile(r"[0-9a-f]{40}")
REPOSITORY = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")


@dataclass(frozen=True, slots=True)
class HubFile:
    """A file of a repository. `sha256` is the content's hash where the hub knows it: for files in LFS."""

    size: int
    sha256: str | None


@dataclass(frozen=True, slots=True)
class Repository:
    """A repository at one commit: its files by relative path, and its licence as the model card states it."""

    commit: str
    files: dict[str, HubFile]
    licence: str | None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A repository's files in the hub cache. `paths`: all it has on the hub, or None where the cache does not say."""

    folder: Path
    commit: str
    paths: frozenset[str] | None


def is_commit(revision: str) -> bool:
    """Whether a revision is a full commit hash, which never moves."""
    return COMMIT.fullmatch(revision) is not None


def is_repository(name: str) -> bool:
    """Whether a name has the form of a hub id, `owner/name`."""
    return REPOSITORY.fullmatch(name) is not None and ".." not in name


def is_offline() -> bool:
    """Whether HF_HUB_OFFLINE was set when huggingface_hub was imported."""
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


def describe(name: str, revision: str, cache_dir: str | None) -> Repository:
    """Ask the hub for a repository's commit, file sizes, LFS hashes and licence; nothing is downloaded.

    A branch or tag is noted in the cache's `refs/`, so that it can be resolved offline later.

    Raises:
        ModelError: missing, private or gated repository, or missing revision.
        HubUnavailable: no answer, or an error of the hub's own.
    """
    from huggingface_hub import HfApi

    with explained(name, revision):
        info = HfApi(endpoint=_endpoint()).model_info(
            name, revision=revision, files_metadata=True, timeout=TIMEOUT_SECONDS
        )
    if info.sha is None:
        raise HubUnavailable(f"{name}: the answer of {_host()} names no commit; check HF_ENDPOINT, or try again later")
    files = {
        sibling.rfilename: HubFile(sibling.size or 0, sibling.lfs.sha256 if sibling.lfs else None)
        for sibling in info.siblings or ()
    }
    card = info.card_data or {}
    licence = card.get("license")
    if licence == "other":
        licence = card.get("license_name") or licence
    if not is_commit(revision):
        _note_ref(name, revision, info.sha, cache_dir)
    return Repository(info.sha, files, str(licence) if licence else None)


def download_file(name: str, path: str, commit: str, cache_dir: str | None) -> Path:
    """One file of a commit, from the cache if it is there.

    Raises:
        ModelError: as `describe`.
    """
    from huggingface_hub import hf_hub_download

    with explained(name, commit):
        return Path(hf_hub_download(name, path, revision=commit, cache_dir=cache_dir, endpoint=_endpoint()))


def download_files(name: str, paths: Sequence[str], commit: str, cache_dir: str | None, local_dir: Path | None) -> Path:
    """The folder that holds these files of a commit; what is there already stays, a torn download is taken up again.

    Raises:
        ModelError: as `describe`.
    """
    from huggingface_hub import snapshot_download

    # The paths are patterns to the library: without the escape a "[" in a name would match something else.
    patterns = [re.sub(r"([*?[])", r"[\1]", path) for path in paths]
    with explained(name, commit):
        return Path(
            snapshot_download(
                name,
                revision=commit,
                cache_dir=cache_dir,
                local_dir=local_dir,
                allow_patterns=patterns,
                endpoint=_endpoint(),
            )
        )


def cached_snapshot(name: str, revision: str, cache_dir: str | None) -> Snapshot | None:
    """What the cache holds of a repository, without network; files may be missing in it."""
    storage = _storage(name, cache_dir)
    commit = revision
    if not is_commit(revision):
        try:
            commit = (storage / "refs" / revision).read_text(encoding="utf-8").strip()
        except (OSError, ValueError):
            return None
    folder = storage / "snapshots" / commit
    if not is_commit(commit) or not folder.is_dir():
        return None
    return Snapshot(folder, commit, _cached_tree(name, commit, cache_dir))


def _cached_tree(name: str, commit: str, cache_dir: str | None) -> frozenset[str] | None:
    try:
        from huggingface_hub import get_cached_repo_tree
        from huggingface_hub.errors import CachedRepoTreeNotFoundError
    except ImportError:  # before huggingface_hub 2
        return None
    try:
        return frozenset(file.path for file in get_cached_repo_tree(name, revision=commit, cache_dir=cache_dir))
    except CachedRepoTreeNotFoundError:
        return None


def _storage(name: str, cache_dir: str | None) -> Path:
    from huggingface_hub import constants

    # The layout is documented: huggingface.co/docs/huggingface_hub/guides/manage-cache
    return Path(cache_dir or constants.HF_HUB_CACHE).expanduser() / f"models--{name.replace('/', '--')}"


def _note_ref(name: str, revision: str, commit: str, cache_dir: str | None) -> None:
    """Everything is downloaded by commit, and then the library itself notes no ref."""
    ref = _storage(name, cache_dir) / "refs" / revision
    try:
        ref.parent.mkdir(parents=True, exist_ok=True)
        temporary = ref.with_name(f"{ref.name}.{os.getpid()}.tmp")
        temporary.write_text(commit, encoding="utf-8")
        temporary.replace(ref)
    except OSError:
        return  # a read-only cache serves as well; only an offline run would have used the note


def _endpoint() -> str | None:
    """HF_ENDPOINT as it is now; the library reads it once, when it is imported."""
    return (os.environ.get("HF_ENDPOINT") or "").rstrip("/") or None


def _host() -> str:
    parts = urlsplit(_endpoint() or "https://huggingface.co")
    return f"{parts.hostname}:{parts.port}" if parts.port else str(parts.hostname)


@contextmanager
def explained(name: str, revision: str) -> Iterator[None]:
    """Turn the library's errors into one line that says what to do."""
    try:
        yield
    except Exception as error:
        reason = _explain(error, name, revision)
        if reason is None:
            raise
        # `from None`: the library's own text may show addresses with credentials.
        raise reason from None


def _explain(error: BaseException, name: str, revision: str) -> ModelError | None:
    from huggingface_hub import errors

    # Where a file is not in the cache either, the library wraps what stopped the download.
    if isinstance(error, errors.LocalEntryNotFoundError) and error.__cause__ is not None:
        error = error.__cause__
    if isinstance(error, errors.OfflineModeIsEnabled):
        return offline_error(name, revision)
    if isinstance(error, errors.GatedRepoError):
        return ModelError(
            f"{name}: gated; accept its licence at https://huggingface.co/{name}, "
            "then log in with `hf auth login` or set HF_TOKEN"
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return ModelError(f"{name}: has no revision {revision!r}; check --revision, or leave it out")
    if isinstance(error, errors.RepositoryNotFoundError):
        return _missing(name)
    if isinstance(error, errors.HfHubHTTPError):
        return _explain_status(error.response.status_code, name)
    # The base error of the HTTP library this huggingface_hub is built on: httpx, or httpx2 from version 2.
    if isinstance(error, errors.HfHubHTTPError.__bases__[0]) or isinstance(error, errors.LocalEntryNotFoundError):
        kind = "did not answer in time" if "Timeout" in type(error).__name__ else "cannot be reached"
        return HubUnavailable(
            f"{name}: {_host()} {kind}, and the files are not in the cache; check the network and HF_ENDPOINT, try again",
            reached=False,
        )
    if isinstance(error, errors.HFValidationError):
        return ModelError(f"{name}: not a hub id; write owner/name")
    if isinstance(error, errors.FileMetadataError):
        return ModelError(f"{name}: {_host()} does not answer like a hub; check HF_ENDPOINT and the proxy")
    if isinstance(error, OSError) and error.errno is not None:
        return ModelError(
            f"{name}: cannot write the download: {error.strerror}; free some space, or choose another --cache-dir"
        )
    if isinstance(error, OSError):  # the library's own check of a file's size
        return HubUnavailable(f"{name}: a download from {_host()} broke off; run again, it goes on where it stopped")
    return None


def _explain_status(status: int, name: str) -> ModelError:
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND):
        return _missing(name)
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR or status in (
        HTTPStatus.TOO_MANY_REQUESTS,
        HTTPStatus.REQUEST_TIMEOUT,
    ):
        return HubUnavailable(f"{name}: {_host()} answered {status}; this may pass, try again later")
    return ModelError(f"{name}: {_host()} refused with {status}; check the name and HF_ENDPOINT")


def _missing(name: str) -> ModelError:
    return ModelError(
        f"{name}: no such folder, and no such model on {_host()}, or a private one; check the name, "
        "or log in with `hf auth login` or HF_TOKEN"
    )


def offline_error(name: str, revision: str) -> ModelError:
    """Offline by the user's wish, and not in the cache."""
    at = "" if revision == MAIN else f" at {revision}"
    return ModelError(
        f"{name}: offline (HF_HUB_OFFLINE), and not complete in the cache{at}; "
        "run once with network, check --cache-dir, or name a folder"
    )
