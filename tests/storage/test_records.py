"""Records count only with their files; files without a record are adopted."""

import os
from dataclasses import asdict

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from t2i_core.storage.png import encode_png, pixels_digest
from t2i_core.storage.record_index import RecordIndex
from t2i_core.storage.record_table import merge_records
from t2i_core.storage.records import ImageRecord
from t2i_core.storage.workspace import Workspace


@pytest.fixture
def store(tmp_path):
    return Workspace(tmp_path)


def make(store, number, **facts):
    key = f"{number:064x}"
    pixels = np.full((4, 4, 3), number, np.uint8)
    header = {
        "key": key, "run": "r1", "created": "now", "batch_size": 2, "seconds": 0.1, "device": "cpu", "versions": {},
        "model_name": "demo", "commit": None, "spec": {"seed": number}, "pixels_sha256": pixels_digest(pixels),
    } | facts  # fmt: skip
    file = store.images.write(key, encode_png(pixels, header, 1))
    return asdict(ImageRecord.from_header(header, file))


@pytest.fixture
def know(tmp_path):
    """Table of records -> what is known by it."""

    def write(table, **options):
        pq.write_table(table, tmp_path / "records.parquet")
        return RecordIndex(tmp_path / "records.parquet", **options)

    return write


@pytest.fixture
def keys(know):
    """Table of records -> keys of the images that count as made."""
    return lambda table: [key.decode() for key in know(table).keys]


def test_a_record_whose_file_is_unchanged_is_kept_without_decoding(store, monkeypatch, keys):
    records = [make(store, i) for i in range(3)]
    monkeypatch.setattr("t2i_core.storage.records.read_image", lambda path: pytest.fail(f"decoded {path}"))
    table = compact(None, records, store.scan(), store)
    assert keys(table) == [r["key"] for r in records]
    assert keys(compact(table, [], store.scan(), store)) == keys(table)


def test_files_without_a_record_are_adopted(store, keys):
    records = [make(store, i) for i in range(3)]
    table = compact(None, [], store.scan(), store)
    assert keys(table) == [r["key"] for r in records]
    assert table["seed"].to_pylist() == [0, 1, 2]


@pytest.mark.parametrize("damage", ["deleted", "torn", "foreign", "edited in place", "another image"])
def test_a_record_without_its_picture_does_not_count(store, damage, keys):
    good, bad = make(store, 1), make(store, 2)
    path = store.image_path(bad["key"])
    path.chmod(0o644)
    if damage == "deleted":
        path.unlink()
    elif damage == "torn":
        path.write_bytes(path.read_bytes()[:40])
    elif damage == "foreign":
        path.write_bytes(b"\x89PNG no")
    elif damage == "edited in place":
        content = bytearray(path.read_bytes())
        content[-20] ^= 0xFF
        path.write_bytes(content)
    else:
        path.write_bytes(store.image_path(good["key"]).read_bytes())
    assert keys(compact(None, [good, bad], store.scan(), store)) == [good["key"]]


def test_a_copied_output_with_other_times_is_verified_and_kept(store, keys):
    record = make(store, 1)
    os.utime(store.image_path(record["key"]), (1, 1))
    table = compact(None, [record], store.scan(), store)
    assert keys(table) == [record["key"]]
    assert table["mtime_ns"].to_pylist() == [10**9]


def test_a_later_record_wins(store, keys):
    record = make(store, 1)
    failed = record | {"status": "failed", "error": "NaN", "file_size": None, "mtime_ns": None}
    assert keys(compact(None, [failed, record], store.scan(), store)) == [record["key"]]


def test_failures_are_kept_without_a_file(store, know):
    failed = make(store, 1) | {"status": "failed", "error": "NaN", "file_size": None, "mtime_ns": None}
    store.image_path(failed["key"]).unlink()
    assert know(compact(None, [failed], store.scan(), store)).errors == {failed["key"]: "NaN"}


def test_a_stand_in_is_shown_for_the_failed_image(store, know):
    failed = make(store, 1) | {"status": "failed", "error": "NaN"}
    store.image_path(failed["key"]).unlink()
    replacement = make(store, 2, replaces=failed["key"])
    known = know(compact(None, [failed, replacement], store.scan(), store))
    assert known.effective(pa.array([failed["key"]])).to_pylist() == [replacement["key"]]


def test_images_of_other_runs_do_not_count_when_everything_is_made_again(store, know):
    old, new = make(store, 1), make(store, 2, run="r2")
    known = know(compact(None, [old, new], store.scan(), store), only_run="r2")
    asked = pa.array([new["key"], old["key"], f"{3:064x}"])
    assert known.find(asked).tolist() == [0, -1, -1]
    assert known.records(["key", "seed"]).to_pylist() == [{"key": new["key"], "seed": 2}]


def test_records_stay_readable_when_a_later_run_removes_their_file(store, know, tmp_path):
    known = know(compact(None, [make(store, 1)], store.scan(), store))
    (tmp_path / "records.parquet").unlink()
    assert known.records(["run"])["run"].to_pylist() == ["r1"]


@pytest.mark.parametrize("damage", ["deleted", "torn"])
def test_a_stand_in_whose_file_is_gone_is_made_again_with_its_own_seed(store, know, damage):
    failed = make(store, 1) | {"status": "failed", "error": "NaN"}
    store.image_path(failed["key"]).unlink()
    replacement = make(store, 2, replaces=failed["key"])
    table = compact(None, [failed, replacement], store.scan(), store)
    path = store.image_path(replacement["key"])
    path.unlink()
    if damage == "torn":
        path.write_bytes(b"half")
    for _ in range(2):  # tonight and tomorrow
        table = compact(table, [], store.scan(), store)
        known = know(table)
        assert known.replacements == {failed["key"]: (replacement["key"], 2)}
        assert known.errors == {}
        assert known.find(pa.array([failed["key"]])).tolist() == [-1]
    path.unlink(missing_ok=True)
    again = make(store, 2, replaces=failed["key"])
    known = know(compact(table, [again], store.scan(), store))
    assert known.find(pa.array([failed["key"]])).tolist() == [0]
