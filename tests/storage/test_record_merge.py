"""A table made in ranges of keys is the one that would be made at once."""

from dataclasses import asdict

import pyarrow as pa
import pytest

from t2i_core.storage import record_merge
from t2i_core.storage.record_merge import merge_in_ranges
from t2i_core.storage.records import RECORD_TABLE
from t2i_core.storage.tables import write_table
from t2i_core.storage.workspace import Workspace
from tests.builders import failed_record, image_record, image_spec, merged, store_image


@pytest.fixture
def workspace(tmp_path):
    return Workspace(tmp_path)


@pytest.fixture
def in_ranges(workspace, monkeypatch, tmp_path):
    """Merge in ranges of so many images; `previous` is first written to a file."""

    def merge(size, records=(), previous=None):
        monkeypatch.setattr(record_merge, "RANGE", size)
        file = None
        if previous is not None:
            file = tmp_path / "previous.parquet"
            with file.open("wb") as target:
                write_table(target, previous)
        scan, images = workspace.images.scan(), workspace.images
        tables = list(merge_in_ranges(file, map(asdict, records), scan, images, tmp_path))
        assert all(table.schema.equals(RECORD_TABLE) for table in tables)
        return tables

    return merge


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_ranges_put_together_are_the_whole(workspace, in_ranges, size, monkeypatch):
    monkeypatch.setattr(record_merge, "CHUNK_ROWS", 4)
    specs = [image_spec(i) for i in range(40)]
    known = [store_image(workspace, spec, run="r1", commit="c0ffee") for spec in specs[:20]]
    lost = image_record(image_spec(100), replaces=specs[30].key, file_size=1, mtime_ns=1)
    previous = merged(workspace, [*known, *(failed_record(spec) for spec in specs[20:32]), lost])
    for spec in specs[:3]:
        workspace.images.delete(spec.key)
    new = [store_image(workspace, spec, run="r2") for spec in specs[20:25]]
    new += [failed_record(specs[33], error="old"), failed_record(specs[33], error="new")]
    for spec in specs[35:]:
        store_image(workspace, spec, run="forgotten")
    tables = in_ranges(size, new, previous)
    assert len(tables) == 1 + len(workspace.images.scan().keys) // size
    assert pa.concat_tables(tables).equals(merged(workspace, new, previous))
    again = pa.concat_tables(in_ranges(size, (), pa.concat_tables(tables)))
    assert again.equals(pa.concat_tables(tables))


@pytest.mark.parametrize("size", [1, 1000])
def test_an_empty_output_has_an_empty_table(in_ranges, size):
    (table,) = in_ranges(size)
    assert len(table) == 0


def test_columns_of_an_earlier_version_may_be_missing(workspace, in_ranges):
    records = [store_image(workspace, image_spec(i)) for i in range(5)]
    previous = merged(workspace, records).drop_columns(["tuning"])
    assert pa.concat_tables(in_ranges(2, (), previous)).equals(merged(workspace, records))
