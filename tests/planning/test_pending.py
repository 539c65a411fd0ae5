"""What a run still has to make: what has no picture, each key once, and replacements of what failed."""

from dataclasses import replace

import pytest

from t2i_core.hashing import derive_seed
from t2i_core.planning.pending import Pending
from t2i_core.spec import ImageSpec
from t2i_core.storage import tables
from t2i_core.storage.records import Status
from t2i_core.storage.workspace import Workspace
from tests.builders import failed_record, image_record, image_spec, make_catalog, record_index, store_image


@pytest.fixture
def workspace(tmp_path):
    return Workspace(tmp_path)


@pytest.fixture(params=["one chunk", "many chunks"], autouse=True)
def chunks(request, monkeypatch):
    if request.param == "many chunks":
        monkeypatch.setattr(tables, "CHUNK_ROWS", 2)


@pytest.fixture
def specs():
    return [image_spec(i) for i in range(7)]


def prompts(pending):
    return [request.spec.prompt for request in pending.requests()]


def test_what_has_no_picture_is_pending_in_data_set_order(workspace, specs):
    for spec in specs[1::2]:
        store_image(workspace, spec)
    pending = Pending(make_catalog(workspace, *specs))
    assert prompts(pending) == ["p0", "p2", "p4", "p6"]
    for request, spec in zip(pending.requests(), specs[::2], strict=True):
        assert (request.spec, request.key, request.replaces) == (spec, spec.key, None)
    assert pending.first() == specs[0]
    columns = [chunk for chunk in pending.chunks(["key", "prompt"]) if len(chunk)]
    assert [prompt for chunk in columns for prompt in chunk["prompt"].to_pylist()] == ["p0", "p2", "p4", "p6"]
    assert all(chunk.schema.names == ["key", "prompt"] for chunk in columns)


def test_once_everything_is_made_nothing_is_pending(workspace, specs):
    for spec in specs:
        store_image(workspace, spec)
    assert prompts(Pending(make_catalog(workspace, *specs))) == []


def test_a_key_that_rows_share_is_made_once(workspace, specs):
    pending = Pending(make_catalog(workspace, specs[0], specs[1], specs[0], [specs[1], specs[2]]))
    assert prompts(pending) == ["p0", "p1", "p2"]


def test_what_failed_permanently_is_left_alone_until_asked_for(workspace, specs):
    catalog = make_catalog(workspace, *specs[:3], records=[failed_record(specs[1])])
    assert prompts(Pending(catalog)) == ["p0", "p2"]
    again = Pending(catalog, retry_failed=True)
    assert prompts(again) == ["p0", "p1", "p2"]
    assert [request.key for request in again.requests()] == [spec.key for spec in specs[:3]]


def test_what_failed_transiently_is_tried_again(workspace, specs):
    catalog = make_catalog(workspace, specs[0], errors={specs[0].key: "OSError: a cable fell out"})
    assert prompts(Pending(catalog)) == ["p0"]


def test_a_failed_image_with_another_seed_is_a_replacement(workspace, specs):
    catalog = make_catalog(workspace, *specs[:2], records=[failed_record(specs[0])])
    first, second = Pending(catalog, retry_failed=True, reseed=True).requests()
    assert first.replaces == specs[0].key
    assert first.spec.seed == derive_seed(0, "reseed", 1)
    assert ImageSpec(**{**vars(first.spec), "seed": 0}) == specs[0]
    assert first.key == first.spec.key
    assert (second.key, second.replaces) == (specs[1].key, None)


def test_each_replacement_that_failed_too_leads_to_another_seed(workspace, specs):
    records, seeds = [failed_record(specs[0])], []
    for _ in range(3):
        catalog = make_catalog(workspace, specs[0], records=records)
        (request,) = Pending(catalog, retry_failed=True, reseed=True).requests()
        seeds.append(request.spec.seed)
        records.append(failed_record(request.spec, replaces=specs[0].key))
    assert seeds == [derive_seed(0, "reseed", attempt) for attempt in (1, 2, 3)]


def test_an_image_with_a_replacement_is_not_pending(workspace, specs):
    failed = failed_record(specs[0])
    store_image(workspace, image_spec(0, seed=99), replaces=failed.key)
    catalog = make_catalog(workspace, specs[0], records=[failed])
    for options in ({}, {"retry_failed": True}, {"retry_failed": True, "reseed": True}):
        assert prompts(Pending(catalog, **options)) == []


@pytest.mark.parametrize("options", [{}, {"retry_failed": True}, {"retry_failed": True, "reseed": True}])
def test_a_replacement_that_was_lost_is_made_again_with_its_own_seed(workspace, specs, options):
    other = image_spec(0, seed=99)
    records = [failed_record(specs[0]), image_record(other, status=Status.LOST, replaces=specs[0].key)]
    catalog = replace(make_catalog(workspace, specs[0]), index=record_index(workspace.records, records))
    (request,) = Pending(catalog, **options).requests()
    assert (request.spec, request.key, request.replaces) == (other, other.key, specs[0].key)


def test_a_run_may_make_only_some_of_the_images(workspace, specs):
    store_image(workspace, specs[1])
    catalog = make_catalog(workspace, *specs, specs[2], records=[failed_record(specs[3])])
    only = frozenset(specs[i].key for i in (1, 2, 3, 5))
    assert prompts(Pending(catalog, only=only)) == ["p2", "p5"]
    assert prompts(Pending(catalog, retry_failed=True, only=only)) == ["p2", "p3", "p5"]
    assert prompts(Pending(catalog, only=frozenset())) == []


def test_when_everything_is_made_again_only_images_of_this_run_are_done(workspace, specs):
    store_image(workspace, specs[0], run="old")
    store_image(workspace, specs[1], run="new")
    assert prompts(Pending(make_catalog(workspace, *specs[:2], only_run="new"))) == ["p0"]


def test_the_longest_prompt_is_measured_in_bytes_and_among_what_is_pending(workspace):
    specs = [
        image_spec(0, prompt="a long prompt"),
        image_spec(1, prompt="中文"),
        image_spec(2, negative_prompt="blurry"),
    ]
    store_image(workspace, specs[0])
    assert Pending(make_catalog(workspace, *specs)).longest_prompt() == 6
    assert Pending(make_catalog(workspace, *specs[:1])).longest_prompt() == 0
    assert Pending(make_catalog(workspace, image_spec(3, negative_prompt="blurred"))).longest_prompt() == 7


def requests(catalog, *specs, **options):
    again = frozenset(spec.key for spec in specs)
    return list(Pending(catalog, again=again, **options).requests())


def test_images_to_make_again_are_pending_whatever_there_is_of_them_and_no_others(workspace, specs):
    store_image(workspace, specs[0])
    store_image(workspace, specs[1])
    catalog = make_catalog(workspace, *specs[:4], records=[failed_record(specs[2])], run="new")
    made = requests(catalog, specs[1], specs[2], specs[3])
    assert [(request.spec, request.key, request.replaces) for request in made] == [
        (spec, spec.key, None) for spec in specs[1:4]
    ]
    assert requests(catalog) == []


def test_with_a_new_seed_each_time_another(workspace, specs):
    store_image(workspace, specs[0])
    seeds = []
    for attempt in (1, 2, 3):
        catalog = make_catalog(workspace, *specs[:2], run=f"run {attempt}")
        (request,) = requests(catalog, specs[0], reseed=True)
        assert (request.replaces, request.attempt) == (specs[0].key, attempt)
        seeds.append(request.spec.seed)
        store_image(workspace, request.spec, replaces=request.replaces, attempt=attempt, run=f"run {attempt}")
    assert seeds == [derive_seed(0, "reseed", attempt) for attempt in (1, 2, 3)]
    # A run after that keeps the last of them; and made again without a new seed, it is that very picture.
    catalog = make_catalog(workspace, *specs[:1], run="later")
    assert [picture.seed for picture in catalog.pictures()] == seeds[-1:]
    assert prompts(Pending(catalog)) == []
    (request,) = requests(catalog, specs[0])
    assert (request.spec.seed, request.replaces, request.attempt) == (seeds[-1], specs[0].key, 3)


def test_what_the_run_itself_made_is_not_made_once_more(workspace, specs):
    """Prefect may call the flow of a run again."""
    store_image(workspace, specs[0], run="this")
    store_image(workspace, specs[1], run="old")
    store_image(workspace, image_spec(1, seed=99), run="this", replaces=specs[1].key, attempt=1)
    catalog = make_catalog(workspace, *specs[:3], run="this")
    for reseed in (False, True):
        assert [request.spec.prompt for request in requests(catalog, *specs[:3], reseed=reseed)] == ["p2"]
