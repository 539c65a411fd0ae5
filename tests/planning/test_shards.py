"""What is missing -> batches of one shape -> shards."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from t2i_core.planning.plan import SPECS
from t2i_core.planning.shards import Pending, count_work, make_shards
from t2i_core.spec import ImageSpec
from t2i_core.storage.records import TABLE, RecordIndex


def spec_row(index, prompt=None, **fields):
    spec = ImageSpec(
        model="m",
        prompt=prompt or f"p{index}",
        seed=index,
        **{"height": 64, "width": 64, "steps": 4, "dtype": "float32"} | fields,
    )
    row = {name: getattr(spec, name, None) for name in SPECS.names} | {"adapters": "[]", "key": spec.key}
    return row | {"row": index, "condition": 0, "image": 0, "name": f"s{index}"}


@pytest.fixture
def known(tmp_path):
    """Records -> what is known by them."""

    def write(*records, **options):
        rows = [dict.fromkeys(TABLE.names) | record for record in sorted(records, key=lambda record: record["key"])]
        pq.write_table(pa.Table.from_pylist(rows, schema=TABLE), tmp_path / "records.parquet")
        return RecordIndex(tmp_path / "records.parquet", **options)

    return write


@pytest.fixture
def specs_file(tmp_path):
    def write(rows):
        path = tmp_path / "specs.parquet"
        pq.write_table(pa.Table.from_pylist(rows, schema=SPECS), path)
        return path

    return write


def shards(path, selection, batch_size=4, save_interval=2):
    work = count_work(path, selection, batch_size, save_interval)
    result = list(make_shards(path, selection, batch_size, save_interval, work.shards))
    assert sum(len(s.requests) for s in result) == work.images
    assert sum(len(s.batches) for s in result) == work.batches
    assert len(result) == work.shards
    assert [s.number for s in result] == list(range(1, work.shards + 1))
    return result


def test_everything_is_missing_at_first_and_order_is_kept(specs_file, known):
    result = shards(specs_file([spec_row(i) for i in range(10)]), Pending(known()))
    assert [o.spec.prompt for s in result for o in s.requests] == [f"p{i}" for i in range(10)]
    assert [[len(b) for b in s.batches] for s in result] == [[4, 4], [2]]


def test_shards_are_dense_whatever_is_known(specs_file, known):
    rows = [spec_row(i) for i in range(12)]
    made = [{"key": r["key"], "status": "made"} for r in rows[::2]]
    result = shards(specs_file(rows), Pending(known(*made)))
    assert [o.spec.prompt for s in result for o in s.requests] == [f"p{i}" for i in range(1, 12, 2)]
    assert [[len(b) for b in s.batches] for s in result] == [[4, 2]]


def test_a_batch_has_one_set_of_call_arguments(specs_file, known):
    rows = [spec_row(i, steps=4 + i % 2, negative_prompt=None if i % 3 else "x") for i in range(24)]
    for shard in shards(specs_file(rows), Pending(known())):
        for batch in shard.batches:
            assert len({o.spec.call_group for o in batch}) == 1


def test_a_key_shared_by_rows_is_made_once(specs_file, known):
    row = spec_row(0)
    assert len(shards(specs_file([row, row | {"row": 1}]), Pending(known()))[0].requests) == 1


def test_what_failed_for_good_is_left_alone_until_asked(specs_file, known):
    rows = [spec_row(0), spec_row(1)]
    memory = known({"key": rows[0]["key"], "status": "failed", "error": "NaN"})
    path = specs_file(rows)
    assert [o.key for s in shards(path, Pending(memory)) for o in s.requests] == [rows[1]["key"]]
    assert len(shards(path, Pending(memory, retry_failed=True))[0].requests) == 2


def test_reseed_makes_a_stand_in_and_another_one_after_it_failed_too(specs_file, known):
    row = spec_row(0)
    failed = {"key": row["key"], "status": "failed", "error": "NaN"}
    path = specs_file([row])
    (first,) = shards(path, Pending(known(failed), retry_failed=True, reseed=True))[0].requests
    assert first.replaces == row["key"] != first.key
    again = {"key": first.key, "status": "failed", "error": "NaN", "replaces": row["key"]}
    (second,) = shards(path, Pending(known(failed, again), retry_failed=True, reseed=True))[0].requests
    assert second.key not in (first.key, row["key"])
    made = {"key": second.key, "status": "made", "replaces": row["key"]}
    assert count_work(path, Pending(known(failed, again, made)), 4, 2).images == 0


def test_refresh_counts_only_this_run(specs_file, known):
    rows = [spec_row(0), spec_row(1)]
    old = known({"key": rows[0]["key"], "status": "made", "run": "old"}, only_run="new")
    assert count_work(specs_file(rows), Pending(old), 4, 2).images == 2


def test_a_shard_is_named_by_what_it_makes_not_by_its_place(specs_file, known):
    rows = [spec_row(i) for i in range(8)]
    both = shards(specs_file(rows), Pending(known()), save_interval=1)
    later = shards(specs_file(rows[4:]), Pending(known()), save_interval=1)
    assert both[1].digest == later[0].digest
    assert both[0].digest != both[1].digest
