"""Collecting records: each result of a shard is absorbed once, by name, size and time, and the latest record wins."""

import json
import os
import time
from dataclasses import asdict

import pytest

from t2i_core.storage.files import STALE_SECONDS
from t2i_core.storage.record_index import RecordIndex
from t2i_core.storage.workspace import Workspace
from tasks.caching import ResultCache
from tasks.generation import SHARD_KEY
from tasks.records import collect_records, compact_results
from tests.builders import failed_record, image_spec, store_image

SPEC = image_spec(1)


@pytest.fixture
def workspace(tmp_path):
    return Workspace(tmp_path / "out")


@pytest.fixture
def shard_result(workspace):
    """Store the result of a shard, as Prefect does, at a time of its own: `shard_result("a", 10, record, ...)`."""

    def write(name, seconds, *records, serializer="json"):
        path = workspace.results / SHARD_KEY / name
        path.parent.mkdir(parents=True, exist_ok=True)
        result = json.dumps({"records": [asdict(record) for record in records], "timings": {}, "failures": {}})
        path.write_text(json.dumps({"metadata": {"serializer": {"type": serializer}}, "result": result}))
        os.utime(path, (seconds, seconds))
        return path

    return write


@pytest.fixture
def collect(workspace):
    """Collect the records under a key; return the index of the table."""

    def call(key="table"):
        name = collect_records(key, str(workspace.root), workspace.images.scan())
        assert name == f"{key}.parquet"
        return RecordIndex(workspace.records / name)

    return call


@pytest.fixture
def read(monkeypatch):
    """The names of the results that were read."""
    names, original = [], ResultCache.read
    monkeypatch.setattr(ResultCache, "read", lambda self, name: names.append(name) or original(self, name))
    return names


def test_the_results_of_shards_become_one_table(workspace, shard_result, collect):
    made = [store_image(workspace, image_spec(i)) for i in range(3)]
    failed = failed_record(image_spec(9), "it is black")
    shard_result("a", 10, made[0], failed)
    shard_result("b", 20, made[1], made[2])
    index = collect()
    assert [key.decode() for key in index.keys] == sorted(record.key for record in made)
    assert index.errors == {failed.key: "it is black"}


def test_an_output_without_results_has_an_empty_table(collect):
    assert len(collect().keys) == 0


def test_a_result_is_read_once(shard_result, collect, read):
    shard_result("a", 10, failed_record(SPEC, "one"))
    collect("first")
    assert read == [f"{SHARD_KEY}/a"]
    shard_result("b", 20, failed_record(image_spec(2), "two"))
    assert set(collect("second").errors.values()) == {"one", "two"}
    assert read == [f"{SHARD_KEY}/a", f"{SHARD_KEY}/b"]
    assert set(collect("third").errors.values()) == {"one", "two"}
    assert len(read) == 2


@pytest.mark.parametrize(("seconds", "reason"), [(11, "two"), (10, "three")])
def test_a_result_rewritten_under_the_same_name_is_absorbed_again(shard_result, collect, seconds, reason):
    path = shard_result("a", 10, failed_record(SPEC, "one"))
    size = path.stat().st_size
    assert collect("first").errors == {SPEC.key: "one"}
    path = shard_result("a", seconds, failed_record(SPEC, reason))
    assert (path.stat().st_size == size) == (reason == "two")  # told apart by its time, or by its size
    assert collect("second").errors == {SPEC.key: reason}


def test_the_record_written_later_wins_whatever_the_names(shard_result, collect):
    shard_result("b", 10, failed_record(SPEC, "earlier"))
    shard_result("a", 20, failed_record(SPEC, "later"))
    assert collect().errors == {SPEC.key: "later"}


def test_a_new_record_wins_over_the_table(shard_result, collect):
    shard_result("a", 10, failed_record(SPEC, "earlier"))
    collect("first")
    shard_result("b", 5, failed_record(SPEC, "later"))  # from a machine whose clock is behind
    assert collect("second").errors == {SPEC.key: "later"}


def test_what_the_table_knows_stays_when_the_results_are_gone(shard_result, collect):
    path = shard_result("a", 10, failed_record(SPEC, "one"))
    collect("first")
    path.unlink()
    assert collect("second").errors == {SPEC.key: "one"}


def test_the_latest_table_is_the_one_that_is_carried_on(workspace, shard_result, collect):
    shard_result("a", 10, failed_record(SPEC, "one"))
    collect("z")
    shard_result("b", 20, failed_record(image_spec(2), "two"))
    collect("a")
    for number, name in enumerate(("z", "a")):
        os.utime(workspace.records / f"{name}.parquet", (1000 + number, 1000 + number))
    for path in (workspace.results / SHARD_KEY).iterdir():
        path.unlink()
    assert set(collect("next").errors.values()) == {"one", "two"}


def test_a_result_that_is_not_plain_json_is_passed_over(shard_result, collect):
    shard_result("a", 10, failed_record(SPEC, "planted"), serializer="pickle")
    shard_result("b", 20, failed_record(image_spec(2), "two"))
    assert list(collect().errors.values()) == ["two"]


def test_an_image_without_any_result_is_adopted(workspace, collect):
    record = store_image(workspace, SPEC)
    assert [key.decode() for key in collect().keys] == [record.key]


def test_earlier_tables_are_removed_once_nobody_can_be_reading_them(workspace, collect):
    collect("old")
    collect("recent")
    long_ago = time.time() - STALE_SECONDS - 60
    os.utime(workspace.records / "old.parquet", (long_ago, long_ago))
    collect("new")
    assert sorted(path.name for path in workspace.records.glob("*.parquet")) == ["new.parquet", "recent.parquet"]


def test_many_nights_leave_one_table_and_the_results_of_the_last(workspace, shard_result, collect):
    """Nothing is forgotten: neither what was made, nor what failed, nor the speeds that were measured."""
    cache = ResultCache(workspace.results, retries=0)
    speed = workspace.results / "speed-v1" / "measured"
    speed.parent.mkdir(parents=True)
    speed.write_text("{}")
    made, nights = [], 60
    for night in range(nights):
        compact_results(workspace, cache)  # at the start, when nothing is new
        made.append(store_image(workspace, image_spec(2 * night)))
        shard_result(f"{night}a", 10 + night, made[-1])
        shard_result(f"{night}b", 10 + night, failed_record(image_spec(2 * night + 1), f"night {night}"))
        compact_results(workspace, cache)
        index = collect(f"end{night}")
        for path in workspace.records.glob("*.parquet"):
            age = STALE_SECONDS + 60 + (path.stem != f"end{night}")
            os.utime(path, (time.time() - age,) * 2)
    assert sorted(path.name for path in (workspace.results / SHARD_KEY).iterdir()) == ["59a", "59b"]
    assert sorted(key.decode() for key in index.keys) == sorted(record.key for record in made)
    assert set(index.errors.values()) == {f"night {night}" for night in range(nights)}
    assert speed.exists()
    listing = cache.listing(SHARD_KEY)
    compact_results(workspace, cache)  # a night without anything new
    assert cache.listing(SHARD_KEY) == listing
    assert set(collect("last").errors.values()) == set(index.errors.values())


def test_results_stay_as_long_as_another_run_may_need_them(workspace, shard_result, collect):
    cache = ResultCache(workspace.results, retries=0)
    first = shard_result("a", 10, failed_record(SPEC, "one"))
    compact_results(workspace, cache)
    collect("first")
    second = shard_result("b", 20, failed_record(image_spec(2), "two"))
    compact_results(workspace, cache)
    assert first.exists()  # the table is not an hour old
    os.utime(workspace.records / "first.parquet", (time.time() - STALE_SECONDS - 60,) * 2)
    compact_results(workspace, cache)
    assert not first.exists() and second.exists()
    assert set(collect("second").errors.values()) == {"one", "two"}
