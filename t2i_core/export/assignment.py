"""Which shard an image is in, remembered from export to export.

An image stays in its shard. New images take the places of dropped ones, in shards that are written again anyway; then
those that the last shard has left; then new shards are opened. A shard that lost all its images goes, and the last one
gets its number: it is renamed, not written again. So shards are numbered without gaps.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from t2i_core.export.samples import Ids
from t2i_core.hashing import digest
from t2i_core.storage.files import atomic_write
from t2i_core.storage.keys import find
from t2i_core.storage.tables import read_table, write_table

ASSIGNMENT = pa.schema([("split", pa.string()), ("shard", pa.int32()), ("id", pa.string())])


@dataclass(frozen=True, slots=True)
class Shard:
    """The samples of a shard in its order, by their positions. `digest` says all that its files are made of."""

    split: int
    number: int
    members: npt.NDArray[np.int64]
    digest: str

    @property
    def name(self) -> str:
        """The number as file names have it."""
        return f"{self.number:05d}"


@dataclass(frozen=True, slots=True)
class Assigned:
    """The shards of an export, and those digests whose files an earlier export has, with where they are."""

    shards: list[Shard]
    there: Mapping[str, Path]  # digest -> path without suffix

    def missing(self) -> list[Shard]:
        """Return the shards that have to be written."""
        return [shard for shard in self.shards if shard.digest not in self.there]


def assign(
    ids: Ids,
    split: npt.NDArray[np.int8],
    names: tuple[str, ...],
    digests: npt.NDArray[np.bytes_],
    capacity: int,
    settings: str,
    previous: Mapping[str, list[Ids]],
) -> list[Shard]:
    """Return the shards for samples in data-set order.

    Args:
        names: of the splits.
        digests: for each sample, of everything that is exported of it.
        settings: digest of what all shards depend on.
        previous: split name -> the ids in each shard of the last export.
    """
    shards = []
    for number, name in enumerate(names):
        positions = np.flatnonzero(split == number)
        for place, local in enumerate(_places(ids[positions], previous.get(name, []), capacity)):
            members = positions[local]
            content = digest([settings, *(entry.decode() for entry in digests[members])])
            shards.append(Shard(number, place, members, content))
    return shards


def write_assignment(path: Path, shards: list[Shard], names: tuple[str, ...], ids: Ids) -> None:
    """Write which id is in which shard, in the order of the shards."""
    columns = [
        pa.array([names[shard.split] for shard in shards for _ in shard.members], pa.string()),
        pa.array([shard.number for shard in shards for _ in shard.members], pa.int32()),
        pa.array([entry.decode() for shard in shards for entry in ids[shard.members]], pa.string()),
    ]
    with atomic_write(path) as file:
        write_table(file, pa.Table.from_arrays(columns, schema=ASSIGNMENT))


def read_assignment(path: Path) -> dict[str, list[Ids]]:
    """Return split name -> the ids in each of its shards; empty where there is no such file."""
    try:
        table = read_table(path)
    except FileNotFoundError:
        return {}
    result: dict[str, list[Ids]] = {}
    shard, ids = table["shard"].to_numpy(), np.array(table["id"].to_pylist(), np.bytes_)
    splits = np.array(table["split"].to_pylist())
    for name in dict.fromkeys(splits.tolist()):
        own = splits == name
        result[name] = [ids[own][shard[own] == number] for number in range(int(shard[own].max()) + 1)]
    return result


def _places(ids: Ids, previous: list[Ids], capacity: int) -> Iterator[npt.NDArray[np.int64]]:
    """Yield for each shard, in the order of their numbers, the indexes in `ids` of what it holds."""
    order = np.argsort(ids, kind="stable")
    kept: list[npt.NDArray[np.int64]] = []
    new = np.ones(len(ids), bool)
    for earlier in previous:
        found = find(earlier.astype(ids.dtype), ids[order])
        kept.append(order[found[found >= 0]])
        new[kept[-1]] = False
    coming = np.flatnonzero(new)
    last = len(kept) - 1
    for number, here in enumerate(kept):
        if len(here) < len(previous[number]) or number == last:
            places = max(0, capacity - len(here))
            kept[number], coming = np.concatenate([here, coming[:places]]), coming[places:]
    kept += [coming[start : start + capacity] for start in range(0, len(coming), capacity)]
    while any(len(here) == 0 for here in kept):
        gap = next(number for number, here in enumerate(kept) if len(here) == 0)
        moved = kept.pop()
        if len(moved) and gap < len(kept):
            kept[gap] = moved
    yield from kept
