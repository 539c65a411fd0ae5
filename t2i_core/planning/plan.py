"""The plan of a data set: every row as it came, and every image it asks for, on disk as Parquet files.

Written once for a data set and its settings by `planner.py`, then read as a stream or by column; prompts never pile up
in memory. A plan has segments, of so many rows each, that can be read before the next one is written; a segment has a
file of rows and one of image specs.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Self

import pyarrow as pa
from pydantic import Field

from t2i_core.spec import ARGUMENTS

ROWS = pa.schema(
    [
        ("row", pa.int64()),
        ("line", pa.int64()),
        ("file", pa.string()),  # that holds the row, where the data set has several
        ("json", pa.string()),  # the row as it came
        ("has_images", pa.bool_()),
        ("rejection", pa.string()),  # JSON of Rejection
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


# Rows of the first segment; each has twice the rows of the one before, up to the last number.
FIRST_SEGMENT, SEGMENT = 4096, 65_536


def segment_rows(number: int) -> int:
    """Return how many rows a segment has, counted from 0; the last one has fewer."""
    return min(SEGMENT, FIRST_SEGMENT << number)


def rows_file(plans: Path, digest: str, segment: int) -> Path:
    """Return where the rows of a segment are, with the columns of `ROWS`."""
    return plans / f"{digest}-{segment:03}.rows.parquet"


def specs_file(plans: Path, digest: str, segment: int) -> Path:
    """Return where the image specs of a segment are, with the columns of `SPECS`, in data-set order."""
    return plans / f"{digest}-{segment:03}.specs.parquet"


def digest_of(path: Path) -> str:
    """Return the digest of the plan that a file belongs to; of releases without segments, too."""
    return path.name.partition(".")[0].partition("-")[0]


@dataclass(frozen=True, slots=True)
class Plan:
    """A reference to a plan on disk, with its totals; small enough for a task result."""

    digest: Annotated[str, Field(pattern=r"^[0-9A-Za-z]+$")]
    rows: int
    usable: int
    skipped: int
    rejected: int
    prompts: int
    images: int
    segments: Annotated[int, Field(ge=0, le=1_000_000)] = 1

    @classmethod
    def from_summary(cls, values: Mapping[str, Any]) -> Self:
        """Return the plan that `to_summary` described."""
        return cls(values["plan"], **{name: values[name] for name in cls.__slots__ if name != "digest"})

    def to_summary(self) -> dict[str, Any]:
        """Return the plan as `run.json` tells it."""
        values = asdict(self)
        return {"plan": values.pop("digest")} | values

    def rows_files(self, plans: Path) -> Iterator[Path]:
        """Yield the files of rows, in data-set order."""
        for number in range(self.segments):
            yield rows_file(plans, self.digest, number)

    def specs_files(self, plans: Path) -> Iterator[Path]:
        """Yield the files of image specs, in data-set order."""
        for number in range(self.segments):
            yield specs_file(plans, self.digest, number)

    def files(self, plans: Path) -> set[Path]:
        """Return all its files."""
        return {*self.rows_files(plans), *self.specs_files(plans)}

    def exists(self, plans: Path) -> bool:
        """Return whether all its files are there."""
        return all(path.is_file() for path in self.files(plans))
