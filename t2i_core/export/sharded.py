"""Formats in shards: the samples of a shard are brought together, and only shards that changed are written."""

import contextlib
import json
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from t2i_core.export.assignment import Shard, write_assignment
from t2i_core.export.job import Job
from t2i_core.export.samples import Sample
from t2i_core.export.target import HIDDEN
from t2i_core.storage.files import flush_to_disk, link_or_copy

# Samples that wait in memory for the rest of their shards, about a kilobyte each.
WAITING = 20_000
ASSIGNMENT = f"{HIDDEN}/shards.parquet"


class ShardFile(Protocol):
    """The files of one shard, while they are written."""

    def write(self, sample: Sample, image: bytes, suffix: str) -> None:
        """Add a sample. `suffix`: of the image's format, with its dot."""

    def close(self) -> None:
        """Finish the files."""


class Sharded:
    """Writes an export in shards, each as soon as its last sample has come."""

    def __init__(self, job: Job, open_shard: Callable[[Path, Job], ShardFile], suffixes: tuple[str, ...]) -> None:
        """`open_shard` begins the files of a shard, from a path without suffix; they have `suffixes`."""
        assert job.assigned is not None
        self._job, self._open_shard, self._suffixes = job, open_shard, suffixes
        self._ready = job.folder / HIDDEN / "ready"
        self._ready.mkdir(parents=True, exist_ok=True)
        self._gathered = _Gathered(job.folder / HIDDEN / "waiting")
        self._missing = [shard for shard in job.assigned.missing() if not self._is_ready(shard)]
        self._shard_of: dict[int, int] = {}
        for number, shard in enumerate(self._missing):
            self._shard_of |= dict.fromkeys(shard.members.tolist(), number)
        self._left = [len(shard.members) for shard in self._missing]

    def wanted(self) -> npt.NDArray[np.bool_]:
        """Mark the samples that have to be written, by position."""
        wanted = np.zeros(len(self._job.survey.index), bool)
        wanted[list(self._shard_of)] = True
        return wanted

    def write(self, sample: Sample) -> None:
        """Take a sample; write its shard if it was the last one of it."""
        number = self._shard_of[sample.position]
        self._gathered.add(number, sample)
        self._left[number] -= 1
        if not self._left[number]:
            self._write_shard(self._missing[number], self._gathered.take(number))

    def close(self) -> None:
        """Give every shard its name, and write which image is in which."""
        job = self._job
        assert job.assigned is not None
        for shard in job.assigned.shards:
            source = job.assigned.there.get(shard.digest, self._ready / shard.digest)
            for suffix in self._suffixes:
                target = job.split_folder(shard.split) / (shard.name + suffix)
                target.unlink(missing_ok=True)
                link_or_copy(source.with_name(source.name + suffix), target)
        write_assignment(job.folder / ASSIGNMENT, job.assigned.shards, job.survey.splits.names, job.survey.ids)
        for folder in (self._ready, self._gathered.folder):
            for path in folder.glob("*"):
                path.unlink()
            with contextlib.suppress(FileNotFoundError):
                folder.rmdir()

    def _is_ready(self, shard: Shard) -> bool:
        """Return whether a killed export wrote this shard: its last file has its name only once it is whole."""
        return (self._ready / (shard.digest + self._suffixes[-1])).exists()

    def _write_shard(self, shard: Shard, samples: list[Sample]) -> None:
        order = {position: place for place, position in enumerate(shard.members.tolist())}
        samples.sort(key=lambda sample: order[sample.position])
        stem = self._ready / f".{shard.digest}.writing"
        images = self._job.images.ahead(self._job.images.read, (sample.key for sample in samples))
        with contextlib.closing(self._open_shard(stem, self._job)) as written:
            for sample, (data, suffix) in zip(samples, images, strict=True):
                written.write(sample, data, suffix)
        for suffix in self._suffixes:
            path = stem.with_name(stem.name + suffix)
            with path.open("rb") as file:
                flush_to_disk(file)
            path.rename(self._ready / (shard.digest + suffix))


class _Gathered:
    """Samples that wait for the rest of their shard: in memory, and above `WAITING` of them on disk."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._waiting: dict[int, list[Sample]] = defaultdict(list)
        self._count = 0

    def add(self, shard: int, sample: Sample) -> None:
        self._waiting[shard].append(sample)
        self._count += 1
        if self._count > WAITING:
            self._spill()

    def take(self, shard: int) -> list[Sample]:
        samples = self._waiting.pop(shard, [])
        self._count -= len(samples)
        path = self.folder / f"{shard}.jsonl"
        if path.exists():
            samples = [*self._spilled(path), *samples]
            path.unlink()
        return samples

    def _spill(self) -> None:
        self.folder.mkdir(exist_ok=True)
        for shard, samples in self._waiting.items():
            with (self.folder / f"{shard}.jsonl").open("a", encoding="utf-8") as file:
                for sample in samples:
                    fields = [getattr(sample, name) for name in Sample.__slots__]
                    file.write(json.dumps(fields) + "\n")
        self._waiting.clear()
        self._count = 0

    @staticmethod
    def _spilled(path: Path) -> Iterator[Sample]:
        with path.open(encoding="utf-8") as file:
            for line in file:
                yield Sample(*json.loads(line))
