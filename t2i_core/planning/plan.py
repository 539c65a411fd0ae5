"""The plan of a data set: every row as it came, and every image it asks for, on disk as two Parquet files.

Written once for a data set and its settings by `planner.py`, then read as a stream or by column; prompts never pile up
in memory.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import pyarrow as pa

from t2i_core.spec import ARGUMENTS
from t2i_core.storage.tables import open_table, read_rows

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

    @classmethod
    def read(cls, plans: Path, digest: str) -> Self:
        """Return the plan `digest` of the folder `plans`, counted from its files.

        Raises:
            FileNotFoundError: if one of them is missing.
        """
        plan = cls(digest, rows=0, usable=0, skipped=0, rejected=0, prompts=0, images=0)
        rows = skipped = rejected = prompts = 0
        for row in read_rows(plan.rows_file(plans), ["has_images", "rejection", "prompts"]):
            rows += 1
            skipped += row["has_images"]
            rejected += row["rejection"] is not None
            prompts += len(json.loads(row["prompts"])) if row["prompts"] else 0
        with open_table(plan.specs_file(plans)) as specs:
            images = specs.metadata.num_rows
        return cls(digest, rows, rows - skipped - rejected, skipped, rejected, prompts, images)

    @staticmethod
    def files(plans: Path, digest: str) -> tuple[Path, Path]:
        """Return where rows and image specs of the plan `digest` are."""
        return plans / f"{digest}.rows.parquet", plans / f"{digest}.specs.parquet"

    def rows_file(self, plans: Path) -> Path:
        """Return where the rows are, with the columns of `ROWS`."""
        return self.files(plans, self.digest)[0]

    def specs_file(self, plans: Path) -> Path:
        """Return where the image specs are, with the columns of `SPECS`, in data-set order."""
        return self.files(plans, self.digest)[1]

    def exists(self, plans: Path) -> bool:
        """Return whether both files are there."""
        return all(file.is_file() for file in self.files(plans, self.digest))
