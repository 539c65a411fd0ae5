"""Messages for what can go wrong with the hub and the network: one line that says what to do.

No message repeats a server's text or the whole address that was asked, because an address may hold credentials.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from urllib.parse import urlsplit

from t2i_core.errors import HubUnavailable, ModelError

TRANSIENT = (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS)


def endpoint() -> str | None:
    """Return HF_ENDPOINT as it is now, or None; the library reads it only once, when it is imported."""
    return (os.environ.get("HF_ENDPOINT") or "").rstrip("/") or None


def host() -> str:
    """Return the hub's host and port, for messages."""
    parts = urlsplit(endpoint() or "https://huggingface.co")
    return f"{parts.hostname}:{parts.port}" if parts.port else str(parts.hostname)


@contextmanager
def explained(name: str, revision: str) -> Iterator[None]:
    """Raise the library's errors as a `ModelError` of one line that says what to do."""
    try:
        yield
    except Exception as error:
        reason = _explain(error, name, revision)
        if reason is None:
            raise
        # `from None`, because the library's own text may show addresses with credentials.
        raise reason from None


def _explain(error: BaseException, name: str, revision: str) -> ModelError | None:
    from huggingface_hub import errors

    # Where a file is not in the cache either, the library wraps the error that stopped the download.
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
    if isinstance(error, (errors.HfHubHTTPError.__bases__[0], errors.LocalEntryNotFoundError)):
        kind = "did not answer in time" if "Timeout" in type(error).__name__ else "cannot be reached"
        return HubUnavailable(
            f"{name}: {host()} {kind}, and the cache does not have it; check the network and HF_ENDPOINT, or try again",
            reached=False,
        )
    if isinstance(error, errors.HFValidationError):
        return ModelError(f"{name}: not a hub id; write owner/name")
    # ValueError: the answer is not JSON, such as the login page of a guest network.
    if isinstance(error, (errors.FileMetadataError, ValueError)):
        return ModelError(f"{name}: {host()} does not answer like a hub; check HF_ENDPOINT and the proxy")
    if isinstance(error, OSError) and error.errno is not None:
        return ModelError(
            f"{name}: cannot write the download: {error.strerror}; free some space, or choose another --cache-dir"
        )
    if isinstance(error, OSError):  # the library's own check of a file's size
        return HubUnavailable(f"{name}: a download from {host()} broke off; run again, it goes on where it stopped")
    return None


def _explain_status(status: int, name: str) -> ModelError:
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        return ModelError(
            f"{name}: {host()} refused access ({status}): a private model, or a token that is not valid; "
            "log in with `hf auth login` or set HF_TOKEN"
        )
    if status == HTTPStatus.NOT_FOUND:
        return _missing(name)
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR or status in TRANSIENT:
        return HubUnavailable(f"{name}: {host()} answered {status}, a transient failure; try again later")
    return ModelError(f"{name}: {host()} refused with {status}; check the name and HF_ENDPOINT")


def _missing(name: str) -> ModelError:
    return ModelError(
        f"{name}: no such folder, and no such model on {host()}, or a private one; check the name, "
        "or log in with `hf auth login` or HF_TOKEN"
    )


def offline_error(name: str, revision: str) -> ModelError:
    """Return the error for a model that is not in the cache while HF_HUB_OFFLINE forbids to ask the hub."""
    return ModelError(
        f"{name}: offline (HF_HUB_OFFLINE), and {revision} is not complete in the cache; "
        "run once with network, check --cache-dir, or name a folder"
    )
