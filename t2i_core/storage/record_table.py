"""The record table: one row for every image that is known, checked against the stored files."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from t2i_core.storage.adoption import DECODERS
from t2i_core.storage.image_store import ImageStore, Scan
from t2i_core.storage.keys import as_keys, find
from t2i_core.storage.records import RECORD_TABLE, Status, record_batches
from t2i_core.storage.tables import CHUNK_ROWS

Mask = npt.NDArray[np.bool_]


def merge_records(
    previous: pa.Table | None, new: pa.Table, scan: Scan, images: ImageStore, adopt: Callable[[list[str]], pa.Table]
) -> pa.Table:
    """Return a table with a row for each known image, sorted by key, without the metadata of `previous`.

    Args:
        previous: the table of an earlier run, sorted by key.
        new: records that the table does not have yet, oldest first; a later record of a key wins.
        scan: the stored images, by key.
        images: where the header of a file is read.
        adopt: returns the records of those files that hold what they say.

    A record of a made image counts only with its file: with the size and time that the record names and, where nobody
    looked at the file since it changed, with the key and the digest of pixels that its header names. A file that has no
    such record is decoded, and adopted if it holds the pixels that its own header names.
    """
    table = _latest_by_key(previous, new)
    in_scan = find(as_keys(table["key"]), scan.keys)
    valid = _valid(table, in_scan, scan)
    valid &= _holds(table, valid, in_scan, scan, images)
    adopted = adopt(_files_without_record(scan, in_scan[valid]))
    lost = _lost_replacements(_marked(table, ~valid), adopted)
    merged = pa.concat_tables([_marked(table, valid), adopted, lost])
    return merged.sort_by("key") if len(new) or len(adopted) or len(lost) else merged


def _latest_by_key(previous: pa.Table | None, new: pa.Table) -> pa.Table:
    earlier = [] if previous is None else [previous.replace_schema_metadata()]
    # Columns that the table of an earlier version lacks are null; those that this version lacks are left out.
    table = pa.concat_tables([RECORD_TABLE.empty_table(), *earlier, new], promote_options="default")
    table = table.select(RECORD_TABLE.names)
    keys = as_keys(table["key"])
    order = np.argsort(keys, kind="stable")
    latest = np.ones(len(keys), bool)
    latest[order[:-1]] = keys[order[:-1]] != keys[order[1:]]
    return _marked(table, latest).combine_chunks()


def _valid(table: pa.Table, in_scan: npt.NDArray[np.int64], scan: Scan) -> Mask:
    """Mark the records that hold: of made images, those whose file is unchanged; of failed ones, those without a file.

    A failed image that has a file was made after all; its file is adopted.
    """
    has_file = in_scan >= 0
    unchanged = _has_status(table, Status.MADE) & has_file
    for name, found in (("file_size", scan.sizes), ("mtime_ns", scan.mtimes_ns)):
        recorded = table[name].fill_null(-1).to_numpy()
        unchanged[has_file] &= recorded[has_file] == found[in_scan[has_file]]
    return np.where(_has_status(table, Status.FAILED), ~has_file, unchanged)


def _holds(table: pa.Table, valid: Mask, in_scan: npt.NDArray[np.int64], scan: Scan, images: ImageStore) -> Mask:
    """Mark the records whose files are known to hold what the record says, or say so in their headers.

    A change time that is the modification time tells nothing: see `checked_files.py`.

    Only files of records that are `valid` so far are looked at.
    """

    def says_so(record: dict[str, Any]) -> bool:
        header = images.header(record["key"]) or {}
        return all(header.get(name) == value for name, value in record.items())

    doubtful = valid & (in_scan >= 0)
    doubtful[doubtful] = scan.unchecked[in_scan[doubtful]]
    # What nobody touched since it was written is what its writer says.
    written, found = table["ctime_ns"].fill_null(-1).to_numpy(), scan.ctimes_ns[in_scan[doubtful]]
    doubtful[doubtful] = (written[doubtful] != found) | (scan.mtimes_ns[in_scan[doubtful]] == found)
    rows, holds = np.flatnonzero(doubtful), np.ones(len(table), bool)
    with ThreadPoolExecutor(DECODERS) as pool:
        for start in range(0, len(rows), CHUNK_ROWS):
            some = rows[start : start + CHUNK_ROWS]
            records = table.select(["key", "pixels_sha256"]).take(pa.array(some)).to_pylist()
            holds[some] = list(pool.map(says_so, records))
    return holds


def _files_without_record(scan: Scan, with_record: npt.NDArray[np.int64]) -> list[str]:
    """Return the keys of stored files whose index in the scan is not among `with_record`."""
    without = np.ones(len(scan.keys), bool)
    without[with_record[with_record >= 0]] = False
    return [key.decode() for key in scan.keys[without]]


def _lost_replacements(invalid: pa.Table, adopted: pa.Table) -> pa.Table:
    """Return the replacements among the records that do not hold, as lost.

    Without its file a replacement is no picture, but its record says with which seed the failed image is made again.
    """
    is_replacement = pc.is_valid(invalid["replaces"])
    candidates = invalid.filter(pc.and_(is_replacement, pc.not_equal(invalid["status"], Status.FAILED.value)))
    lost = candidates.filter(pc.invert(pc.is_in(candidates["key"], value_set=adopted["key"].combine_chunks())))
    status = pa.array([Status.LOST.value] * len(lost), pa.string())
    return lost.set_column(RECORD_TABLE.get_field_index("status"), RECORD_TABLE.field("status"), status)


def _marked(table: pa.Table, rows: Mask) -> pa.Table:
    """Return the rows that are marked: without a copy where those are all."""
    return table if rows.all() else table.filter(pa.array(rows))


def _has_status(table: pa.Table, status: Status) -> Mask:
    mask: Mask = pc.equal(table["status"], status.value).to_numpy()
    return mask


def tabled(records: Iterable[object]) -> Iterator[pa.RecordBatch]:
    """Yield records, as JSON knows them, in chunks with the columns of `RECORD_TABLE`."""
    yield from record_batches(records)
