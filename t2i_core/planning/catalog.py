"""The catalog: the one place that joins the plan of a data set, the image records and the stored files.

Whoever needs to know which images exist, which are missing, or what is known of one, asks the catalog: manifest,
provenance, named images, reports, estimate, and what is still to make.
"""

import heapq
import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from t2i_core.dataset.rows import Rejection
from t2i_core.hashing import digest
from t2i_core.planning.file_names import in_format
from t2i_core.planning.plan import Plan
from t2i_core.spec import ImageSpec
from t2i_core.storage.image_store import Scan
from t2i_core.storage.keys import as_keys, find
from t2i_core.storage.record_index import RecordIndex
from t2i_core.storage.tables import read_chunks, read_rows
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
    index: npt.NDArray[np.int64]

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


def join(specs: Iterable[Path], index: RecordIndex, columns: Sequence[str] | None = None) -> Iterator[CatalogChunk]:
    """Yield the image specs of these files of a plan, with the columns asked for; None: all of them."""
    if columns is not None and "key" not in columns:
        columns = ["key", *columns]
    for path in specs:
        for chunk in read_chunks(path, columns):
            yield CatalogChunk(chunk, index.find(chunk["key"]))


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
        return join(self.plan.specs_files(self.workspace.plans), self.index, columns)

    def images(self, facts: Sequence[str] = (), columns: Sequence[str] | None = None) -> Iterator[CatalogImage]:
        """Yield every image in data-set order.

        Args:
            facts: names columns of the record table.
            columns: of the plan, beside those that say where an image belongs; None: all of them.
        """
        table = self.index.facts(list(dict.fromkeys(["key", "run", "format", *facts])))
        for chunk in self.chunks(None if columns is None else [*_PLACE_COLUMNS, *columns]):
            found = iter(table.take(pa.array(chunk.index[chunk.present])).to_pylist())
            for arguments, present in zip(chunk.specs.to_pylist(), chunk.present.tolist(), strict=True):
                yield self._image(arguments, next(found) if present else None)

    def rows(self, facts: Sequence[str] = (), columns: Sequence[str] | None = None) -> Iterator[CatalogRow]:
        """Yield every row in order, with its images; `facts` and `columns` as for `images`."""
        by_row = groupby(self.images(facts, columns), key=lambda image: image.row)
        number, images = next(by_row, (None, iter(())))
        for row in self._plan_rows(["row", "line", "file", "json", "has_images", "rejection"]):
            own: tuple[CatalogImage, ...] = ()
            if row["row"] == number:
                own = tuple(images)
                number, images = next(by_row, (None, iter(())))
            row["rejection"] = Rejection(**json.loads(row["rejection"])) if row["rejection"] else None
            yield CatalogRow(**row, images=own)

    def outcome(self, key: str, run: str | None) -> tuple[ImageState, str | None]:
        """Return what an image of the data set is, and why it has no picture. `run`: that of its picture, if any."""
        if run is not None:
            return (ImageState.GENERATED if run == self.run else ImageState.REUSED), None
        error = self.index.errors.get(key) or self.errors.get(key)
        if error is None and not self.interrupted:
            error = "not made, for no recorded reason; run again, and report it if it stays"
        return (ImageState.FAILED if error else ImageState.PENDING), error

    def pictures(self, only: Collection[str] | None = None) -> Iterator[Picture]:
        """Yield the images that there are, in data-set order; with `only`, those whose key is among them."""
        for chunk in self.chunks(_PICTURE_COLUMNS):
            wanted = chunk.present
            if only is not None:
                wanted = wanted & np.array([key in only for key in chunk.specs["key"].to_pylist()], bool)
            yield from self._pictures(chunk, np.flatnonzero(wanted))

    def spread_pictures(self, count: int) -> Iterator[Picture]:
        """Yield up to `count` of the images that there are, spread evenly over the data set."""
        total = sum(int(chunk.present.sum()) for chunk in self.chunks([]))
        wanted = np.unique(np.linspace(0, total - 1, min(count, total)).astype(int))
        seen = 0
        for chunk in self.chunks(_PICTURE_COLUMNS):
            present = np.flatnonzero(chunk.present)
            here = wanted[(wanted >= seen) & (wanted < seen + len(present))] - seen
            yield from self._pictures(chunk, present[here])
            seen += len(present)

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
        for chunk in self.chunks([]):
            extra[chunk.index[chunk.present]] = False
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

    def _plan_rows(self, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
        for path in self.plan.rows_files(self.workspace.plans):
            yield from read_rows(path, columns)

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

    def _image(self, arguments: Mapping[str, Any], facts: Mapping[str, Any] | None) -> CatalogImage:
        state, error = self.outcome(arguments["key"], None if facts is None else facts["run"])
        return CatalogImage(
            row=arguments["row"],
            condition=arguments["condition"],
            image=arguments["image"],
            name=in_format(arguments["name"], (facts or {}).get("format")),
            key=arguments["key"],
            state=state,
            picture=None if facts is None else facts["key"],
            facts=facts or {},
            error=error,
            arguments=arguments,
        )

    def _pictures(self, chunk: CatalogChunk, rows: npt.NDArray[np.int64]) -> Iterator[Picture]:
        for number in rows.tolist():
            spec = {name: chunk.specs[name][number].as_py() for name in ("key", *_PICTURE_COLUMNS)}
            key = spec.pop("key")
            if key in self.index.replacements:
                _, spec["seed"] = self.index.replacements[key]
            yield Picture(self.index.keys[chunk.index[number]].decode(), **spec)
