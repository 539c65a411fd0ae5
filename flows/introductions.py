"""What workers tell of themselves, compared with the flow's machine and with each other: who can take part in a run."""

from collections.abc import Iterable

from tasks.elsewhere import Introduction


def why_not(told: Introduction, first: Introduction | None, here: dict[str, str]) -> str:
    """Return why a worker cannot take part; empty if it can.

    Args:
        first: what the first worker told, whose device and builds of packages all others must have.
        here: versions on the flow's machine, which may have other builds, such as one of torch without CUDA.
    """
    if told.problem:
        return told.problem
    other = [
        f"{name} {told.versions.get(name)} and not {version}"
        for name, version in here.items()
        if _public(told.versions.get(name, "none")) != _public(version)
    ]
    if other:
        return f"has {', '.join(other)}: install the same versions on all machines"
    if first is None:
        return ""
    other = [
        f"{name} {told.versions[name]} and not {version}"
        for name, version in first.versions.items()
        if told.versions[name] != version
    ]
    if other:
        return f"has {', '.join(other)} like the first worker ({first.title}): install the same builds"
    if told.device != first.device:
        return f"has a {told.device}, and the first worker ({first.title}) a {first.device}: they make other pixels"
    return ""


def _public(version: str) -> str:
    """Return a version without the name of its build."""
    return version.partition("+")[0]


def why_silent(error: Exception) -> str:
    """Return in one line why a worker could not answer."""
    cause = error.__cause__ or error
    if isinstance(cause, ModuleNotFoundError | AttributeError):
        return f"this version of text2image is not installed there ({cause})"
    return next(iter(str(cause).splitlines()), type(cause).__name__)


def twin_of(told: Introduction, others: Iterable[Introduction]) -> Introduction | None:
    """Return the worker that uses the same card as this one; None if there is none, or it has no card."""
    return next((other for other in others if told.card_id and told.card_id == other.card_id), None)
