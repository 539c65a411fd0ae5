"""`failures.jsonl`: a line for each row and each image that failed; where, why, and what to do."""

from collections.abc import Iterator
from typing import Any

from t2i_core.errors import shorten
from t2i_core.planning.catalog import CatalogRow, ImageState


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
