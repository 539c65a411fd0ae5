"""Records count only with their files; files without a record are adopted."""

import os

import numpy as np
import pytest

from t2i_core.generate import _with_file
from t2i_core.images import pixels_digest, write_image
from t2i_core.records import Known, compact
from t2i_core.store import Store


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path)


def make(store, number, **facts):
    key = f"{number:064x}"
    pixels = np.full((4, 4, 3), number, np.uint8)
    header = {
        "key": key, "run": "r1", "created": "now", "batch_size": 2, "seconds": 0.1, "device": "cpu", "versions": {},
        "model_name": "demo", "commit": None, "spec": {"seed": number}, "pixels_sha256": pixels_digest(pixels),
    } | facts  # fmt: skip
    write_image(store.image_path(key), pixels, header, 1)
    from dataclasses import asdict

    return asdict(_with_file(header, store.image_path(key)))


def keys(table):
    return Known(table).made["key"].to_pylist()


def test_a_record_whose_file_is_unchanged_is_kept_without_decoding(store, monkeypatch):
    records = [make(store, i) for i in range(3)]
    monkeypatch.setattr("t2i_core.records.read_image", lambda path: pytest.fail(f"decoded {path}"))
    table = compact(None, records, store.scan(), store)
    assert keys(table) == [r["key"] for r in records]
    assert keys(compact(table, [], store.scan(), store)) == keys(table)


def test_files_without_a_record_are_adopted(store):
    records = [make(store, i) for i in range(3)]
    table = compact(None, [], store.scan(), store)
    assert keys(table) == [r["key"] for r in records]
    assert table["seed"].to_pylist() == [0, 1, 2]


@pytest.mark.parametrize("damage", ["deleted", "torn", "foreign", "edited in place", "another image"])
def test_a_record_without_its_picture_does_not_count(store, damage):
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


def test_a_copied_output_with_other_times_is_verified_and_kept(store):
    record = make(store, 1)
    os.utime(store.image_path(record["key"]), (1, 1))
    table = compact(None, [record], store.scan(), store)
    assert keys(table) == [record["key"]]
    assert table["mtime_ns"].to_pylist() == [10**9]


def test_a_later_record_wins(store):
    record = make(store, 1)
    failed = record | {"status": "failed", "error": "NaN", "file_size": None, "mtime_ns": None}
    assert keys(compact(None, [failed, record], store.scan(), store)) == [record["key"]]


def test_failures_are_kept_without_a_file(store):
    failed = make(store, 1) | {"status": "failed", "error": "NaN", "file_size": None, "mtime_ns": None}
    store.image_path(failed["key"]).unlink()
    assert Known(compact(None, [failed], store.scan(), store)).errors == {failed["key"]: "NaN"}


def test_a_stand_in_is_shown_for_the_failed_image(store):
    failed = make(store, 1) | {"status": "failed", "error": "NaN"}
    store.image_path(failed["key"]).unlink()
    stand_in = make(store, 2, replaces=failed["key"])
    known = Known(compact(None, [failed, stand_in], store.scan(), store))
    import pyarrow as pa

    assert known.effective(pa.array([failed["key"]])).to_pylist() == [stand_in["key"]]
