"""The plan of a data set: every row as it came, and every image it asks for, on disk as two Parquet files.

Written once for a data set and its settings by `planner.py`, then read as a stream or by column; prompts never pile up
in memory.
"""

from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from t2i_core.spec import ARGUMENTS

ROWS = pa.schema(
    [
        ("row", pa.int64()),
        ("line", pa.int64()),
        ("file", pa.string()),  # that holds the row, where the data set has several
        ("json", pa.string()),  # the row as it came
        ("stem", pa.string()),  # what its files are named after
        ("has_images", pa.bool_()),
        ("rejection", pa.string()),  # JSON of Rejection
        ("prompts", pa.string()),  # JSON of [[condition, text, source text], ...]
        ("settings", pa.string()),  # JSON of what the row sets: its Sampling, seed, images_per_prompt
    ]
)
SPECS = pa.schema(
    [
        ("row", pa.int64()),
        ("condition", pa.int32()),
        ("image", pa.int32()),
        ("name", pa.string()),
        ("key", pa.string()),
        ("source_prompt", pa.string()),  # the prompt before --prompt-template, where that changed it
        *((name, argument.column) for name, argument in ARGUMENTS.items()),
    ]
)


@dataclass(frozen=True, slots=True)
class Plan:
    """A reference to a plan on disk, with its totals; small enough for a task result."""

    digest: str
    rows: int
    usable: int
    skipped: int
    rejected: int
    prompts: int
    images: int

    def rows_file(self, plans: Path) -> Path:
        """Return where the rows are, with the columns of `ROWS`."""
        return plans / f"{self.digest}.rows.parquet"

    def specs_file(self, plans: Path) -> Path:
        """Return where the image specs are, with the columns of `SPECS`, in data-set order."""
        return plans / f"{self.digest}.specs.parquet"

    def exists(self, plans: Path) -> bool:
        """Return whether both files are there."""
        return self.rows_file(plans).is_file() and self.specs_file(plans).is_file()
