"""The one reader of stored results."""

import json

import pytest

from tasks.caching import ResultCache


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
def test_a_torn_result_is_none(cache, content):
    path = store(cache, "{}")
    path.write_text(content)
    assert cache.read("shard-v1/x") is None


def test_listing_is_a_scan_of_one_recipe(cache):
    store(cache, "1", name="shard-v1/a")
    store(cache, "1", name="plan-v1/b")
    assert [name for name, _, _ in cache.listing("shard-v1")] == ["shard-v1/a"]
    assert cache.listing("none-v1") == []
