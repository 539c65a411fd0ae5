"""`images.parquet`: a row for each image, with what was asked for, what is known of the picture, and its scores."""

from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from t2i_core.output.layout import PROVENANCE, Layout
from t2i_core.output.own_files import OwnFiles
from t2i_core.output.score_columns import ScoreColumns
from t2i_core.planning.catalog import Catalog
from t2i_core.planning.plan import SPECS
from t2i_core.storage.records import PROVENANCE_FACTS, RECORD_TABLE
from t2i_core.storage.tables import chunks_of, write_chunks

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
    """Write `images.parquet`. `key` and `seed` are those of the picture: of the replacement, for a failed image."""

    def rows() -> Iterator[dict[str, Any]]:
        for image in catalog.images(["seed", *PROVENANCE_FACTS]):
            row = {name: image.arguments[name] for name in _PLAN_COLUMNS} | dict(image.facts)
            yield row | {
                "path": layout.path(image, catalog.workspace.images),
                "status": image.state,
                "error": image.error,
            }

    scores = ScoreColumns(catalog.workspace.scores)
    with files.write(PROVENANCE) as file:
        write_chunks(file, scores.schema(SCHEMA), map(scores.added_to, chunks_of(rows(), SCHEMA)))
