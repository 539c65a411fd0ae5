"""The fields of a record are its columns, its header and its provenance: a new field cannot be forgotten anywhere."""

import json
from dataclasses import MISSING, asdict, fields

import pyarrow as pa
import pytest

from t2i_core.storage.image_store import StoredFile
from t2i_core.storage.records import (
    FACTS,
    PROMPT_LENGTHS,
    PROVENANCE_FACTS,
    RECORD_TABLE,
    Fact,
    ImageRecord,
    Status,
    table_row,
)
from tests.builders import failed_record, image_record, image_spec

FILE = StoredFile(size=123, mtime_ns=456, inode=7)
# The columns that tables on users' disks have; a new one may come, none of these may go or change.
COLUMNS = {
    "key": pa.string(),
    "status": pa.string(),
    "run": pa.string(),
    "created": pa.string(),
    "seed": pa.int64(),
    "pixels_sha256": pa.string(),
    "file_size": pa.int64(),
    "mtime_ns": pa.int64(),
    "batch_size": pa.int32(),
    "vae_tiling": pa.bool_(),
    "prompt_lengths": PROMPT_LENGTHS,
    "seconds": pa.float64(),
    "device": pa.string(),
    "versions": pa.string(),
    "tuning": pa.string(),
    "model_name": pa.string(),
    "commit": pa.string(),
    "error": pa.string(),
    "replaces": pa.string(),
}


def sample(fact):
    """A value that a field of this kind may have, other than its default."""
    if fact.as_json:
        return {"a": "1"}
    if fact.column == PROMPT_LENGTHS:
        return [{"encoder": "CLIP", "tokens": 90, "limit": 77, "cut": "the rest", "unknown": 1, "unread": 0.5}]
    kinds = [
        (pa.types.is_string, "x"),
        (pa.types.is_integer, 7),
        (pa.types.is_floating, 0.5),
        (pa.types.is_boolean, True),
    ]
    return next(value for is_kind, value in kinds if is_kind(fact.column))


@pytest.fixture
def full():
    """A record with a value in every field."""
    own = {"spec": image_spec(3).canonical(), "status": Status.MADE}
    return ImageRecord(**{name: sample(fact) for name, fact in FACTS.items() if name not in own}, **own)


def test_every_field_says_how_it_is_kept():
    assert list(FACTS) == [item.name for item in fields(ImageRecord)]
    assert all(isinstance(fact, Fact) for fact in FACTS.values())


def test_every_field_is_a_column_but_the_spec_which_the_plan_has():
    assert set(RECORD_TABLE.names) == {item.name for item in fields(ImageRecord)} - {"spec"} | {"seed"}


def test_columns_on_users_disks_keep_name_and_type():
    assert {name: RECORD_TABLE.field(name).type for name in COLUMNS} == COLUMNS


def test_a_full_record_survives_its_row(full):
    table = pa.Table.from_pylist([table_row(asdict(full))], RECORD_TABLE)
    (row,) = table.to_pylist()
    for name, fact in FACTS.items():
        if fact.column is not None:
            value = json.loads(row[name]) if fact.as_json else row[name]
            assert value == getattr(full, name), name
    assert row["seed"] == 3


def test_a_full_record_survives_its_header(full):
    header = json.loads(json.dumps(full.header()))
    again = ImageRecord.from_header(header, FILE)
    for name, fact in FACTS.items():
        if fact.in_header:
            assert getattr(again, name) == getattr(full, name), name
    assert (again.status, again.file_size, again.mtime_ns, again.error) == (Status.MADE, 123, 456, None)


def test_a_header_holds_what_is_known_before_the_file_is_written(full):
    assert full.header().keys() == FACTS.keys() - {"status", "error", "file_size", "mtime_ns", "ctime_ns", "format"}


def test_what_is_not_known_is_not_in_the_header():
    assert "commit" not in image_record(image_spec()).header()
    assert None not in image_record(image_spec()).header().values()
    assert "batch_size" in image_record(image_spec(), batch_size=0).header()


def test_a_header_of_an_earlier_version_is_read():
    """Release 0.1.0 wrote `schema`; none of the optional facts is missed."""
    needed = {
        item.name: sample(FACTS[item.name]) if item.name != "spec" else {"seed": 1}
        for item in fields(ImageRecord)
        if item.default is MISSING and FACTS[item.name].in_header
    }
    record = ImageRecord.from_header(needed | {"schema": 1}, FILE)
    assert record.spec == {"seed": 1}
    assert record.tuning is None
    assert "schema" not in asdict(record)


def test_json_columns_do_not_depend_on_the_order_of_their_keys():
    rows = [
        table_row(asdict(image_record(image_spec(), versions=versions)))
        for versions in ({"torch": "2", "diffusers": "0.42"}, {"diffusers": "0.42", "torch": "2"})
    ]
    assert rows[0]["versions"] == rows[1]["versions"] == '{"diffusers": "0.42", "torch": "2"}'
    assert rows[0]["tuning"] is None


def test_a_row_has_a_null_for_what_its_record_lacks():
    """A record of an earlier version, as its stored result has it."""
    record = {"key": "k", "status": "made", "spec": {"seed": 5}, "schema": 1}
    row = table_row(record)
    assert row.keys() == set(RECORD_TABLE.names)
    assert {name: value for name, value in row.items() if value is not None} == {
        "key": "k",
        "status": "made",
        "seed": 5,
    }


def test_provenance_tells_of_the_picture_not_of_our_bookkeeping():
    assert set(PROVENANCE_FACTS) & set(COLUMNS) == set(COLUMNS) - {"key", "status", "error", "mtime_ns", "seed"}
    assert "spec" not in PROVENANCE_FACTS


def test_a_status_is_written_as_its_word():
    assert table_row(asdict(failed_record(image_spec())))["status"] == "failed"
    assert [str(status) for status in Status] == ["made", "failed", "lost"]
