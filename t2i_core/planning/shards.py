"""Pending images -> batches that share the call's arguments -> shards; and how much work that is."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from t2i_core.hashing import digest
from t2i_core.planning.pending import ImageRequest, Pending
from t2i_core.spec import SHARED_ARGUMENTS

# A shard is at most so small a part of what a process has still to make: more parts than shards that it has in hand.
SHARE = 4


@dataclass(frozen=True, slots=True)
class Shard:
    """Up to `save_interval` batches: one task. `number` counts from 1 to `total`, where that is known."""

    number: int
    total: int | None
    batch_size: int
    batches: tuple[tuple[ImageRequest, ...], ...]

    @property
    def requests(self) -> list[ImageRequest]:
        """All its images, in order."""
        return [request for batch in self.batches for request in batch]

    @property
    def place(self) -> str:
        """Where it stands in the run: `3/64`, or `3` where their number is not known."""
        return f"{self.number}/{self.total}" if self.total else str(self.number)

    @property
    def digest(self) -> str:
        """The name of its stored result: it tells what is made and in which batches, not the shard's place in a run."""
        return digest([self.batch_size, [[request.key for request in batch] for batch in self.batches]])

    def halves(self) -> list["Shard"]:
        """Return its batches in two shards, those of a single batch as two smaller ones. It has two images or more."""
        if len(self.batches) > 1:
            middle = len(self.batches) // 2
            parts = [self.batches[:middle], self.batches[middle:]]
        else:
            (batch,) = self.batches
            parts = [(batch[: len(batch) // 2],), (batch[len(batch) // 2 :],)]
        return [replace(self, batches=part) for part in parts]


@dataclass(frozen=True, slots=True)
class WorkEstimate:
    """What a run has to make, counted before anything is made."""

    images: int
    batches: int
    shards: int
    batch_size: int
    pixels: int
    pixel_steps: int  # pixels times denoising steps, the padding of batches included

    @property
    def padding(self) -> float:
        """The share of the model's work that fills up the last batch of each shape, and is thrown away."""
        return 1 - self.images / (self.batches * self.batch_size) if self.batches else 0.0


def shard_sizes(batches: int, save_interval: int, workers: int = 1) -> list[int]:
    """Return how many batches each shard has, up to `save_interval`.

    Where several processes work, the last shards are smaller: at the end, none of them waits long for another. Each has
    three shards in hand, which others cannot take: they are no more than its share, even if it is the first that is
    ready, where there are three batches for each process or more.
    """
    sizes = []
    while batches:
        sizes.append(min(save_interval, batches if workers == 1 else max(1, batches // (SHARE * workers))))
        batches -= sizes[-1]
    return sizes


def growing_shard_sizes(batches: Callable[[], int | None], save_interval: int, workers: int) -> Iterator[int]:
    """Yield the same where the number of batches is known only later: `batches` returns None until then."""
    given = 0
    while (total := batches()) is None:
        yield save_interval
        given += save_interval
    yield from shard_sizes(max(0, total - given), save_interval, workers)


def estimate_work(pending: Pending, batch_size: int, save_interval: int, workers: int = 1) -> WorkEstimate:
    """Count images, batches and shards to make, from the key and the columns that a batch shares."""
    # The same columns as ImageSpec.call_group.
    group = ["without_negative", *SHARED_ARGUMENTS]
    counts: Counter[tuple[Any, ...]] = Counter()
    for chunk in pending.distinct_chunks(["key", "negative_prompt", *SHARED_ARGUMENTS]):
        table = pa.table(chunk).set_column(1, "without_negative", pc.is_null(chunk["negative_prompt"]))
        for row in table.group_by(group).aggregate([("key", "count")]).to_pylist():
            counts[tuple(row[name] for name in group)] += row["key_count"]
    groups = [dict(zip(group, values, strict=True)) for values in counts]
    sizes = [group["height"] * group["width"] for group in groups]
    batches = [-(-count // batch_size) for count in counts.values()]
    return WorkEstimate(
        images=counts.total(),
        batches=sum(batches),
        shards=len(shard_sizes(sum(batches), save_interval, workers)),
        batch_size=batch_size,
        pixels=sum(count * size for count, size in zip(counts.values(), sizes, strict=True)),
        pixel_steps=sum(
            number * batch_size * size * group["steps"]
            for number, size, group in zip(batches, sizes, groups, strict=True)
        ),
    )


def make_shards(pending: Pending, batch_size: int, sizes: Iterable[int], total: int | None = None) -> Iterator[Shard]:
    """Yield the shards of what is pending, in data-set order, one in memory at a time.

    Args:
        sizes: of `shard_sizes`; batches beyond their sum come in shards of the last size.
        total: how many shards there will be, if that is known.
    """
    batches: list[tuple[ImageRequest, ...]] = []
    number, more = 0, iter(sizes)
    size = next(more, 1)
    for batch in _batches(pending.requests(), batch_size):
        batches.append(batch)
        if len(batches) == size:
            number += 1
            yield Shard(number, total, batch_size, tuple(batches))
            batches, size = [], next(more, size)
    if batches:
        yield Shard(number + 1, total, batch_size, tuple(batches))


def _batches(requests: Iterable[ImageRequest], batch_size: int) -> Iterator[tuple[ImageRequest, ...]]:
    """Yield full batches as they fill up, and at the end those that are not full."""
    open_batches: dict[tuple[object, ...], list[ImageRequest]] = {}
    for request in requests:
        batch = open_batches.setdefault(request.spec.call_group, [])
        batch.append(request)
        if len(batch) == batch_size:
            yield tuple(batch)
            batch.clear()
    yield from (tuple(batch) for batch in open_batches.values() if batch)
