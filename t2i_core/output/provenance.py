"""`images.parquet`: a row for each image, with what was asked for, what is known of the picture, and its scores."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pyarrow as pa
import pyarrow.compute as pc

from t2i_core.output.layout import PROVENANCE, Layout
from t2i_core.output.own_files import OwnFiles
from t2i_core.output.score_columns import ScoreColumns
from t2i_core.planning.catalog import Catalog, RowChunk
from t2i_core.planning.file_names import in_format
from t2i_core.planning.plan import SPECS
from t2i_core.storage.records import PROVENANCE_FACTS, RECORD_TABLE
from t2i_core.storage.tables import parquet_writer

# Of the plan; `name` is in `path`, and the version of the pixels in the key.
_PLAN_COLUMNS = [name for name in SPECS.names if name not in ("name", "pixels_version")]

SCHEMA = pa.schema(
    [
        *(SPECS.field(name) for name in _PLAN_COLUMNS),
        pa.field("path", pa.string()),
        pa.field("status", pa.string()),  # generated, reused, failed or pending
        pa.field("error", pa.string()),
        *(RECORD_TABLE.field(name) for name in PROVENANCE_FACTS),
    ]
)


# Of the records of pictures, what `provenance_of` needs.
PICTURE_FACTS = tuple(dict.fromkeys(["key", "seed", "run", "format", *PROVENANCE_FACTS]))


@contextmanager
def provenance_writer(
    catalog: Catalog, layout: Layout, files: OwnFiles
) -> Iterator[Callable[[RowChunk], pa.RecordBatch]]:
    """Open `images.parquet` for the block. What is yielded writes the images of some rows, and returns them.

    They are returned as they are written, but for scores.
    """
    scores = ScoreColumns(catalog.workspace.scores)
    with files.write(PROVENANCE) as file, parquet_writer(file, scores.schema(SCHEMA)) as writer:

        def write(chunk: RowChunk) -> pa.RecordBatch:
            images = provenance_of(chunk, catalog, layout)
            if len(images):
                writer.write_batch(scores.added_to(images))
            return images

        yield write


def provenance_of(chunk: RowChunk, catalog: Catalog, layout: Layout) -> pa.RecordBatch:
    """Return what `images.parquet` says of the images of some rows, but for scores: the columns of `SCHEMA`.

    `key` and `seed` are those of the picture: of the replacement, for a failed image. `chunk.found` must have
    `PICTURE_FACTS`.
    """
    specs, found = chunk.images.specs, chunk.found
    states, errors = catalog.outcomes(chunk)
    columns = {name: specs[name] for name in _PLAN_COLUMNS}
    columns |= {name: found[name] for name in PROVENANCE_FACTS}
    columns |= {"status": pa.array(states, pa.string()), "error": pa.array(errors, pa.string())}
    columns["path"] = _paths(catalog, layout, specs["name"], found)
    for name in ("key", "seed"):
        columns[name] = pc.coalesce(found[name], specs[name])
    return pa.RecordBatch.from_arrays([columns[field.name].cast(field.type) for field in SCHEMA], schema=SCHEMA)


def _paths(catalog: Catalog, layout: Layout, names: pa.Array, found: pa.RecordBatch) -> pa.Array:
    images = catalog.workspace.images
    places = zip(names.to_pylist(), found["key"].to_pylist(), found["format"].to_pylist(), strict=True)
    paths = [
        None if picture is None else layout.path(in_format(name, form), picture, form, images)
        for name, picture, form in places
    ]
    return pa.array(paths, pa.string())
