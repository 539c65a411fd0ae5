"""Shards in the hands of processes: where each was tried, and what became of it."""

from dataclasses import dataclass, field
from typing import Any

from prefect.futures import PrefectFuture

from t2i_core.planning.shards import Shard


@dataclass(eq=False)
class Work:
    """A shard and what became of it so far.

    Attributes:
        tried: on which seats it failed, or its process died.
        failed: on which of them it failed.
        deaths: of processes that had it in hand; of those that had nothing else, once it is alone.
        alone: whether nothing else may be on its process.
    """

    shard: Shard
    tried: set[str] = field(default_factory=set)
    failed: set[str] = field(default_factory=set)
    deaths: int = 0
    alone: bool = False

    def leave_company(self) -> None:
        """Be tried alone from now on."""
        if not self.alone:
            self.alone, self.deaths, self.tried, self.failed = True, 0, set(), set()


@dataclass(eq=False)
class Flight:
    """Work that a process has in hand. `seat` and `title` are those of its place, which may be gone by now."""

    work: Work
    place: str
    seat: str
    title: str
    since: float  # when it was submitted
    future: PrefectFuture[Any]


def reason_of(result: object) -> str:
    """Return in one line why a shard failed."""
    if isinstance(result, dict):
        return f"{len(result['failures'])} images: {next(iter(result['failures'].values()))}"
    return next(iter(str(result).splitlines()), type(result).__name__)
