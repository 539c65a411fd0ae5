"""Rows as Parquet files that `datasets` reads with the types they were written with."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from t2i_core.export.columns import Columns
from t2i_core.export.job import Job
from t2i_core.export.kinds import datasets_feature
from t2i_core.export.samples import Sample
from t2i_core.export.sharded import Sharded

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
ROWS, IMAGE_ROWS = 4096, 100  # in a row group


class TableWriter:
    """Writes the columns of an export to a Parquet file; with `first`, further columns before them.

    `features` are those columns as `datasets` knows them.
    """

    def __init__(
        self,
        path: Path,
        columns: Columns,
        first: tuple[pa.Field, ...] = (),
        features: Mapping[str, Any] | None = None,
        group: int = ROWS,
    ) -> None:
        known = {**(features or {}), **{name: datasets_feature(kind) for name, kind in columns.exported().items()}}
        metadata = {"huggingface": json.dumps({"info": {"features": known}})}
        self._schema = pa.schema([*first, *columns.schema()], metadata)
        self._file = path.open("wb")
        self._writer = pq.ParquetWriter(self._file, self._schema, compression="zstd")
        self._rows: list[Mapping[str, Any]] = []
        self._group = group

    def write(self, row: Mapping[str, Any]) -> None:
        """Write a row."""
        self._rows.append(row)
        if len(self._rows) == self._group:
            self._flush()

    def close(self) -> None:
        """Finish the file, once."""
        if not self._file.closed:
            self._flush()
            self._writer.close()
            self._file.close()

    def _flush(self) -> None:
        if self._rows:
            self._writer.write_batch(pa.RecordBatch.from_pylist(self._rows, self._schema))
            self._rows.clear()


class ImageTable:
    """A Parquet file with the bytes of each image in the column `image`."""

    def __init__(self, stem: Path, job: Job) -> None:
        path = stem.with_name(stem.name + ".parquet")
        features = {"image": {"_type": "Image"}}
        self._table = TableWriter(path, job.survey.columns, (pa.field("image", IMAGE),), features, IMAGE_ROWS)

    def write(self, sample: Sample, image: bytes, suffix: str) -> None:
        """Add a sample."""
        self._table.write({"image": {"bytes": image, "path": sample.id + suffix}, **sample.values})

    def close(self) -> None:
        """Finish the file."""
        self._table.close()


class ParquetImages(Sharded):
    """Writes Parquet files with the images in them."""

    def __init__(self, job: Job) -> None:
        super().__init__(job, ImageTable, (".parquet",))
