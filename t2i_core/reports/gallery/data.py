"""What the gallery's scripts hold: the columns of `images.parquet` that people search, filter and sort, and the others.

`data/` has those columns of every image, 4,096 images a script. `details/` has all that is known of an image, in
scripts of `DETAILS` images, which the page loads when one of them is opened.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from t2i_core.generation.interface import is_unread
from t2i_core.output.remake import remake
from t2i_core.planning.catalog import ImageState
from t2i_core.reports.gallery.folder import GalleryFolder
from t2i_core.reports.gallery.packing import packed, prompt_lengths
from t2i_core.storage.image_store import ImageStore
from t2i_core.storage.keys import KEY, as_keys, find
from t2i_core.storage.suffixes import PNG
from t2i_core.storage.tables import CHUNK_ROWS, open_table, read_chunks
from t2i_core.storage.thumbnail_store import ThumbnailIndex, ThumbnailStore
from t2i_core.storage.thumbnails import BLANK_CONTRAST, LOOKS, LOW_DETAIL

DETAILS = 512  # images in a script
# In the commands that make a picture again: the program, and the name of its output.
PROGRAM, AGAIN = "text2image", "again"
SCORE = "score_"
# What `flags` of an image adds up, in the order of their bits.
FLAGS = ("cut", "duplicate", "alike", "blank", "low_detail", "replaced", "unread")
# The column of `images.parquet` that names the first of the pictures that look nearly the same, once they are scored.
_ALIKE = "duplicate_of"
# Columns that go to the page as they are in the table.
_AS_THEY_ARE = (
    *("row", "condition", "image", "status", "prompt", "seed", "model_name"),
    *("steps", "guidance_scale", "scheduler", "seconds"),
)


@dataclass(slots=True)
class Counts:
    """What is counted while the images go by."""

    images: int = 0
    statuses: dict[str, int] = field(default_factory=dict)
    flags: dict[str, int] = field(default_factory=lambda: dict.fromkeys(FLAGS, 0))
    sizes: dict[str, int] = field(default_factory=dict)
    models: dict[str, int] = field(default_factory=dict)
    errors: dict[str, int] = field(default_factory=dict)
    prompts: int = 0  # different ones
    without_thumbnail: int = 0  # that have a picture


@dataclass(frozen=True, slots=True)
class GalleryData:
    """The names of the scripts, and what was counted."""

    data: list[str]
    details: list[str]
    scores: list[str]  # columns of numbers
    counts: Counts


@dataclass(frozen=True, slots=True)
class Source:
    """What the scripts are made of.

    Attributes:
        table: `images.parquet`.
        prefix: what stands before each path in it.
    """

    table: Path
    prefix: str
    images: ImageStore
    store: ThumbnailStore
    thumbnails: ThumbnailIndex


def write_data(source: Source, folder: GalleryFolder, on_images: Callable[[int], None]) -> GalleryData:
    """Write the scripts of all images; `on_images` is told how many were done, chunk by chunk."""
    counts, prompts = Counts(), _Distinct()
    groups = {"twin": first_of_equal_pixels(source.table), "alike": first_alike(source.table)}
    scores: list[str] = []
    data: list[str] = []
    details: list[str] = []
    for chunk in read_chunks(source.table):
        scores = score_columns(chunk.schema)
        start = counts.images
        own_groups = {name: first[start : start + len(chunk)] for name, first in groups.items()}
        values = _index_columns(chunk, source, own_groups)
        _count(counts, chunk, values)
        prompts.add(chunk["prompt"])
        used = {name: packed(column) for name, column in values.items()}
        used |= {name: packed(_as_number(chunk[name])) for name in scores}
        data.append(folder.write_script("data", "images", start, len(chunk), used))
        for first in range(0, len(chunk), DETAILS):
            part = chunk.slice(first, DETAILS)
            details.append(folder.write_script("details", "details", start + first, _details(part, source)))
        for name in pc.unique(values["thumbnails"]).drop_null().to_pylist():
            folder.link_thumbnails(source.store, name)
        counts.images += len(chunk)
        on_images(len(chunk))
    counts.prompts = prompts.count()
    return GalleryData(data, details, scores, counts)


def looks_shown(scores: Sequence[str]) -> list[str]:
    """Return the names of `LOOKS` that no score has: a score sees the whole picture, a thumbnail a small one."""
    return [name for name in LOOKS if SCORE + name not in scores]


def score_columns(schema: pa.Schema) -> list[str]:
    """Return the names of the score columns that can be sorted by: numbers and yes or no."""

    def sortable(kind: pa.DataType) -> bool:
        return any(test(kind) for test in (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean))

    return [item.name for item in schema if item.name.startswith(SCORE) and sortable(item.type)]


def first_of_equal_pixels(table: Path) -> npt.NDArray[np.int32]:
    """Return, for each image, the position of the first image with the same pixels; -1 where no other has them.

    The position is that of the image in the data set, from 0. 64 bits of the pixels' hash are compared.
    """
    parts = [
        np.array([(value or "")[:16] for value in chunk["pixels_sha256"].to_pylist()], "S16")
        for chunk in read_chunks(table, ["pixels_sha256"])
    ]
    hashes = np.concatenate(parts) if parts else np.empty(0, "S16")
    _, first, inverse, times = np.unique(hashes, return_index=True, return_inverse=True, return_counts=True)
    twins = np.where((times[inverse] > 1) & (hashes != b""), first[inverse], -1)
    return twins.astype(np.int32)


def first_alike(table: Path) -> npt.NDArray[np.int32]:
    """Return, for each image, the position of the first image that looks nearly the same; -1 where none other does.

    All are -1 as long as the output has no scores that tell it.
    """
    with open_table(table) as file:
        result = np.full(file.metadata.num_rows, -1, np.int32)
        if _ALIKE not in file.schema_arrow.names:
            return result
    named = [chunk[_ALIKE].drop_null().unique() for chunk in read_chunks(table, [_ALIKE])]
    firsts = np.unique(np.concatenate([np.empty(0, KEY), *map(as_keys, named)]))
    if not len(firsts):
        return result
    positions = np.full(len(firsts), -1, np.int32)
    start = 0
    for chunk in read_chunks(table, ["key", _ALIKE]):
        own, first = find(as_keys(chunk["key"]), firsts), find(as_keys(chunk[_ALIKE].fill_null("")), firsts)
        new = np.flatnonzero((own >= 0) & (positions[own] < 0))
        positions[own[new][::-1]] = start + new[::-1]  # an image may be in several rows: the first of them counts
        group = np.where(first >= 0, first, own)
        result[start : start + len(chunk)] = np.where(group >= 0, positions[group], -1)
        start += len(chunk)
    return result


def _index_columns(
    chunk: pa.RecordBatch, source: Source, groups: Mapping[str, npt.NDArray[np.int32]]
) -> dict[str, pa.Array]:
    """Return the columns that are searched, filtered and sorted by.

    `groups`: for each image, the position of the first with the same pixels, and of the first that looks like it.
    """
    result = {name: chunk[name] for name in _AS_THEY_ARE}
    result["size"] = pc.binary_join_element_wise(*(chunk[name].cast(pa.string()) for name in ("width", "height")), "×")
    tokens, cut, unread = prompt_lengths(chunk["prompt_lengths"])
    result["tokens"] = pa.array(tokens, mask=tokens < 0)
    result |= {name: pa.array(first, mask=first < 0) for name, first in groups.items()}
    found, looks = _looks_of(chunk, source)
    missing = found < 0
    at = np.maximum(found, 0)
    names = np.array(source.thumbnails.chunks or [""], object)
    slots, chunks = (source.thumbnails.slot, source.thumbnails.chunk) if len(source.thumbnails.slot) else (at, at)
    result["thumbnails"] = pa.array(names[np.where(missing, 0, chunks[np.where(missing, 0, at)])], pa.string(), missing)
    result["slot"] = pa.array(slots[np.where(missing, 0, at)], pa.int32(), missing)
    for name, values in zip(LOOKS, looks.T, strict=True):
        result[name] = pa.array(values.round(4).astype(np.float64), mask=missing)
    contrast, detail = looks[:, LOOKS.index("contrast")], looks[:, LOOKS.index("detail")]
    blank = ~missing & (contrast < BLANK_CONTRAST)
    marks = {
        "cut": cut,
        "duplicate": groups["twin"] >= 0,
        "alike": groups["alike"] >= 0,
        "blank": blank,
        "low_detail": ~missing & ~blank & (detail < LOW_DETAIL),
        "replaced": pc.is_valid(chunk["replaces"]).to_numpy(zero_copy_only=False),
        "unread": np.array([is_unread(float(share)) for share in unread], bool),
    }
    result["flags"] = pa.array(sum(marks[name].astype(np.int32) << bit for bit, name in enumerate(FLAGS)), pa.int32())
    return result


def _looks_of(chunk: pa.RecordBatch, source: Source) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Return the rows of the images in the thumbnail index, -1 where there is none; and how the images look."""
    found = source.thumbnails.find(as_keys(chunk["pixels_sha256"].fill_null("")))
    looks = np.zeros((len(chunk), len(LOOKS)), np.float32)
    looks[found >= 0] = source.thumbnails.looks[found[found >= 0]]
    return found, looks


def _as_number(column: pa.Array) -> pa.Array:
    return column.cast(pa.int8()) if pa.types.is_boolean(column.type) else column


def _details(part: pa.RecordBatch, source: Source) -> dict[str, Any]:
    """Return every column but the prompt, which the page has, where the picture lies, and how it is made again."""
    result = {item.name: packed(part[item.name]) for item in part.schema if item.name != "prompt"}
    result["path"] = packed(_relative(part["path"], source.prefix))
    rows = [row if row["path"] is not None else None for row in part.to_pylist()]
    result["picture"] = [row and source.images.location(row["key"], row["format"] or PNG) for row in rows]
    # Of the two lines of the command the second one is mostly the same for many images.
    commands = [_command(row) if row else (None, None, None) for row in rows]
    for name, values in zip(("command_data", "command_run", "command_lacks"), zip(*commands, strict=True), strict=True):
        result[name] = packed(pa.array(values, pa.string()))
    return result


def _command(row: Mapping[str, Any]) -> tuple[str, str, str | None]:
    """Return the two lines of the command that makes a picture again, and what has to be added to it."""
    again = remake(row, row)
    data, _, run = again.commands(PROGRAM, AGAIN).partition("\n")
    return data, run, "; ".join(again.missing) or None


def _relative(paths: pa.Array, prefix: str) -> pa.Array:
    """Return paths relative to the output."""
    inside = pc.starts_with(paths, prefix).fill_null(False)
    return pc.if_else(inside, pc.utf8_slice_codeunits(paths, len(prefix)), paths)


def _count(counts: Counts, chunk: pa.RecordBatch, values: Mapping[str, pa.Array]) -> None:
    _add(counts.statuses, chunk["status"])
    present = pc.is_valid(chunk["path"])
    _add(counts.sizes, values["size"].filter(present))
    _add(counts.models, chunk["model_name"].drop_null())
    _add(counts.errors, chunk["error"].filter(pc.equal(chunk["status"], ImageState.FAILED.value)).drop_null())
    flags = values["flags"].to_numpy()
    for bit, name in enumerate(FLAGS):
        counts.flags[name] += int((flags >> bit & 1).sum())
    counts.without_thumbnail += int(pc.sum(pc.and_(present, pc.is_null(values["thumbnails"]))).as_py() or 0)


def _add(totals: dict[str, int], column: pa.Array) -> None:
    for item in pc.value_counts(column).to_pylist():
        totals[item["values"]] = totals.get(item["values"], 0) + item["counts"]


class _Distinct:
    """Counts different texts: 8 bytes of memory for each, not the texts."""

    def __init__(self) -> None:
        self._hashes: list[npt.NDArray[np.bytes_]] = []

    def add(self, column: pa.Array) -> None:
        texts = pc.unique(column).drop_null().to_pylist()
        self._hashes.append(np.array([blake2b(text.encode(), digest_size=8).hexdigest() for text in texts], "S16"))

    def count(self) -> int:
        return len(np.unique(np.concatenate(self._hashes))) if self._hashes else 0


assert CHUNK_ROWS % DETAILS == 0, "the page finds an image's script by division"
