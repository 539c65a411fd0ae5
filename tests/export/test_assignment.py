"""Shards that images stay in."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from t2i_core.export.assignment import assign, read_assignment, write_assignment


def placed(ids, previous=(), capacity=3, content=lambda entry: entry):
    """The ids in each shard, and the digests of the shards, after an export of `ids`."""
    column = np.array([entry.encode() for entry in ids], "S40")
    digests = np.array([content(entry).encode() for entry in ids], "S32")
    before = {"train": [np.array([entry.encode() for entry in shard], "S40") for shard in previous]}
    shards = assign(column, np.zeros(len(ids), np.int8), ("train",), digests, capacity, "settings", before)
    assert [shard.number for shard in shards] == list(range(len(shards)))
    return [[ids[member] for member in shard.members] for shard in shards], [shard.digest for shard in shards]


def test_shards_are_filled_in_data_set_order():
    assert placed("abcdefgh")[0] == [list("abc"), list("def"), list("gh")]


def test_new_images_fill_the_last_shard_and_then_new_ones_wherever_they_are_in_the_data_set():
    before, digests = placed("abcdefgh")
    after, new = placed("xyabcdefghz", before)
    assert after == [list("abc"), list("def"), list("ghx"), list("yz")]
    assert new[:2] == digests[:2]


def test_new_images_take_the_places_of_dropped_ones():
    before, digests = placed("abcdefgh")
    after, new = placed("acdefghxy", before)
    assert after == [list("acx"), list("def"), list("ghy")]
    assert new[1] == digests[1]


def test_a_shard_that_was_left_smaller_is_not_written_again_for_a_new_image():
    before, _ = placed("acdefgh", [list("abc"), list("def"), list("gh")])
    assert before == [list("ac"), list("def"), list("gh")]
    assert placed("acdefghx", before)[0] == [list("ac"), list("def"), list("ghx")]


def test_a_shard_that_lost_all_images_gets_those_of_the_last_one_unchanged():
    before, digests = placed("abcdefgh")
    after, new = placed("defgh", before)
    assert after == [list("gh"), list("def")]
    assert new == [digests[2], digests[1]]
    assert placed("gh", before)[0] == [list("gh")]


def test_an_order_of_rows_that_changes_moves_no_image():
    before, digests = placed("abcdefgh")
    assert placed("hgfedcba", before) == (before, digests)


def test_a_row_that_changes_changes_its_shard_alone():
    _, digests = placed("abcdefgh")
    _, new = placed("abcdefgh", [list("abc"), list("def"), list("gh")], content=lambda entry: entry.replace("e", "E"))
    assert [one == other for one, other in zip(digests, new, strict=True)] == [True, False, True]


@given(st.lists(st.sets(st.integers(0, 30), min_size=1), min_size=1, max_size=6), st.integers(1, 5))
def test_over_many_exports_every_image_is_in_one_shard_and_none_moves_for_another(exports, capacity):
    shards = []
    for wanted in exports:
        ids = [f"{number:02d}" for number in sorted(wanted)]
        home = {entry: set(shard) for shard in shards for entry in shard}
        shards, _ = placed(ids, shards, capacity)
        assert sorted(entry for shard in shards for entry in shard) == ids
        assert all(0 < len(shard) <= capacity for shard in shards)
        for shard in shards:
            stayed = [entry for entry in shard if entry in home]
            assert all(home[entry] == home[stayed[0]] for entry in stayed)


def test_the_assignment_is_read_as_it_was_written(tmp_path):
    ids = np.array([b"a", b"b", b"c", b"d"], "S40")
    split = np.array([0, 1, 0, 0], np.int8)
    shards = assign(ids, split, ("train", "val"), ids, 2, "", {})
    write_assignment(tmp_path / "shards.parquet", shards, ("train", "val"), ids)
    found = read_assignment(tmp_path / "shards.parquet")
    assert {name: [shard.tolist() for shard in own] for name, own in found.items()} == {
        "train": [[b"a", b"c"], [b"d"]],
        "val": [[b"b"]],
    }
    assert read_assignment(tmp_path / "none.parquet") == {}


@pytest.mark.parametrize("settings", ["one", "two"])
def test_what_all_shards_depend_on_is_in_their_digests(settings):
    ids = np.array([b"a"], "S40")
    (shard,) = assign(ids, np.zeros(1, np.int8), ("train",), ids, 2, settings, {})
    (same,) = assign(ids, np.zeros(1, np.int8), ("train",), ids, 2, "one", {})
    assert (shard.digest == same.digest) is (settings == "one")
