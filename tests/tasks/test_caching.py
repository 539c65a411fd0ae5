"""The result cache: which stored results count, the one reader of them, and which failures are worth a retry."""

import json
import os
import time
from dataclasses import asdict

import pytest
from prefect import flow, task
from prefect.states import Failed
from prefect.utilities.annotations import quote

from t2i_core import errors
from t2i_core.storage.files import STALE_SECONDS
from tasks import caching, dataset, generation, manifest, models, records
from tasks.caching import TASK_OPTIONS, ResultCache, VersionedKey, cache_key, data, is_transient
from tasks.generation import ShardIncomplete
from tests.builders import image_record, image_spec

TASKS = [
    dataset.load_dataset_task,
    generation.generate_shard_task,
    generation.measure_speed_task,
    manifest.write_manifest_task,
    models.resolve_model_task,
    models.resolve_adapter_task,
    models.fetch_weights_task,
    records.collect_records_task,
]


@pytest.fixture
def cache(tmp_path):
    return ResultCache(tmp_path, retries=0)


def store(cache, text, serializer="json", name="shard-v1/x"):
    path = cache.folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"metadata": {"serializer": {"type": serializer}}, "result": text}))
    return path


def test_a_plain_json_result_is_read(cache):
    store(cache, '[{"key": "k"}]')
    assert cache.read("shard-v1/x") == [{"key": "k"}]


def test_a_result_that_is_not_there_is_none(cache):
    assert cache.read("shard-v1/none") is None


@pytest.mark.parametrize(
    ("text", "serializer"),
    [
        ("gASVIQAAAAAAAACMBXBvc2l4lIwGc3lzdGVtlJOUjAR0cnVllIWUUpQu", "pickle"),
        ("{}", "compressed/json"),
        ('{"__class__": "subprocess.Popen", "data": {}}', "json"),
        ('[{"deep": {"__exc_type__": "builtins.SystemExit"}}]', "json"),
    ],
)
def test_a_result_that_would_run_code_is_removed_before_prefect_sees_it(cache, text, serializer):
    path = store(cache, text, serializer)
    assert cache.read("shard-v1/x") is None
    assert not path.exists()


@pytest.mark.parametrize(
    "content", ["", "{", '{"metadata": {}}', "[]", '{"metadata": {"serializer": null}, "result": 1}']
)
def test_a_torn_result_is_none_and_stays_for_whoever_is_writing_it(cache, content):
    path = store(cache, "{}")
    path.write_text(content)
    assert cache.read("shard-v1/x") is None
    assert path.exists()


def test_a_listing_is_a_scan_of_one_version(cache):
    first, second = store(cache, "1", name="shard-v1/b"), store(cache, "22", name="shard-v1/a")
    store(cache, "1", name="plan-v1/b")
    (cache.folder / "shard-v1/folder").mkdir()
    expected = [(f"shard-v1/{p.name}", p.stat().st_size, p.stat().st_mtime_ns) for p in (second, first)]
    assert cache.listing("shard-v1") == expected
    assert cache.listing("none-v1") == []


def test_a_key_tells_apart_what_a_result_depends_on():
    assert cache_key("a", 1) == cache_key("a", 1)
    assert len({cache_key("a", 1), cache_key("a", 2), cache_key("a"), cache_key(["a", 1]), cache_key("1", "a")}) == 5


def test_the_key_of_a_result_is_readable():
    key = VersionedKey(version="plan-v3").compute_key(None, {"cache_key": "abc", "config": object()}, {})
    assert key == "plan-v3/abc"


def test_arguments_are_not_searched_by_prefect():
    values = data(image_spec(1), [1])
    assert [type(value) for value in values] == [quote, quote]
    assert [value.unquote() for value in values] == [image_spec(1), [1]]


@pytest.mark.parametrize(
    ("error", "transient"),
    [
        (errors.UserError("x"), False),
        (errors.ConfigError(["x"]), False),
        (errors.DatasetError("x"), False),
        (errors.ModelError("x"), False),
        (errors.HubUnavailable("x"), True),
        (errors.HubUnavailable("x", reached=False), True),
        (errors.OutputError("x"), False),
        (errors.MeasureFailed("x"), False),
        (errors.Stopped(), False),
        (errors.ImageFailure("x"), True),
        (ShardIncomplete("x"), True),
        (OSError("x"), True),
        (RuntimeError("x"), True),
        (MemoryError(), True),
        (ValueError("x"), True),
    ],
)
def test_a_failure_is_transient_unless_it_is_wrong_use_or_a_stop(error, transient):
    assert is_transient(None, None, Failed(data=error)) is transient


@pytest.mark.parametrize("one", TASKS, ids=lambda one: one.name)
def test_every_task_asks_whether_a_failure_is_transient_and_stores_plain_json(one):
    assert one.retry_condition_fn is is_transient
    assert one.persist_result
    assert one.result_serializer == "json"
    assert one.cache_result_in_memory is False
    assert isinstance(one.cache_policy, VersionedKey)


def test_no_two_tasks_store_under_one_version():
    assert len({one.cache_policy.version for one in TASKS}) == len(TASKS)


def test_a_bound_task_stores_in_the_output_and_is_tried_again_as_configured(tmp_path):
    bound = ResultCache(tmp_path, retries=3).bind(dataset.load_dataset_task, refresh=True)
    assert bound.result_storage == tmp_path
    assert (bound.retries, bound.refresh_cache, bound.retry_jitter_factor) == (3, True, 0.5)
    assert bound.retry_delay_seconds == caching.RETRY_SECONDS == sorted(caching.RETRY_SECONDS)
    assert bound.retry_condition_fn is is_transient
    assert bound.cache_policy == dataset.load_dataset_task.cache_policy
    assert not ResultCache(tmp_path, retries=0).bind(dataset.load_dataset_task, refresh=False).refresh_cache


@pytest.fixture
def counting(monkeypatch):
    """A task that counts its calls, and raises what it is told to: `counting(error, ...)` -> (task, calls)."""
    monkeypatch.setattr(caching, "RETRY_SECONDS", [0])

    def make(*errors_to_raise):
        calls, left = [], list(errors_to_raise)

        @task(name="count", cache_policy=VersionedKey(version="count-v1"), **TASK_OPTIONS)
        def count(cache_key, value):
            calls.append(value)
            if left:
                raise left.pop(0)
            return {"value": value}

        return count, calls

    return make


@pytest.fixture
def in_flow(server):
    """Call a function within a flow run; its value, or what it raised."""
    return lambda function: flow(function, name="test", persist_result=False)()


def test_a_stored_result_counts_while_it_is_valid(counting, in_flow, tmp_path):
    count, calls = counting()
    cache, valid = ResultCache(tmp_path, retries=0), [True]

    def call(value):
        return in_flow(lambda: cache.call(count, "key", value, is_valid=lambda stored: valid[0]))

    assert call(1) == {"value": 1}
    assert call(2) == {"value": 1}
    valid[0] = False
    assert call(3) == {"value": 3}  # run again, and stored
    valid[0] = True
    assert call(4) == {"value": 3}
    assert in_flow(lambda: cache.call_afresh(count, "key", 5)) == {"value": 5}
    assert in_flow(lambda: cache.call(count, "other key", 6)) == {"value": 6}
    assert calls == [1, 3, 5, 6]
    assert cache.read("count-v1/key") == {"value": 5}
    assert [name for name, _, _ in cache.listing("count-v1")] == ["count-v1/key", "count-v1/other key"]


def test_a_planted_result_is_removed_and_the_task_run(counting, in_flow, tmp_path):
    count, calls = counting()
    cache = ResultCache(tmp_path, retries=0)
    store(cache, "gASVIQAAAAAAAACMBXBvc2l4lIwGc3lzdGVtlJOUjAR0cnVllIWUUpQu", "pickle", name="count-v1/key")
    assert in_flow(lambda: cache.call(count, "key", 1)) == {"value": 1}
    assert calls == [1]


@pytest.mark.parametrize(
    ("error", "tries"),
    [
        (errors.OutputError("the disk is full"), 1),
        (errors.MeasureFailed("none fits"), 1),
        (errors.HubUnavailable("no answer"), 3),
        (RuntimeError("the card is busy"), 3),
    ],
)
def test_only_a_transient_failure_is_tried_again(counting, in_flow, tmp_path, error, tries):
    count, calls = counting(*[error] * 5)
    with pytest.raises(type(error)):
        in_flow(lambda: ResultCache(tmp_path, retries=2).call(count, "key", 1))
    assert len(calls) == tries


def test_a_record_is_plain_json():
    record = asdict(image_record(image_spec(1)))
    assert json.loads(json.dumps(record))["status"] == "made"


def test_results_beside_those_in_use_are_forgotten_once_nobody_can_be_reading_them(tmp_path):
    cache = ResultCache(tmp_path, retries=0)
    old = time.time() - STALE_SECONDS - 60
    names = [
        "plan-v5/used",
        "plan-v5/other",
        "plan-v5/young",
        "manifest-v1/used",
        "manifest-v1/other",
        "speed-v1/other",
    ]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("{}")
        if "young" not in name:
            os.utime(tmp_path / name, (old, old))
    cache.forget_others({"plan-v5/used", "manifest-v1/used", "records-v1/used"})
    left = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert left == {"plan-v5/used", "plan-v5/young", "manifest-v1/used", "speed-v1/other"}
