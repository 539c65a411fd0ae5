"""What is missing -> batches of one shape -> shards."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from t2i_core.plan import SPECS, batches_of, spec_of
from t2i_core.records import Known
from t2i_core.spec import ImageSpec, derive_seed, digest

# The call arguments that all images of a batch share (ImageSpec.call_group, as columns).
CALL_COLUMNS = ["height", "width", "steps", "guidance_scale", "true_cfg_scale", "max_sequence_length"]


@dataclass(frozen=True, slots=True)
class Order:
    """One image to make. `replaces`: the key of the failed image that this one stands in for."""

    spec: ImageSpec
    key: str
    replaces: str | None = None


@dataclass(frozen=True, slots=True)
class Shard:
    """Up to `save_interval` batches: one task. `number` counts from 1 to `total`."""

    number: int
    total: int
    batch_size: int
    batches: tuple[tuple[Order, ...], ...]

    @property
    def orders(self) -> list[Order]:
        """All its images, in order."""
        return [order for batch in self.batches for order in batch]

    @property
    def digest(self) -> str:
        """Names its stored result: what is made and in which batch shape, not its place in the run."""
        return digest([self.batch_size, [[order.key for order in batch] for batch in self.batches]])


@dataclass(frozen=True, slots=True)
class Work:
    """What a run has to make, counted before anything is made."""

    images: int
    batches: int
    shards: int
    batch_size: int
    pixels: int
    effort: int  # pixels times steps, of what fills up a batch, too

    @property
    def padding(self) -> float:
        """The share of the model's work that is thrown away: the empty places of the last batch of each shape."""
        return 1 - self.images / (self.batches * self.batch_size) if self.batches else 0.0


@dataclass(frozen=True, slots=True)
class Selection:
    """Which missing images to make: everything without a picture, and on request what failed before."""

    known: Known
    retry_failed: bool = False
    reseed: bool = False

    def missing(self, specs: pa.RecordBatch) -> pa.RecordBatch:
        """Those of `specs` whose image has to be made."""
        missing = pa.array(self.known.find(specs["key"]) < 0)
        if self.known.errors and not self.retry_failed:
            failed = pa.array(list(self.known.errors), pa.string())
            missing = pc.and_not(missing, pc.is_in(specs["key"], value_set=failed))
        return specs.filter(missing)

    def order(self, spec: ImageSpec, key: str) -> Order:
        """The image to make for `key`: itself, its stand-in made anew, or with `reseed` its next stand-in."""
        if key in self.known.stand_ins:
            seed = self.known.stand_ins[key][1]
        elif self.reseed and key in self.known.errors:
            seed = derive_seed(spec.seed, "reseed", self.known.attempts[key] + 1)
        else:
            return Order(spec, key)
        other = replace(spec, seed=seed)
        return Order(other, other.key, replaces=key)


def count_work(specs_file: Path, selection: Selection, batch_size: int, save_interval: int) -> Work:
    """Images, batches and shards to make, from the key and call columns alone."""
    columns = ["key", "negative_prompt", *CALL_COLUMNS]
    missing = [selection.missing(batch) for batch in batches_of(specs_file, columns)]
    table = pa.Table.from_batches(missing, pa.schema([SPECS.field(name) for name in columns]))
    table = table.set_column(1, "without_negative", pc.is_null(table["negative_prompt"]))
    groups = table.group_by(["without_negative", *CALL_COLUMNS]).aggregate([("key", "count_distinct")]).to_pylist()
    counts = [group["key_count_distinct"] for group in groups]
    sizes = [group["height"] * group["width"] for group in groups]
    batches = [-(-n // batch_size) for n in counts]
    effort = [n * batch_size * size * group["steps"] for n, size, group in zip(batches, sizes, groups, strict=True)]
    return Work(
        images=sum(counts),
        batches=sum(batches),
        shards=-(-sum(batches) // save_interval),
        batch_size=batch_size,
        pixels=sum(n * size for n, size in zip(counts, sizes, strict=True)),
        effort=sum(effort),
    )


def make_shards(
    specs_file: Path, selection: Selection, batch_size: int, save_interval: int, total: int
) -> Iterator[Shard]:
    """The shards of what is missing, in data-set order, streamed: a shard in memory at a time."""
    batches: list[tuple[Order, ...]] = []
    number = 0
    for batch in _batches(_orders(specs_file, selection), batch_size):
        batches.append(batch)
        if len(batches) == save_interval:
            number += 1
            yield Shard(number, total, batch_size, tuple(batches))
            batches = []
    if batches:
        yield Shard(number + 1, total, batch_size, tuple(batches))


def first_missing(specs_file: Path, selection: Selection) -> ImageSpec:
    """The first image that has to be made."""
    return next(_orders(specs_file, selection)).spec


def _orders(specs_file: Path, selection: Selection) -> Iterator[Order]:
    seen: set[bytes] = set()  # keys shared by several rows are made once; 32 bytes each, only of what is missing
    for batch in batches_of(specs_file):
        for row in selection.missing(batch).to_pylist():
            key = bytes.fromhex(row["key"])
            if key not in seen:
                seen.add(key)
                yield selection.order(spec_of(row), row["key"])


def _batches(orders: Iterable[Order], batch_size: int) -> Iterator[tuple[Order, ...]]:
    open_batches: dict[tuple[object, ...], list[Order]] = {}
    for order in orders:
        batch = open_batches.setdefault(order.spec.call_group, [])
        batch.append(order)
        if len(batch) == batch_size:
            yield tuple(batch)
            batch.clear()
    yield from (tuple(batch) for batch in open_batches.values() if batch)
