"""Builders of what the rooms below the engine work on: specs, stored images, record tables, plans, catalogs.

Small and quick: no model, no server. A row of a data set is written as the image specs it asks for.
"""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from t2i_core.dataset.rows import Rejection
from t2i_core.generation.interface import Pixels
from t2i_core.output.layout import Layout
from t2i_core.output.own_files import OwnFiles
from t2i_core.output.provenance import PICTURE_FACTS, provenance_writer
from t2i_core.planning.catalog import Catalog
from t2i_core.planning.file_names import image_name
from t2i_core.planning.plan import ROWS, SPECS, Plan
from t2i_core.spec import ImageSpec
from t2i_core.storage.adoption import adopt
from t2i_core.storage.files import atomic_write
from t2i_core.storage.formats import Encoding, encode_image, pixels_digest
from t2i_core.storage.image_store import Scan
from t2i_core.storage.record_index import RecordIndex
from t2i_core.storage.record_table import merge_records, tabled
from t2i_core.storage.records import RECORD_TABLE, ImageRecord, Status, table_row
from t2i_core.storage.tables import write_rows, write_table
from t2i_core.storage.workspace import Workspace

# A row that came with images and is left alone.
SKIPPED = "skipped"
# What a row of a data set may be: one image spec, several, a rejection, or `SKIPPED`.
PlanRow = ImageSpec | Sequence[ImageSpec] | Rejection | str


def image_spec(number=0, **fields):
    """Return a small spec; another `number` is another prompt, seed and key."""
    defaults = {"prompt": f"p{number}", "seed": number, "height": 8, "width": 8, "steps": 4, "dtype": "float32"}
    return ImageSpec(**{"model": "m", **defaults, **fields})


def image_record(spec, **facts):
    """Return the record of an image of `spec`; without `file_size` and `mtime_ns` it knows of no file."""
    defaults = {
        "key": spec.key, "status": Status.MADE, "spec": spec.canonical(), "run": "r1",
        "created": "2026-01-01T00:00:00+00:00", "device": "cpu", "versions": {"torch": "2"}, "model_name": "demo",
    }  # fmt: skip
    return ImageRecord(**defaults | facts)


def failed_record(spec, error="NaN", **facts):
    """Return the record of an image that failed and will fail again."""
    return image_record(spec, status=Status.FAILED, error=error, **facts)


def picture(spec):
    """Return pixels (height, width, 3) of a spec's size that differ from seed to seed."""
    return np.random.default_rng(spec.seed).integers(0, 256, (spec.height, spec.width, 3), np.uint8)


def rounded(floats):
    """Return the `Pixels` of float pixels (height, width, channels) in 0..1, NaN or infinite ones among them."""
    with np.errstate(invalid="ignore"):
        values = (floats * 255).round().astype(np.uint8)
    return Pixels(values, floats.min(axis=(0, 1)), floats.max(axis=(0, 1)))


def store_image(workspace, spec, pixels=None, format="png", **facts):
    """Write an image of `spec` to the image store, as a run does; return its record."""
    pixels = picture(spec) if pixels is None else pixels
    header = image_record(spec, pixels_sha256=pixels_digest(pixels), **facts).header()
    encoded = encode_image(pixels, header, Encoding(format))
    return ImageRecord.from_header(encoded.record, workspace.images.write(spec.key, encoded.data, format))


def flip_a_byte(path: Path) -> None:
    """Change a byte of the pixels of a stored image in place; its size and time stay."""
    status = path.stat()
    content = bytearray(path.read_bytes())
    content[content.rindex(b"IDAT") + 8] ^= 0xFF
    path.chmod(0o644)
    path.write_bytes(content)
    path.chmod(0o444)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def merged(
    workspace: Workspace,
    records: Iterable[ImageRecord] = (),
    previous: pa.Table | None = None,
    scan: Scan | None = None,
) -> pa.Table:
    """Return the record table of `records`, checked against the stored images; files without a record are adopted."""
    new = pa.Table.from_batches(tabled(map(asdict, records)), RECORD_TABLE)
    images = workspace.images
    return merge_records(previous, new, scan or images.scan(), images, lambda keys: adopt(keys, images))


def record_index(folder: Path, table: pa.Table | Iterable[ImageRecord], **options) -> RecordIndex:
    """Write a record table to `folder`, and return its index. Records are taken as they are: no file is looked at."""
    if not isinstance(table, pa.Table):
        rows = sorted((table_row(asdict(record)) for record in table), key=lambda row: row["key"])
        table = pa.Table.from_pylist(rows, RECORD_TABLE)
    file = folder / "records.parquet"
    with atomic_write(file) as target:
        write_table(target, table)
    return RecordIndex(file, **options)


def spoil_column(path: Path, column: str) -> None:
    """Overwrite a column of a Parquet file, so that whoever reads it fails."""
    group = pq.read_metadata(pa.BufferReader(path.read_bytes())).row_group(0)
    (chunk,) = (item for item in map(group.column, range(group.num_columns)) if item.path_in_schema == column)
    start = chunk.dictionary_page_offset or chunk.data_page_offset
    content = bytearray(path.read_bytes())
    content[start : start + chunk.total_compressed_size] = b"\xff" * chunk.total_compressed_size
    path.write_bytes(content)


def write_specs_file(path: Path, specs: Iterable[ImageSpec]) -> Path:
    """Write the specs file of a plan: a row of the data set for each spec."""
    with atomic_write(path) as file:
        write_rows(file, SPECS, [_spec_row(spec, number, 0) for number, spec in enumerate(specs)])
    return path


def write_plan_files(workspace: Workspace, *rows: PlanRow, digest: str = "plan") -> Plan:
    """Write the two files of a plan; the text of row 3 is `{"row": 3}`, its line 4."""
    usable = [_specs_of(row) for row in rows]
    skipped, rejected = sum(row == SKIPPED for row in rows), sum(isinstance(row, Rejection) for row in rows)
    plan = Plan(
        digest,
        rows=len(rows),
        usable=len(rows) - skipped - rejected,
        skipped=skipped,
        rejected=rejected,
        prompts=len(rows) - skipped - rejected,
        images=sum(map(len, usable)),
    )
    (rows_file,), (specs_file,) = plan.rows_files(workspace.plans), plan.specs_files(workspace.plans)
    with atomic_write(rows_file) as file:
        write_rows(file, ROWS, [_row(row, number) for number, row in enumerate(rows)])
    with atomic_write(specs_file) as file:
        specs = [_spec_row(spec, number, image) for number, own in enumerate(usable) for image, spec in enumerate(own)]
        write_rows(file, SPECS, specs)
    return plan


def images_of(catalog, facts=()):
    """Every image of a catalog, in data-set order."""
    return [image for row in catalog.rows(facts) for image in row.images]


def make_catalog(
    workspace: Workspace,
    *rows: PlanRow,
    records: Iterable[ImageRecord] = (),
    run: str = "",
    errors: Mapping[str, str] | None = None,
    interrupted: bool = False,
    only_run: str | None = None,
    scan: Scan | None = None,
) -> Catalog:
    """Return the catalog of a data set. Stored images are found by themselves; `records`: those of failures."""
    plan = write_plan_files(workspace, *rows)
    index = record_index(workspace.records, merged(workspace, records), only_run=only_run)
    scan = scan or workspace.images.scan()
    return Catalog(workspace, plan, index, scan, run, errors or {}, interrupted)


def _specs_of(row: PlanRow) -> list[ImageSpec]:
    if isinstance(row, Rejection | str):
        return []
    return [row] if isinstance(row, ImageSpec) else list(row)


def _row(row: PlanRow, number: int) -> dict:
    return dict.fromkeys(ROWS.names) | {
        "row": number,
        "line": number + 1,
        "json": json.dumps({"row": number}),
        "has_images": row == SKIPPED,
        "rejection": json.dumps(asdict(row)) if isinstance(row, Rejection) else None,
    }


def _spec_row(spec: ImageSpec, row: int, image: int) -> dict:
    position = {"row": row, "condition": 0, "image": image, "name": image_name(f"sample{row}", 0, image)}
    return dict.fromkeys(SPECS.names) | position | {"key": spec.key} | spec.to_row()


def write_provenance(catalog: Catalog, layout: Layout, files: OwnFiles) -> list[pa.RecordBatch]:
    """Write `images.parquet` as `write_manifest` does; return what it says, but for scores."""
    with provenance_writer(catalog, layout, files) as write:
        return [write(chunk) for chunk in catalog.row_chunks(PICTURE_FACTS)]
