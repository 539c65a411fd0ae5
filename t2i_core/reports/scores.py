"""What the scores of an output are, in lines for a person."""

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from t2i_core.output.score_columns import is_score
from t2i_core.storage.tables import open_table


def score_lines(provenance: Path) -> list[str]:
    """Return a line for each column of scores in `images.parquet`."""
    with open_table(provenance) as table:
        fields = [field for field in table.schema_arrow if is_score(field.name)]
        return [line for field in fields if (line := _line(table, field))]


def _line(table: pq.ParquetFile, field: pa.Field) -> str:
    column = table.read([field.name])[field.name]
    count = len(column) - column.null_count
    what = f"{field.name}: {count} images"
    if count and (pa.types.is_floating(field.type) or pa.types.is_integer(field.type)):
        ends, median = pc.min_max(column).as_py(), pc.approximate_median(column).as_py()
        return f"scores    {what}, {ends['min']:.4g} to {ends['max']:.4g}, median {median:.4g}"
    if count and pa.types.is_boolean(field.type):
        return f"scores    {what}, {pc.sum(column).as_py()} of them true"
    return ""
