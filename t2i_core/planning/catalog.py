"""The catalog: the one place that joins the plan of a data set, the image records and the stored files.

Whoever needs to know which images exist, which are missing, or what is known of one, asks the catalog: manifest,
provenance, named images, reports, estimate, and what is still to make.
"""

import heapq
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from t2i_core.dataset.rows import Rejection
from t2i_core.hashing import digest
from t2i_core.planning.file_names import in_format
from t2i_core.planning.plan import ROWS, SPECS, Plan
from t2i_core.spec import ImageSpec
from t2i_core.storage.image_store import Scan
from t2i_core.storage.keys import as_keys, find
from t2i_core.storage.record_index import RecordIndex
from t2i_core.storage.record_order import in_order
from t2i_core.storage.tables import CHUNK_ROWS, Rows, read_chunks, read_rows_at
from t2i_core.storage.workspace import Workspace

# Of a spec: where its image belongs.
_PLACE_COLUMNS = ("row", "condition", "image", "name", "key")
# Of a spec: what a `Picture` says of it.
_PICTURE_COLUMNS = ("prompt", "row", "image", "seed")


class ImageState(StrEnum):
    """What an image of the data set is at the end of a run."""

    GENERATED = "generated"  # in this run
    REUSED = "reused"
    FAILED = "failed"
    PENDING = "pending"  # an interrupted run did not come to it


@dataclass(frozen=True, slots=True)
class CatalogChunk:
    """Some image specs of the plan, in data-set order, as columns; `key` is always among them."""

    specs: pa.RecordBatch
    # For each spec the index of its picture in `RecordIndex.keys`; -1 where there is none.
    index: npt.NDArray[np.int32] | npt.NDArray[np.int64]

    @property
    def present(self) -> npt.NDArray[np.bool_]:
        """Mark the specs that have a picture."""
        return self.index >= 0


@dataclass(frozen=True, slots=True)
class CatalogImage:
    """One image that the data set asks for, and what is known of it."""

    row: int
    condition: int
    image: int
    name: str  # relative to the output, with the suffix of its picture's format
    key: str  # of its spec
    state: ImageState
    picture: str | None  # the key of its picture: that of a replacement, where the image itself failed
    facts: Mapping[str, Any]  # the columns of the picture's record that were asked for
    error: str | None  # why there is no picture
    arguments: Mapping[str, Any]  # a row of the plan: the columns of `SPECS`

    @property
    def spec(self) -> ImageSpec:
        """What was asked for."""
        return ImageSpec.from_row(self.arguments)


@dataclass(frozen=True, slots=True)
class CatalogRow:
    """One row of the data set with its images."""

    row: int
    line: int | None
    json: str | None  # the row as it came; None where it was no JSON object
    has_images: bool  # came with images, and is left alone
    rejection: Rejection | None
    images: tuple[CatalogImage, ...]
    file: str | None = None  # that holds it, where the data set has several


@dataclass(frozen=True, slots=True)
class RowChunk:
    """Some rows of the data set, in order, with all the images that they ask for, as columns."""

    rows: pa.RecordBatch  # the columns of `ROWS`
    images: CatalogChunk
    found: pa.RecordBatch  # for each image the facts of its picture that were asked for; null where there is none

    @property
    def edges(self) -> npt.NDArray[np.int64]:
        """Return where the images of each row begin, and behind them where those of the last row end."""
        of_row = self.images.specs["row"].to_numpy()
        return np.append(np.searchsorted(of_row, self.rows["row"].to_numpy()), len(of_row))

    def only(self, rows: npt.NDArray[np.bool_]) -> "RowChunk":
        """Return the rows that are marked, with their images."""
        mask = pa.array(np.repeat(rows, np.diff(self.edges)))
        images = CatalogChunk(self.images.specs.filter(mask), self.images.index[mask.to_numpy(zero_copy_only=False)])
        return RowChunk(self.rows.filter(pa.array(rows)), images, self.found.filter(mask))


@dataclass(frozen=True, slots=True)
class Picture:
    """An image that can be looked at, and where it belongs."""

    key: str
    prompt: str
    row: int
    image: int  # of those of its prompt
    seed: int  # of the picture: that of a replacement, where the image itself failed


@dataclass(frozen=True, slots=True)
class Unreferenced:
    """Stored images that the data set does not ask for, and the earlier manifests, which may name them."""

    keys: list[str]
    size: int  # bytes
    manifests: list[Path]


def with_key(columns: Sequence[str] | None) -> Sequence[str] | None:
    """Return names of columns of a plan with the key among them; None, which is all of them, as it is."""
    return columns if columns is None or "key" in columns else ["key", *columns]


@dataclass(frozen=True, slots=True)
class Catalog:
    """The plan, what is known of images, and the files; with what a run has done so far.

    Args:
        scan: the stored images that `index` was checked against.
        run: the run whose images count as generated; those of all others count as reused.
        errors: key -> why the image could not be made in this run.
        interrupted: whether an image without picture and error is pending rather than failed.
    """

    workspace: Workspace
    plan: Plan
    index: RecordIndex
    scan: Scan
    run: str = ""
    errors: Mapping[str, str] = field(default_factory=dict)
    interrupted: bool = False

    def chunks(self, columns: Sequence[str] | None = None) -> Iterator[CatalogChunk]:
        """Yield the image specs in data-set order, with the columns asked for; None: all of them."""
        index, start = self.places, 0
        for chunk in self._specs(with_key(columns)):
            yield CatalogChunk(chunk, index[start : start + len(chunk)])
            start += len(chunk)

    @property
    def places(self) -> npt.NDArray[np.int32]:
        """Return, for each image in data-set order, the index of its picture in `RecordIndex.keys`, or -1.

        They are looked up once: of a million keys that takes seconds.
        """
        known, digest = self.index.found, self.plan.digest
        if digest not in known:
            parts = [self.index.find(chunk["key"]).astype(np.int32) for chunk in self._specs(["key"])]
            known[digest] = np.concatenate([np.empty(0, np.int32), *parts])
        return known[digest]

    def rows(self, facts: Sequence[str] = (), columns: Sequence[str] | None = None) -> Iterator[CatalogRow]:
        """Yield every row in order, with its images; `facts` and `columns` as for `row_chunks`."""
        for chunk in self.row_chunks(facts, columns):
            yield from self.rows_of(chunk)

    def row_chunks(self, facts: Sequence[str] = (), columns: Sequence[str] | None = None) -> Iterator[RowChunk]:
        """Yield every row in order, with its images: up to `CHUNK_ROWS` of both at a time, and more images of one row.

        Args:
            facts: names columns of the record table.
            columns: of the plan, beside those that say where an image belongs; None: all of them.
        """
        index = self.places
        of_row = np.concatenate([np.empty(0, np.int64), *(chunk["row"].to_numpy() for chunk in self._specs(["row"]))])
        names = None if columns is None else list(dict.fromkeys([*_PLACE_COLUMNS, *columns]))
        none = pa.RecordBatch.from_pylist([], pa.schema([SPECS.field(name) for name in names or SPECS.names]))
        specs = Rows(chain([none], self._specs(names)))  # a plan of an earlier version may lack columns
        facts = list(dict.fromkeys(["key", "run", "format", *facts]))
        records = Rows(in_order(self.index, index, facts, self.workspace.hidden))
        start = 0
        for rows in self._plan_rows():
            ends = np.searchsorted(of_row, rows["row"].to_numpy(), "right")
            first = 0
            while first < len(rows):
                last = max(first + 1, int(np.searchsorted(ends, start + CHUNK_ROWS, "right")))
                end = int(ends[last - 1])
                images = CatalogChunk(specs.take(end - start), index[start:end])
                yield RowChunk(rows.slice(first, last - first), images, records.take(end - start))
                first, start = last, end

    def rows_of(self, chunk: RowChunk) -> Iterator[CatalogRow]:
        """Yield the rows of a chunk, with their images."""
        images = list(self._images(chunk))
        for row, (start, end) in zip(chunk.rows.to_pylist(), pairwise(chunk.edges.tolist()), strict=True):
            row["rejection"] = Rejection(**json.loads(row["rejection"])) if row["rejection"] else None
            yield CatalogRow(**row, images=tuple(images[start:end]))

    def outcomes(self, chunk: RowChunk) -> tuple[list[ImageState], list[str | None]]:
        """Return what each image of a chunk is, and why it has no picture."""
        made = pc.equal(chunk.found["run"], self.run).to_pylist()
        states = [ImageState.GENERATED if here else ImageState.REUSED for here in made]
        errors: list[str | None] = [None] * len(states)
        missing = ~chunk.images.present
        keys = chunk.images.specs["key"].filter(pa.array(missing)).to_pylist()
        for number, key in zip(np.flatnonzero(missing).tolist(), keys, strict=True):
            error = self.index.errors.get(key) or self.errors.get(key)
            if error is None and not self.interrupted:
                error = "not made, for no recorded reason; run again, and report it if it stays"
            states[number], errors[number] = (ImageState.FAILED if error else ImageState.PENDING), error
        return states, errors

    def failures(self) -> dict[str, str]:
        """Return why images are not there, by key.

        A shard that crashed after it stored its images left a reason for each; those images are there.
        """
        reasons = dict(self.errors) | self.index.errors
        there = self.index.find(pa.array(list(reasons), pa.string())) >= 0
        return {key: why for (key, why), is_there in zip(reasons.items(), there.tolist(), strict=True) if not is_there}

    def pictures(self, only: Collection[str] | None = None) -> Iterator[Picture]:
        """Yield the images that there are, in data-set order; with `only`, those whose key is among them."""
        for chunk in self.chunks(_PICTURE_COLUMNS):
            wanted = chunk.present
            if only is not None:
                wanted = wanted & np.array([key in only for key in chunk.specs["key"].to_pylist()], bool)
            yield from self._pictures(chunk, np.flatnonzero(wanted))

    def spread_pictures(self, count: int) -> Iterator[Picture]:
        """Yield up to `count` of the images that there are, spread evenly over the data set."""
        present = np.flatnonzero(self.places >= 0)
        wanted = np.unique(np.linspace(0, len(present) - 1, min(count, len(present))).astype(int))
        specs = self.plan.specs_files(self.workspace.plans)
        rows = read_rows_at(specs, present[wanted], ["key", *_PICTURE_COLUMNS])
        for spec, index in zip(rows, self.places[present[wanted]].tolist(), strict=True):
            yield self._picture(spec, index)

    def sample(self, count: int) -> frozenset[str]:
        """Return the keys of up to `count` images, spread at random over the data set.

        The choice follows from prompts and seeds alone: it stays the same when other settings change, and nearly the
        same when rows are added or removed.
        """
        chosen = heapq.nsmallest(count, self._sampling_order())
        return frozenset(key for _, key in chosen)

    def unreferenced(self) -> Unreferenced:
        """Return the stored images that the data set does not ask for, and the earlier manifests."""
        manifests = sorted(self.workspace.manifests.glob("*.jsonl"))
        extra = np.ones(len(self.index.keys), bool)
        extra[self.places[self.places >= 0]] = False
        if not extra.any():
            return Unreferenced([], 0, manifests)
        sizes = self.index.facts(["file_size"])["file_size"].to_numpy()
        return Unreferenced([key.decode() for key in self.index.keys[extra]], int(sizes[extra].sum()), manifests)

    def bytes_per_pixel(self) -> float | None:
        """Return the bytes of a file per pixel, over all images that there are; None if there are none."""
        sizes = self.index.facts(["file_size"])["file_size"].to_numpy()
        size = pixels = 0
        for chunk in self.chunks(["height", "width"]):
            height, width = (chunk.specs[name].to_numpy()[chunk.present].astype(int) for name in ("height", "width"))
            size += int(sizes[chunk.index[chunk.present]].sum())
            pixels += int((height * width).sum())
        return size / pixels if pixels else None

    def names(self) -> Iterator[tuple[list[str], list[str], npt.NDArray[np.uint64]]]:
        """Yield the names of the images that there are, their keys, and their inodes: columns of equal length.

        A name is a link to its image if its inode is the one given.
        """
        formats = self.index.facts(["format"])["format"]
        for chunk in self.chunks(["name"]):
            keys = self.index.picture_keys(chunk.specs["key"])
            in_scan = np.where(chunk.present, find(as_keys(keys), self.scan.keys), -1)
            stored = pa.array(in_scan >= 0)
            own = formats.take(pa.array(chunk.index[in_scan >= 0])).to_pylist()
            names = list(map(in_format, chunk.specs["name"].filter(stored).to_pylist(), own))
            yield names, keys.filter(stored).to_pylist(), self.scan.inodes[in_scan[in_scan >= 0]]

    def _specs(self, columns: Sequence[str] | None) -> Iterator[pa.RecordBatch]:
        for path in self.plan.specs_files(self.workspace.plans):
            yield from read_chunks(path, columns)

    def _plan_rows(self) -> Iterator[pa.RecordBatch]:
        for path in self.plan.rows_files(self.workspace.plans):
            yield from read_chunks(path, ROWS.names)

    def made_in_run(self) -> npt.NDArray[np.bool_]:
        """Mark those of `index.keys` that the run made."""
        runs = self.index.facts(["run"])["run"]
        made: npt.NDArray[np.bool_] = pc.equal(runs, self.run).to_numpy()
        return made

    def _sampling_order(self) -> Iterator[tuple[str, str]]:
        """Yield (a hash of prompt and seed, key) of every image."""
        for chunk in self.chunks(["prompt", "seed"]):
            columns = (chunk.specs[name].to_pylist() for name in ("prompt", "seed", "key"))
            for prompt, seed, key in zip(*columns, strict=True):
                yield digest(["preview", prompt, seed]), key

    def _images(self, chunk: RowChunk) -> Iterator[CatalogImage]:
        values = (chunk.images.specs.to_pylist(), chunk.images.present.tolist(), chunk.found.to_pylist())
        for arguments, present, facts, state, error in zip(*values, *self.outcomes(chunk), strict=True):
            yield CatalogImage(
                row=arguments["row"],
                condition=arguments["condition"],
                image=arguments["image"],
                name=in_format(arguments["name"], facts["format"]),
                key=arguments["key"],
                state=state,
                picture=facts["key"],
                facts=facts if present else {},
                error=error,
                arguments=arguments,
            )

    def _pictures(self, chunk: CatalogChunk, rows: npt.NDArray[np.int64]) -> Iterator[Picture]:
        for number in rows.tolist():
            spec = {name: chunk.specs[name][number].as_py() for name in ("key", *_PICTURE_COLUMNS)}
            yield self._picture(spec, int(chunk.index[number]))

    def _picture(self, spec: dict[str, Any], index: int) -> Picture:
        key = spec.pop("key")
        if key in self.index.replacements:
            _, spec["seed"] = self.index.replacements[key]
        return Picture(self.index.keys[index].decode(), **spec)
