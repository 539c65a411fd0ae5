"""Records come in the order that is asked for, however many of them are in memory at a time."""

import numpy as np
import pyarrow as pa
import pytest

from t2i_core.storage import record_index as index_module
from t2i_core.storage import record_order as module
from t2i_core.storage import spill
from t2i_core.storage.record_order import in_order
from t2i_core.storage.records import PROVENANCE_FACTS
from tests.builders import failed_record, image_record, image_spec, record_index

LENGTHS = {"encoder": "CLIP", "tokens": 5, "limit": 77, "cut": None, "unknown": 1, "unread": 0.5}


@pytest.fixture
def index(tmp_path, monkeypatch):
    """The index of images, each of which has facts of its own and some that repeat, between others that failed."""
    monkeypatch.setattr(index_module, "CHUNK_ROWS", 3)
    made = [
        image_record(
            image_spec(i),
            run=f"r{i % 2}",
            created=f"day {i}",
            seconds=i / 8,
            prompt_lengths=[LENGTHS] * (i % 3) or None,
        )
        for i in range(40)
    ]
    return record_index(tmp_path, [*made, *(failed_record(image_spec(100 + i)) for i in range(9))])


@pytest.mark.parametrize("bucket", [1, 4, 1000])
@pytest.mark.parametrize("small", [1, 1 << 20])
def test_each_place_gets_its_record_as_often_as_it_is_asked_for(index, tmp_path, monkeypatch, bucket, small):
    monkeypatch.setattr(module, "BUCKET", bucket)
    monkeypatch.setattr(spill, "SMALL", small)  # bytes that are kept in memory
    places = np.random.default_rng(0).integers(-1, 40, 70)
    columns = ["key", *PROVENANCE_FACTS]
    expected = index.facts(columns).take(pa.array(places, mask=places < 0)).to_pylist()
    before = sorted(tmp_path.iterdir())
    tables = list(in_order(index, places, columns, tmp_path))
    assert [row for table in tables for row in table.to_pylist()] == expected
    assert max(map(len, tables)) == min(bucket, 70)
    assert all(table.column_names == columns for table in tables)
    assert sorted(tmp_path.iterdir()) == before


def test_there_are_no_more_files_than_a_process_may_open(index, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "BUCKET", 1)
    monkeypatch.setattr(module, "SPILLS", 3)
    tables = list(in_order(index, np.arange(40), ["seed"], tmp_path))
    assert [len(table) for table in tables] == [14, 14, 12]
    assert pa.concat_tables(tables).equals(index.facts(["seed"]))


def test_what_repeats_is_kept_once_and_what_does_not_is_kept_as_it_is(index, tmp_path, monkeypatch):
    monkeypatch.setattr(index_module, "CHUNK_ROWS", 10)
    (table,) = in_order(index, np.arange(40), ["run", "created"], tmp_path)
    assert pa.types.is_dictionary(table.schema.field("run").type)
    assert not pa.types.is_dictionary(table.schema.field("created").type)


@pytest.mark.parametrize("places", [[], [-1, -1]])
def test_nothing_is_found_where_nothing_is_asked_for(index, tmp_path, places):
    (table,) = in_order(index, np.array(places, np.int64), ["key", "run"], tmp_path)
    assert table.to_pylist() == [{"key": None, "run": None}] * len(places)


def test_a_table_without_images_has_no_records(tmp_path):
    index = record_index(tmp_path, [])
    (table,) = in_order(index, np.array([-1]), ["key", "file_size"], tmp_path)
    assert table.to_pylist() == [{"key": None, "file_size": None}]


def test_a_folder_that_cannot_be_written_is_left_alone(index, tmp_path, monkeypatch):
    monkeypatch.setattr(spill, "SMALL", 1)
    tables = list(in_order(index, np.arange(40), ["key"], tmp_path / "none"))
    assert sum(map(len, tables)) == 40
    assert not (tmp_path / "none").exists()
