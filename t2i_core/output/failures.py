"""`failures.jsonl`: a line for each row and each image that failed; where, why, and what to do."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from t2i_core.errors import shorten
from t2i_core.planning.catalog import CatalogRow, ImageState


def rows_with_failures(rows: pa.RecordBatch, images: pa.RecordBatch) -> npt.NDArray[np.bool_]:
    """Mark the rows of which `failures_of` has something to say.

    `rows` has columns of `ROWS`; `images`, their images, those of `images.parquet`.
    """
    failed = pc.equal(images["status"], ImageState.FAILED.value)
    with_failed_image = pc.is_in(rows["row"], value_set=images["row"].filter(failed))
    mask: npt.NDArray[np.bool_] = pc.or_(rows["rejection"].is_valid(), with_failed_image).to_numpy(False)
    return mask


def failures_of(row: CatalogRow, dataset: str) -> Iterator[dict[str, Any]]:
    """Yield the failures of a row: its rejection, or those of its images. `dataset`: the file if the row names none."""
    where = {"file": row.file or dataset, "row": row.row, "line": row.line}
    if row.rejection is not None:
        yield where | {
            "field": row.rejection.field,
            "value": row.rejection.value,
            "reason": row.rejection.reason,
        }
    for image in row.images:
        if image.state == ImageState.FAILED:
            yield where | {
                "condition": image.condition,
                "image": image.image,
                "key": image.key,
                "field": "prompt",
                "value": shorten(image.arguments["prompt"]),
                "reason": image.error,
            }
