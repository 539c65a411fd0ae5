"""Image records: what is known of one image that was made, or that failed.

The fields of `ImageRecord` are the one place where a fact about an image is declared. Derived from them: the columns of
the record table, those of `images.parquet`, and what the header of an image carries.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields
from enum import StrEnum
from itertools import islice
from typing import Any, Self, cast

import pyarrow as pa

from t2i_core.storage.image_store import StoredFile
from t2i_core.storage.tables import CHUNK_ROWS


class Status(StrEnum):
    """What became of an image."""

    MADE = "made"
    FAILED = "failed"  # and will fail again
    LOST = "lost"  # a replacement whose file is gone; its record still says which seed it had


# The length of a prompt for each text encoder.
PROMPT_LENGTHS = pa.list_(
    pa.struct(
        [
            ("encoder", pa.string()),
            ("tokens", pa.int32()),
            ("limit", pa.int32()),
            ("cut", pa.string()),
            # Null in the records of earlier versions, which did not count it.
            ("unknown", pa.int32()),
            ("unread", pa.float64()),
        ]
    )
)


@dataclass(frozen=True, slots=True)
class Fact:
    """How a field of a record is kept."""

    column: pa.DataType | None  # of the record table; None: not in it
    as_json: bool = False  # the column holds JSON text
    in_header: bool = True  # the file carries it: it is known before the file is written
    provenance: bool = True  # a column of images.parquet, too


def _fact(
    column: pa.DataType | None, *, as_json: bool = False, in_header: bool = True, provenance: bool = True
) -> dict[str, Fact]:
    return {"fact": Fact(column, as_json, in_header, provenance)}


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRecord:
    """What is known of one image that was made, or that failed and will fail again."""

    key: str = field(metadata=_fact(pa.string(), provenance=False))
    status: Status = field(metadata=_fact(pa.string(), in_header=False, provenance=False))
    spec: dict[str, Any] = field(metadata=_fact(None, provenance=False))  # canonical
    error: str | None = field(default=None, metadata=_fact(pa.string(), in_header=False, provenance=False))
    run: str = field(metadata=_fact(pa.string()))
    created: str = field(metadata=_fact(pa.string()))  # ISO 8601, UTC
    pixels_sha256: str | None = field(default=None, metadata=_fact(pa.string()))
    # Of the pixels that the file decodes to, where its format is lossy and they are others than were generated.
    decoded_sha256: str | None = field(default=None, metadata=_fact(pa.string()))
    file_size: int | None = field(default=None, metadata=_fact(pa.int64(), in_header=False))
    mtime_ns: int | None = field(default=None, metadata=_fact(pa.int64(), in_header=False, provenance=False))
    # Just after the file was written; linking a name changes it.
    ctime_ns: int | None = field(default=None, metadata=_fact(pa.int64(), in_header=False, provenance=False))
    format: str | None = field(default=None, metadata=_fact(pa.string(), in_header=False))  # None: PNG
    batch_size: int | None = field(default=None, metadata=_fact(pa.int32()))
    vae_tiling: bool | None = field(default=None, metadata=_fact(pa.bool_()))  # true where memory forced it
    # A `TextLength` for each text encoder.
    prompt_lengths: list[dict[str, Any]] | None = field(default=None, metadata=_fact(PROMPT_LENGTHS))
    seconds: float | None = field(default=None, metadata=_fact(pa.float64()))  # its share of the batch's time
    device: str = field(metadata=_fact(pa.string()))
    versions: dict[str, str] = field(metadata=_fact(pa.string(), as_json=True))
    # offload, compile and prepare, where they were used
    tuning: dict[str, Any] | None = field(default=None, metadata=_fact(pa.string(), as_json=True))
    model_name: str = field(metadata=_fact(pa.string()))
    # The options that name what was loaded: model, base, LoRAs, ...; none in images of earlier versions.
    options: dict[str, Any] | None = field(default=None, metadata=_fact(pa.string(), as_json=True))
    commit: str | None = field(default=None, metadata=_fact(pa.string()))
    # The key of the image that this one, with a new seed, stands for: it failed, or was to be made again.
    replaces: str | None = field(default=None, metadata=_fact(pa.string()))
    # The number of that seed among those that were tried for it; of several replacements the highest is shown.
    attempt: int | None = field(default=None, metadata=_fact(pa.int32()))

    def header(self) -> dict[str, Any]:
        """Return what the file carries: everything that is known before its file is written."""
        values = {name: getattr(self, name) for name, fact in FACTS.items() if fact.in_header}
        return {name: value for name, value in values.items() if value is not None}

    @classmethod
    def from_header(cls, header: Mapping[str, Any], file: StoredFile) -> Self:
        """Return the record of a stored image. Facts that this version does not know are left out."""
        known = {name: header[name] for name, fact in FACTS.items() if fact.in_header and name in header}
        return cls(**known, **file_facts(file))


FACTS: dict[str, Fact] = {item.name: item.metadata["fact"] for item in fields(ImageRecord)}

# A row an image; `seed` is its spec's, so that a replacement that was lost can be made again.
RECORD_TABLE = pa.schema(
    [*((name, fact.column) for name, fact in FACTS.items() if fact.column is not None), ("seed", pa.int64())]
)
# Columns whose values repeat from image to image; Arrow can hold each value once.
REPEATED = ["status", "run", "created", "device", "versions", "tuning", "model_name", "options", "commit", "error"]
# Of every record.
_ALWAYS = ("key", "status", "run", "created", "device", "model_name")
_STATUSES = frozenset(Status)
_KEY = re.compile(r"[0-9a-f]{64}")
# What a record of another shape raises on its way into the table.
_ODD = (LookupError, TypeError, ValueError, AttributeError, OverflowError, RecursionError, pa.ArrowException)
PROVENANCE_FACTS = [name for name, fact in FACTS.items() if fact.provenance]


def file_facts(file: StoredFile) -> dict[str, Any]:
    """Return what a record says of a made image's file, which its header cannot know."""
    return {
        "status": Status.MADE,
        "file_size": file.size,
        "mtime_ns": file.mtime_ns,
        "ctime_ns": file.ctime_ns,
        "format": file.format,
    }


def record_batches(records: Iterable[object]) -> Iterator[pa.RecordBatch]:
    """Yield records, as JSON knows them, in chunks with the columns of `RECORD_TABLE`.

    What this tool did not write is left out: a header and a stored result are files that anybody may have written.
    """
    rows = filter(None, map(_row_of_ours, records))
    while chunk := list(islice(rows, CHUNK_ROWS)):
        try:
            yield pa.RecordBatch.from_pylist(chunk, RECORD_TABLE)
        except _ODD:
            for row in chunk:
                with suppress(*_ODD):
                    yield pa.RecordBatch.from_pylist([row], RECORD_TABLE)


def _row_of_ours(record: object) -> dict[str, Any] | None:
    try:
        row = table_row(cast(Mapping[str, Any], record))
    except _ODD:
        return None
    texts, seed = [row[name] for name in _ALWAYS], row["seed"]
    known = all(isinstance(text, str) for text in texts) and row["status"] in _STATUSES
    return row if known and isinstance(seed, int) and _KEY.fullmatch(row["key"]) else None


def table_row(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record, as JSON knows it, as a row of the record table. Facts that it lacks are null."""
    row = {name: record.get(name) for name in RECORD_TABLE.names}
    row["seed"] = record["spec"]["seed"]
    for name, fact in FACTS.items():
        if fact.as_json and row[name] is not None:
            row[name] = json.dumps(row[name], sort_keys=True)
    return row
