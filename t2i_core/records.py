"""What is known of images: their records, compacted into one table by key and checked against the files themselves."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from t2i_core.images import read_image
from t2i_core.store import Store

SCHEMA_VERSION = 1
DECODERS = 4
CHUNK = 4096

TABLE = pa.schema(
    [
        ("key", pa.string()),
        ("status", pa.string()),  # made | failed
        ("run", pa.string()),
        ("created", pa.string()),
        ("seed", pa.int64()),
        ("pixels_sha256", pa.string()),
        ("file_size", pa.int64()),
        ("mtime_ns", pa.int64()),
        ("batch_size", pa.int32()),
        ("seconds", pa.float64()),
        ("device", pa.string()),
        ("versions", pa.string()),
        ("model_name", pa.string()),
        ("commit", pa.string()),
        ("error", pa.string()),
        ("replaces", pa.string()),
        ("schema", pa.int32()),
    ]
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRecord:
    """What is known of one image that was made, or that failed and will fail again.

    The header of the picture holds the same, but for `file_size`, `mtime_ns` and `error`. `seconds` is its share of the
    batch's time; `replaces` is the key of the failed image that this one, with a new seed, stands in for.
    """

    key: str
    status: str
    run: str
    created: str
    batch_size: int
    seconds: float
    device: str
    versions: dict[str, str]
    model_name: str
    spec: dict[str, Any]
    commit: str | None = None
    pixels_sha256: str | None = None
    file_size: int | None = None
    mtime_ns: int | None = None
    error: str | None = None
    replaces: str | None = None
    schema: int = SCHEMA_VERSION

    def header(self) -> dict[str, Any]:
        """What goes into the picture: everything that is known before its file is written."""
        absent = {"file_size", "mtime_ns", "error", "status"}
        return {k: v for k, v in asdict(self).items() if k not in absent and v is not None}


def compact(previous: pa.Table | None, new: Iterable[dict[str, Any]], scan: pa.Table, store: Store) -> pa.Table:
    """One table of every image that is known, a row a key; a later record wins over an earlier one.

    A record counts only with its file: same size and modification time as recorded, else the file is decoded and must
    hold the pixels its own header names. Files without a record are adopted in the same way.
    """
    table = pa.concat_tables([TABLE.empty_table() if previous is None else previous.select(TABLE.names), *_chunks(new)])
    last = ~table["key"].to_pandas().duplicated(keep="last")
    table = table.filter(pa.array(last)).combine_chunks()
    place = pc.index_in(table["key"], value_set=scan["key"].combine_chunks())
    failed = pc.equal(table["status"], "failed")
    unchanged = pc.and_(
        pc.equal(table["file_size"], scan["size"].take(place)),
        pc.equal(table["mtime_ns"], scan["mtime_ns"].take(place)),
    )
    kept = table.filter(pc.if_else(failed, pc.is_null(place), pc.fill_null(unchanged, False)))
    suspects = scan.filter(pc.invert(pc.is_in(scan["key"], value_set=kept["key"].combine_chunks())))
    adopted = _chunks(_adopt(suspects["key"].to_pylist(), store))
    return pa.concat_tables([kept, *adopted]).sort_by("key")


def _chunks(records: Iterable[dict[str, Any]]) -> Iterator[pa.Table]:
    """Records as tables of a few thousand rows: as Python objects a million of them would be gigabytes."""
    iterator = iter(records)
    while chunk := [_table_row(record) for record in islice(iterator, CHUNK)]:
        yield pa.Table.from_pylist(chunk, schema=TABLE)


def _adopt(keys: list[str], store: Store) -> Iterator[dict[str, Any]]:
    """Records for those of `keys` whose file decodes, is about this key, and holds the pixels its header names."""

    def adopt(key: str) -> dict[str, Any] | None:
        path = store.image_path(key)
        image = read_image(path)
        if image is None or image.record.get("key") != key:
            return None
        status = path.stat()
        return image.record | {"status": "made", "file_size": status.st_size, "mtime_ns": status.st_mtime_ns}

    with ThreadPoolExecutor(DECODERS) as pool:
        for start in range(0, len(keys), CHUNK):
            yield from (record for record in pool.map(adopt, keys[start : start + CHUNK]) if record is not None)


def _table_row(record: dict[str, Any]) -> dict[str, Any]:
    row = {name: record.get(name) for name in TABLE.names}
    row["seed"] = record["spec"]["seed"]
    row["versions"] = json.dumps(record.get("versions") or {}, sort_keys=True)
    return row


def read_records(path: Path) -> pa.Table:
    """A table of records; what repeats from image to image is held once."""
    repeated = ["status", "run", "created", "device", "versions", "model_name", "commit", "error"]
    return pq.read_table(path, read_dictionary=repeated)


def table_digest(table: pa.Table) -> str:
    """SHA-256 of a table's columns of strings and integers; equal for equal content."""
    digest = hashlib.sha256()
    for batch in table.combine_chunks().to_batches(max_chunksize=CHUNK):
        for column in batch.columns:
            if pa.types.is_integer(column.type):
                digest.update(np.ascontiguousarray(column.to_numpy(zero_copy_only=False)).tobytes())
            else:
                digest.update("\n".join(value or "" for value in column.to_pylist()).encode())
    return digest.hexdigest()


class Known:
    """Look-ups in the table of records, a column at a time."""

    def __init__(self, table: pa.Table, only_run: str | None = None) -> None:
        """`only_run`: images of other runs do not count as made (`--refresh`)."""
        is_made = pc.equal(table["status"], "made")
        failed = table.filter(pc.invert(is_made))
        made = (table.filter(is_made) if len(failed) else table).combine_chunks()
        stand_ins = made.filter(pc.is_valid(made["replaces"])).select(["replaces", "key", "seed"]).to_pylist()
        # Failed image -> (key, seed) of the image with a new seed that stands in for it.
        self.stand_ins: dict[str, tuple[str, int]] = {row["replaces"]: (row["key"], row["seed"]) for row in stand_ins}
        self.errors: dict[str, str] = {
            row["key"]: row["error"]
            for row in failed.select(["key", "error"]).to_pylist()
            if row["key"] not in self.stand_ins
        }
        # How many times a failed image was tried with a new seed, and failed again.
        self.attempts = Counter(failed["replaces"].to_pylist())
        self.made = made if only_run is None else made.filter(pc.equal(made["run"], only_run)).combine_chunks()

    def effective(self, keys: pa.Array) -> pa.Array:
        """The keys whose pictures are shown: a failed image's is that of its stand-in with a new seed."""
        if not self.stand_ins:
            return keys
        return pa.array(
            [self.stand_ins[key][0] if key in self.stand_ins else key for key in keys.to_pylist()], pa.string()
        )

    def index(self, keys: pa.Array) -> pa.Array:
        """Row numbers in `made` of the pictures for `keys`; null where there is none."""
        return pc.index_in(self.effective(keys), value_set=self.made["key"].combine_chunks())
