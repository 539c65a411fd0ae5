"""What is pending -> batches of one shape -> shards; and how much work that is."""

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from t2i_core.planning.pending import ImageRequest, Pending
from t2i_core.planning.shards import Shard, WorkEstimate, estimate_work, make_shards, shard_sizes
from t2i_core.storage.workspace import Workspace
from tests.builders import failed_record, image_spec, make_catalog, record_index, store_image


@pytest.fixture
def workspace(tmp_path):
    return Workspace(tmp_path)


@pytest.fixture
def pending(workspace):
    """Specs, a row each -> those that are pending."""
    return lambda specs: Pending(make_catalog(workspace, *specs))


def shards(pending, batch_size=4, save_interval=2, workers=1):
    """Return the shards, after a look at whether the estimate tells what they hold."""
    work = estimate_work(pending, batch_size, save_interval, workers)
    sizes = shard_sizes(work.batches, save_interval, workers)
    result = list(make_shards(pending, batch_size, sizes, len(sizes)))
    assert sum(len(s.requests) for s in result) == work.images
    assert sum(len(s.batches) for s in result) == work.batches
    assert len(result) == work.shards
    assert [(s.number, s.total, s.batch_size) for s in result] == [
        (number, work.shards, batch_size) for number in range(1, work.shards + 1)
    ]
    return result


def prompts(shards):
    return [request.spec.prompt for shard in shards for request in shard.requests]


def sizes(shards):
    return [[len(batch) for batch in shard.batches] for shard in shards]


def test_at_first_everything_is_made_in_order(pending):
    result = shards(pending([image_spec(i) for i in range(10)]))
    assert prompts(result) == [f"p{i}" for i in range(10)]
    assert sizes(result) == [[4, 4], [2]]


def test_full_shards_leave_no_empty_one_behind(pending):
    assert sizes(shards(pending([image_spec(i) for i in range(16)]))) == [[4, 4], [4, 4]]


def test_shards_are_dense_whatever_is_known(workspace, pending):
    specs = [image_spec(i) for i in range(12)]
    for spec in specs[::2]:
        store_image(workspace, spec)
    result = shards(pending(specs))
    assert prompts(result) == [f"p{i}" for i in range(1, 12, 2)]
    assert sizes(result) == [[4, 2]]


def test_a_batch_has_one_set_of_call_arguments(pending):
    specs = [image_spec(i, steps=4 + i % 2, negative_prompt=None if i % 3 else "x") for i in range(24)]
    result = shards(pending(specs))
    assert sorted(prompts(result)) == sorted(spec.prompt for spec in specs)
    for shard in result:
        for batch in shard.batches:
            assert len({request.spec.call_group for request in batch}) == 1


def test_a_full_batch_goes_first_and_the_rest_in_the_order_of_their_shapes(pending):
    specs = [image_spec(i, height=8 + 8 * (i % 2)) for i in range(10)]
    result = shards(pending(specs), batch_size=4, save_interval=1)
    assert [[r.spec.seed for r in shard.requests] for shard in result] == [[0, 2, 4, 6], [1, 3, 5, 7], [8], [9]]


def test_a_key_that_rows_share_is_counted_and_made_once(pending):
    spec = image_spec(0)
    assert len(shards(pending([spec, image_spec(1), spec]))[0].requests) == 2


def test_nothing_pending_is_no_work(workspace, pending):
    spec = image_spec(0)
    store_image(workspace, spec)
    assert shards(pending([spec])) == []
    work = estimate_work(pending([spec]), 4, 2)
    assert work == WorkEstimate(images=0, batches=0, shards=0, batch_size=4, pixels=0, pixel_steps=0)
    assert work.padding == 0


def test_work_is_counted_in_pixels_and_steps_padding_included(pending):
    specs = [image_spec(i, height=16, steps=10) for i in range(5)] + [image_spec(9, steps=3, negative_prompt="x")]
    work = estimate_work(pending(specs), batch_size=4, save_interval=2)
    assert work == WorkEstimate(
        images=6,
        batches=3,  # 4 + 1 and 1
        shards=2,
        batch_size=4,
        pixels=5 * 16 * 8 + 8 * 8,
        pixel_steps=2 * 4 * 16 * 8 * 10 + 1 * 4 * 8 * 8 * 3,
    )
    assert work.padding == pytest.approx(0.5)


def test_a_replacement_is_work_like_the_image_that_failed(workspace):
    spec = image_spec(0)
    catalog = make_catalog(workspace, spec)
    again = replace(catalog, index=record_index(workspace.records, [failed_record(spec)]))
    assert shards(Pending(again)) == []
    ((request,),) = (shard.requests for shard in shards(Pending(again, retry_failed=True, reseed=True)))
    assert request.replaces == spec.key


SPECS = st.builds(
    image_spec,
    st.integers(0, 30),
    height=st.sampled_from([8, 16]),
    steps=st.sampled_from([1, 2]),
    guidance_scale=st.sampled_from([None, 1.0, 3.5]),
    negative_prompt=st.sampled_from([None, "", "x"]),
)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(SPECS, max_size=40), st.integers(1, 5), st.integers(1, 4), st.integers(1, 3))
def test_the_estimate_is_what_is_made(pending, specs, batch_size, save_interval, workers):
    result = shards(pending(specs), batch_size, save_interval, workers)
    assert sorted(request.key for shard in result for request in shard.requests) == sorted({s.key for s in specs})
    assert all(1 <= len(batch) <= batch_size for shard in result for batch in shard.batches)


@pytest.fixture
def batches():
    """Two batches of two images."""
    requests = [ImageRequest(spec, spec.key) for spec in map(image_spec, range(4))]
    return tuple(requests[:2]), tuple(requests[2:])


def test_a_shard_is_named_by_what_it_makes_not_by_its_number(batches):
    assert Shard(1, 2, 2, batches).digest == Shard(2, 5, 2, batches).digest
    assert Shard(1, 2, 2, batches[:1]).digest != Shard(1, 2, 2, batches[1:]).digest


def test_a_shard_is_named_by_its_batches_too(batches):
    """Its result says which batch each image was made in."""
    (one, two), (three, four) = batches
    names = {
        Shard(1, 1, 2, batches).digest,
        Shard(1, 1, 4, batches).digest,  # another batch size
        Shard(1, 1, 4, ((one, two, three, four),)).digest,
        Shard(1, 1, 2, ((two, one), (three, four))).digest,
        Shard(1, 1, 2, (*batches[1:], *batches[:1])).digest,
    }
    assert len(names) == 5


def test_a_shard_lists_its_images_in_order(batches):
    assert Shard(1, 1, 2, batches).requests == [*batches[0], *batches[1]]


def test_the_digest_of_a_shard_is_a_promise(batches):
    """Stored results are found again by it after an update."""
    assert Shard(1, 1, 2, batches).digest == "e1f0a6d880a64aa8120b62f1678bbe1156e0ea1e9ab2a841b457f725c248c54b"


@pytest.mark.parametrize(("workers", "sizes"), [(1, [10, 10, 5]), (2, [3, 2, 2, 2, 2] + [1] * 14), (8, [1] * 25)])
def test_for_several_workers_the_last_shards_are_smaller(workers, sizes):
    assert shard_sizes(25, 10, workers) == sizes


@given(st.integers(2, 16), st.integers(3, 400))
def test_the_first_process_that_is_ready_takes_no_more_than_its_share(workers, batches_each):
    batches = workers * batches_each + workers // 2
    assert sum(shard_sizes(batches, 1000, workers)[:3]) <= batches / workers


def test_a_shard_is_halved_down_to_one_image(batches):
    shard = Shard(3, 5, 2, batches)
    first, second = shard.halves()
    assert (first.batches, second.batches) == (batches[:1], batches[1:])
    assert [half.batches for half in first.halves()] == [((request,),) for request in batches[0]]
    assert (first.number, first.total, first.batch_size) == (3, 5, 2)


def test_of_three_images_in_a_batch_none_is_lost_in_halves(batches):
    three = (*batches[0], batches[1][0])
    halves = Shard(1, 1, 4, (three,)).halves()
    assert [len(half.requests) for half in halves] == [1, 2]
    assert [request for half in halves for request in half.requests] == list(three)
