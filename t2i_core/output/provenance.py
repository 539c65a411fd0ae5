"""`images.parquet`: a row for each image, with what was asked for, what is known of the picture, and its scores."""

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc

from t2i_core.output.layout import PROVENANCE, Layout
from t2i_core.output.own_files import OwnFiles
from t2i_core.output.score_columns import ScoreColumns
from t2i_core.planning.catalog import Catalog
from t2i_core.planning.file_names import in_format
from t2i_core.planning.plan import SPECS
from t2i_core.storage.records import PROVENANCE_FACTS, RECORD_TABLE
from t2i_core.storage.tables import write_chunks

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


def write_provenance(catalog: Catalog, layout: Layout, files: OwnFiles) -> None:
    """Write `images.parquet`. `key` and `seed` are those of the picture: of the replacement, for a failed image.

    Column by column: a million rows would take a minute.
    """
    scores = ScoreColumns(catalog.workspace.scores)
    with files.write(PROVENANCE) as file:
        write_chunks(file, scores.schema(SCHEMA), map(scores.added_to, provenance_chunks(catalog, layout)))


def provenance_chunks(catalog: Catalog, layout: Layout) -> Iterator[pa.RecordBatch]:
    """Yield what `images.parquet` says, but for scores, with the columns of `SCHEMA`, in data-set order."""
    facts = catalog.index.facts(list(dict.fromkeys(["key", "seed", "format", *PROVENANCE_FACTS])))
    for chunk in catalog.chunks():
        # Null where there is no picture.
        found = facts.take(pa.array(chunk.index, mask=~chunk.present))
        columns = {name: chunk.specs[name] for name in _PLAN_COLUMNS}
        columns |= {name: found[name].combine_chunks() for name in PROVENANCE_FACTS}
        columns |= _state_columns(catalog, chunk.specs["key"], found["run"])
        columns["path"] = _paths(catalog, layout, chunk.specs["name"], found)
        for name in ("key", "seed"):
            columns[name] = pc.coalesce(found[name].combine_chunks(), chunk.specs[name])
        arrays = [columns[field.name].cast(field.type) for field in SCHEMA]
        yield pa.RecordBatch.from_arrays(arrays, schema=SCHEMA)


def _state_columns(catalog: Catalog, keys: pa.Array, runs: pa.ChunkedArray) -> dict[str, pa.Array]:
    outcomes = [catalog.outcome(*image) for image in zip(keys.to_pylist(), runs.to_pylist(), strict=True)]
    states, errors = zip(*outcomes, strict=True) if outcomes else ((), ())
    return {"status": pa.array(states, pa.string()), "error": pa.array(errors, pa.string())}


def _paths(catalog: Catalog, layout: Layout, names: pa.Array, found: pa.Table) -> pa.Array:
    images = catalog.workspace.images
    places = zip(names.to_pylist(), found["key"].to_pylist(), found["format"].to_pylist(), strict=True)
    paths = [
        None if picture is None else layout.path_of(in_format(name, form), picture, form, images)
        for name, picture, form in places
    ]
    return pa.array(paths, pa.string())
