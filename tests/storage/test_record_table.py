"""Records count only with their files; files without a record are adopted."""

import os
from dataclasses import asdict

import pyarrow as pa
import pytest

from t2i_core.storage import adoption
from t2i_core.storage.adoption import adopt
from t2i_core.storage.formats import Encoding, encode_image, pixels_digest
from t2i_core.storage.image_store import Scan
from t2i_core.storage.record_index import RecordIndex
from t2i_core.storage.record_table import merge_records, tabled
from t2i_core.storage.records import PROMPT_LENGTHS, RECORD_TABLE
from t2i_core.storage.workspace import Workspace
from tests.builders import failed_record, image_record, image_spec, merged, picture, record_index, store_image


@pytest.fixture
def workspace(tmp_path):
    return Workspace(tmp_path)


@pytest.fixture
def path(workspace):
    """Record -> where its image lies, made writable."""

    def of(record):
        path = workspace.root / workspace.images.location(record.key)
        path.chmod(0o644)
        return path

    return of


@pytest.fixture
def no_decoding(monkeypatch):
    monkeypatch.setattr(adoption, "decode_image", lambda data: pytest.fail("decoded"))


def made(table):
    """Keys that the table says are made."""
    return [row["key"] for row in table.to_pylist() if row["status"] == "made"]


def fresh(scan, workspace, records=()):
    """The table of stored results, as JSON, without an earlier table."""
    new = pa.Table.from_batches(tabled(records), RECORD_TABLE)
    return merge_records(None, new, scan, workspace.images, lambda keys: adopt(keys, workspace.images))


def keys(*records):
    return sorted(record.key for record in records)


def index(table, workspace) -> RecordIndex:
    return record_index(workspace.records, table)


def test_a_record_whose_file_is_unchanged_is_kept_without_decoding(workspace, no_decoding):
    records = [store_image(workspace, image_spec(i)) for i in range(3)]
    table = merged(workspace, records)
    assert made(table) == keys(*records)
    assert merged(workspace, previous=table).equals(table)


def test_a_table_is_sorted_by_key_and_has_one_schema(workspace):
    table = merged(workspace, [store_image(workspace, image_spec(i)) for i in range(20)])
    assert table["key"].to_pylist() == sorted(table["key"].to_pylist())
    assert table.schema.equals(RECORD_TABLE)
    assert merged(workspace, []).schema.equals(RECORD_TABLE)


def test_files_without_a_record_are_adopted_as_their_headers_describe_them(workspace):
    records = [
        store_image(workspace, image_spec(i), run=f"r{i}", tuning={"offload": "model"}, commit="c0ffee")
        for i in range(3)
    ]
    known = merged(workspace, records)
    assert merged(workspace).equals(known)
    assert sorted(known["seed"].to_pylist()) == [0, 1, 2]
    assert sorted(known["run"].to_pylist()) == ["r0", "r1", "r2"]


@pytest.mark.parametrize("count", [1, 2, 5])
def test_any_number_of_files_is_adopted(workspace, monkeypatch, count):
    monkeypatch.setattr(adoption, "CHUNK_ROWS", 2)
    records = [store_image(workspace, image_spec(i)) for i in range(count)]
    assert made(merged(workspace)) == keys(*records)


def test_only_files_without_a_valid_record_are_decoded(workspace, monkeypatch):
    known, unknown = (store_image(workspace, image_spec(i)) for i in range(2))
    decoded = []
    decode = adoption.decode_image

    def watched(data):
        decoded.append(decode(data).record["key"])
        return decode(data)

    monkeypatch.setattr(adoption, "decode_image", watched)
    assert made(merged(workspace, [known])) == keys(known, unknown)
    assert decoded == [unknown.key]


@pytest.mark.parametrize("damage", ["deleted", "torn", "foreign", "edited in place", "another image", "no key"])
def test_a_record_without_its_picture_does_not_count(workspace, path, damage):
    good, bad = (store_image(workspace, image_spec(i)) for i in range(2))
    target = path(bad)
    content = {
        "torn": target.read_bytes()[:40],
        "foreign": b"\x89PNG no",
        "edited in place": target.read_bytes()[:-20] + b"?" + target.read_bytes()[-19:],
        "another image": path(good).read_bytes(),
        "no key": encode_image(picture(image_spec(1)), {"pixels_sha256": bad.pixels_sha256}, Encoding()).data,
    }
    if damage == "deleted":
        target.unlink()
    else:
        target.write_bytes(content[damage])
        os.utime(target, ns=(1, bad.mtime_ns + 1))
    assert merged(workspace, [good, bad])["key"].to_pylist() == [good.key]


@pytest.mark.parametrize("changed", ["size", "time"])
def test_a_file_of_another_size_or_time_than_its_record_is_looked_at(workspace, path, changed):
    record = store_image(workspace, image_spec(1))
    target = path(record)
    if changed == "size":
        target.write_bytes(target.read_bytes()[:100])
        os.utime(target, ns=(1, record.mtime_ns))
    else:
        target.write_bytes(b"x" * record.file_size)
        os.utime(target, ns=(1, record.mtime_ns - 1))
    assert made(merged(workspace, [record])) == []


def test_a_file_that_vanishes_during_the_scan_is_passed_over(workspace, path):
    record, gone = (store_image(workspace, image_spec(i)) for i in range(2))
    scan = workspace.images.scan()
    path(gone).unlink()
    table = fresh(scan, workspace)
    assert made(table) == [record.key]


def test_a_copied_output_with_other_times_is_verified_and_kept(workspace, path):
    record = store_image(workspace, image_spec(1), run="r7")
    os.utime(path(record), (1, 1))
    table = merged(workspace, [record])
    assert made(table) == [record.key]
    assert table["mtime_ns"].to_pylist() == [10**9]
    assert table["run"].to_pylist() == ["r7"]


def test_a_record_without_size_and_time_is_checked_by_its_pixels(workspace):
    spec = image_spec(1)
    stored = store_image(workspace, spec)
    table = merged(workspace, [image_record(spec)])
    assert table["file_size"].to_pylist() == [stored.file_size]


def test_a_later_record_wins(workspace):
    spec = image_spec(1)
    record, failed = store_image(workspace, spec), failed_record(spec)
    assert made(merged(workspace, [failed, record])) == [spec.key]
    workspace.images.delete(spec.key)
    table = merged(workspace, [failed_record(spec, error="old"), failed_record(spec, error="new")])
    assert table["error"].to_pylist() == ["new"]
    assert merged(workspace, [failed_record(spec, error="newest")], table)["error"].to_pylist() == ["newest"]


def test_a_failure_is_kept_while_there_is_no_file(workspace):
    spec = image_spec(1)
    table = merged(workspace, [failed_record(spec)])
    for _ in range(2):
        table = merged(workspace, previous=table)
        assert index(table, workspace).errors == {spec.key: "NaN"}
    store_image(workspace, spec)  # made after all, by a run whose result was lost
    table = merged(workspace, previous=table)
    assert made(table) == [spec.key]
    assert index(table, workspace).errors == {}


def test_a_failure_after_an_image_was_made_needs_its_file_gone(workspace):
    """The record of a failed second attempt does not hide an image that is there."""
    spec = image_spec(1)
    record = store_image(workspace, spec)
    table = merged(workspace, [record, failed_record(spec)])
    assert made(table) == [spec.key]


@pytest.mark.parametrize("damage", ["deleted", "torn"])
def test_a_replacement_whose_file_is_gone_is_made_again_with_its_own_seed(workspace, path, damage):
    failed = failed_record(image_spec(1))
    spec = image_spec(2)
    replacement = store_image(workspace, spec, replaces=failed.key)
    table = merged(workspace, [failed, replacement])
    target = path(replacement)
    target.unlink()
    if damage == "torn":
        target.write_bytes(b"half")
    asked = pa.array([failed.key])
    for _ in range(2):  # tonight and tomorrow
        table = merged(workspace, previous=table)
        known = index(table, workspace)
        assert known.replacements == {failed.key: (spec.key, 2)}
        assert known.errors == {}
        assert known.find(asked).tolist() == [-1]
    target.unlink(missing_ok=True)
    table = merged(workspace, [store_image(workspace, spec, replaces=failed.key)], table)
    assert index(table, workspace).find(asked).tolist() == [0]
    assert table["key"].to_pylist() == sorted([failed.key, spec.key])


def test_a_replacement_that_is_touched_stays_a_replacement(workspace, path):
    """Its file is adopted; it must not be there twice, made and lost."""
    failed = failed_record(image_spec(1))
    replacement = store_image(workspace, image_spec(2), replaces=failed.key)
    os.utime(path(replacement), (1, 1))
    table = merged(workspace, [failed, replacement])
    assert table["key"].to_pylist() == keys(failed, replacement)
    assert made(table) == [replacement.key]


def test_an_image_that_is_gone_and_a_replacement_that_failed_are_not_lost_replacements(workspace):
    first = failed_record(image_spec(1))
    second = failed_record(image_spec(2), replaces=first.key)
    gone = image_record(image_spec(3), file_size=1, mtime_ns=1)
    table = merged(workspace, [first, second, gone])
    assert set(table["status"].to_pylist()) == {"failed"}
    assert table["key"].to_pylist() == keys(first, second)


def test_a_table_of_an_earlier_or_later_version_is_read(workspace, no_decoding):
    records = [store_image(workspace, image_spec(i), commit="c0ffee") for i in range(2)]
    table = merged(workspace, records)
    other = table.append_column("schema", pa.array([1, 1], pa.int32())).drop_columns(["tuning"])
    other = other.replace_schema_metadata({"absorbed": "x"})
    other = other.select(sorted(other.column_names))
    again = merged(workspace, previous=other)
    assert again.equals(table)
    assert again.schema.metadata is None


def test_an_image_of_an_earlier_version_is_adopted(workspace):
    """Release 0.1.0 wrote `schema` into the header."""
    spec = image_spec(1)
    pixels = picture(spec)
    header = image_record(spec, pixels_sha256=pixels_digest(pixels)).header() | {"schema": 1}
    workspace.images.write(spec.key, encode_image(pixels, header, Encoding()).data)
    assert made(merged(workspace)) == [spec.key]


def test_without_images_there_is_an_empty_table(workspace):
    scan = workspace.images.scan()
    assert isinstance(scan, Scan)
    assert len(fresh(scan, workspace)) == 0


def test_records_come_from_results_that_other_versions_stored(workspace):
    """A stored result is JSON: facts may be missing, and others may be there that nobody knows any more."""
    record = store_image(workspace, image_spec(1))
    stored = {name: value for name, value in asdict(record).items() if name not in ("tuning", "vae_tiling", "error")}
    table = fresh(workspace.images.scan(), workspace, [stored | {"schema": 1}])
    assert made(table) == [record.key]
    assert table["tuning"].to_pylist() == [None]


def test_prompt_lengths_of_earlier_versions_lack_what_they_did_not_count(workspace):
    """In the table and in the headers of files alike; a null is no count of zero."""
    old = {"encoder": "CLIPTextModel", "tokens": 90, "limit": 77, "cut": "the rest"}
    new = old | {"unknown": 3, "unread": 0.25}
    records = [store_image(workspace, image_spec(i), prompt_lengths=[old]) for i in range(2)]
    column = pa.list_(pa.struct([(name, PROMPT_LENGTHS.value_type.field(name).type) for name in old]))
    place = RECORD_TABLE.get_field_index("prompt_lengths")
    previous = merged(workspace).slice(0, 1)  # the other one is adopted
    previous = previous.set_column(place, "prompt_lengths", pa.array([[old]], column))
    later = store_image(workspace, image_spec(2), prompt_lengths=[new])
    table = merged(workspace, [later], previous)
    assert table.schema.equals(RECORD_TABLE)
    lengths = {row["key"]: row["prompt_lengths"] for row in table.to_pylist()}
    missing = {"unknown": None, "unread": None}
    assert lengths == {record.key: [old | missing] for record in records} | {later.key: [new]}


@pytest.mark.parametrize("form", ["webp", "jpeg"])
def test_a_file_of_another_format_is_adopted_and_then_known(workspace, form, monkeypatch):
    record = store_image(workspace, image_spec(0), format=form)
    table = merged(workspace)
    assert made(table) == keys(record)
    assert table["format"].to_pylist() == [form]
    assert (table["decoded_sha256"][0].as_py() is None) == (form == "webp")
    assert table["pixels_sha256"].to_pylist() == [record.pixels_sha256]
    monkeypatch.setattr(adoption, "decode_image", lambda data: pytest.fail("decoded"))
    assert merged(workspace, previous=table) == table
