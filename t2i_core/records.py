"""What is known of images: their records, compacted into one table by key and checked against the files themselves."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from t2i_core.images import read_image
from t2i_core.keys import KEY, Keys, as_keys, find
from t2i_core.store import Scan, Store

SCHEMA_VERSION = 1
DECODERS = 4
CHUNK = 4096

# How long a prompt is for each text encoder.
PROMPT_LENGTHS = pa.list_(
    pa.struct([("encoder", pa.string()), ("tokens", pa.int32()), ("limit", pa.int32()), ("cut", pa.string())])
)
TABLE = pa.schema(
    [
        ("key", pa.string()),
        ("status", pa.string()),  # made | failed | lost: a stand-in whose file is gone
        ("run", pa.string()),
        ("created", pa.string()),
        ("seed", pa.int64()),
        ("pixels_sha256", pa.string()),
        ("file_size", pa.int64()),
        ("mtime_ns", pa.int64()),
        ("batch_size", pa.int32()),
        ("vae_tiling", pa.bool_()),
        ("prompt_lengths", PROMPT_LENGTHS),
        ("seconds", pa.float64()),
        ("device", pa.string()),
        ("versions", pa.string()),  # JSON
        ("tuning", pa.string()),  # JSON
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
    device: str
    versions: dict[str, str]
    model_name: str
    spec: dict[str, Any]
    batch_size: int | None = None
    seconds: float | None = None
    vae_tiling: bool | None = None  # true where memory forced it
    prompt_lengths: list[dict[str, Any]] | None = None  # TextLength of each text encoder
    tuning: dict[str, Any] | None = None  # offload, compile, prepare, where they were used
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


def compact(previous: pa.Table | None, new: Iterable[dict[str, Any]], scan: Scan, store: Store) -> pa.Table:
    """One table of every image that is known, a row a key, sorted by key; a later record wins over an earlier one.

    A record counts only with its file: same size and modification time as recorded, else the file is decoded and must
    hold the pixels its own header names. Files without a record are adopted in the same way.
    """
    # Columns that are newer than the table of an earlier version are null in it.
    earlier = [] if previous is None else [previous.replace_schema_metadata()]
    table = pa.concat_tables([TABLE.empty_table(), *earlier, *_chunks(new)], promote_options="default")
    table = table.select(TABLE.names)
    last = ~table["key"].to_pandas().duplicated(keep="last")
    table = table.filter(pa.array(last)).combine_chunks()
    place = find(as_keys(table["key"]), scan.keys)
    has_file = place >= 0
    unchanged = has_file & pc.equal(table["status"], "made").to_numpy()
    for name, found in (("file_size", scan.sizes), ("mtime_ns", scan.mtimes_ns)):
        unchanged[has_file] &= table[name].fill_null(-1).to_numpy()[has_file] == found[place[has_file]]
    failed = pc.equal(table["status"], "failed").to_numpy()
    counts = np.where(failed, ~has_file, unchanged)
    suspect = np.ones(len(scan.keys), bool)
    suspect[place[counts & has_file]] = False
    adopted = pa.concat_tables(
        [TABLE.empty_table(), *_chunks(_adopt([key.decode() for key in scan.keys[suspect]], store))]
    )
    # A stand-in without its file is no picture, but still says with which seed the failed image is to be made.
    gone = table.filter(pa.array(~counts & ~failed)).filter(pc.is_valid(pc.field("replaces")))
    gone = gone.filter(pc.invert(pc.is_in(gone["key"], value_set=adopted["key"].combine_chunks())))
    lost = gone.set_column(
        TABLE.get_field_index("status"), TABLE.field("status"), pa.array(["lost"] * len(gone), pa.string())
    )
    return pa.concat_tables([table.filter(pa.array(counts)), adopted, lost]).sort_by("key")


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
    row["tuning"] = json.dumps(record["tuning"], sort_keys=True) if record.get("tuning") else None
    row["versions"] = json.dumps(record.get("versions") or {}, sort_keys=True)
    return row


class Known:
    """What a table of records says: look-ups a column at a time, the other columns left on disk."""

    def __init__(self, file: Path, only_run: str | None = None) -> None:
        """`file`: a table that `compact` made. `only_run`: images of other runs do not count as made (`--refresh`)."""
        self.name = file.name
        self.only_run = only_run
        # Kept open: a later run may remove the file. What repeats from image to image is held once.
        repeated = ["status", "run", "created", "device", "versions", "tuning", "model_name", "commit", "error"]
        self._file = pq.ParquetFile(file, read_dictionary=repeated)
        # Failed image -> (key, seed) of the image with a new seed that stands in for it.
        self.stand_ins: dict[str, tuple[str, int]] = {}
        # How many times a failed image was tried with a new seed, and failed again.
        self.attempts: Counter[str] = Counter()
        errors: dict[str, str] = {}
        keys = np.empty(self._file.metadata.num_rows, KEY)
        counts = np.zeros(len(keys), bool)
        start = 0
        for batch in self._file.iter_batches(CHUNK, columns=["key", "status", "run", "seed", "error", "replaces"]):
            part = slice(start, start + len(batch))
            start += len(batch)
            keys[part] = as_keys(batch["key"])
            made = pc.equal(batch["status"], "made")
            counts[part] = (made if only_run is None else pc.and_(made, pc.equal(batch["run"], only_run))).to_numpy(
                False
            )
            for row in batch.filter(pc.or_(pc.invert(made), pc.is_valid(batch["replaces"]))).to_pylist():
                if row["status"] != "failed":
                    self.stand_ins[row["replaces"]] = (row["key"], row["seed"])
                else:
                    errors[row["key"]] = row["error"]
                    self.attempts[row["replaces"]] += 1
        self.errors: dict[str, str] = {key: error for key, error in errors.items() if key not in self.stand_ins}
        # Of the images that count as made, sorted; everything else about them is in the same order (`records`).
        self.keys: Keys = keys if counts.all() else keys[counts]
        self._rows = np.flatnonzero(counts)

    def find(self, keys: pa.Array) -> npt.NDArray[np.int64]:
        """Places in `self.keys` of the pictures for `keys`; -1 where there is none."""
        return find(as_keys(self.effective(keys)), self.keys)

    def effective(self, keys: pa.Array) -> pa.Array:
        """The keys whose pictures are shown: a failed image's is that of its stand-in with a new seed."""
        if not self.stand_ins:
            return keys
        return pa.array(
            [self.stand_ins[key][0] if key in self.stand_ins else key for key in keys.to_pylist()], pa.string()
        )

    def records(self, columns: list[str]) -> pa.Table:
        """Columns of the table, a row for each of `self.keys`."""
        return self._file.read(columns).take(pa.array(self._rows)).combine_chunks()
