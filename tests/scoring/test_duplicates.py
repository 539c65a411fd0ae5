"""Near-duplicates among hashes: what is found by bands is what comparing all pairs finds."""

import numpy as np
import pytest

from t2i_core.scoring.duplicates import LARGEST_DISTANCE, near_duplicates


def some_hashes(seed):
    """Return hashes, copies of some with 0 to 9 bits changed, in any order."""
    random = np.random.default_rng(seed)
    hashes = random.integers(0, 2**63, 120, np.uint64) * np.uint64(2)
    near = np.concatenate([hashes[:30]] * 3)
    for place, bits in enumerate(random.integers(0, 10, len(near))):
        for bit in random.choice(64, bits, replace=False):
            near[place] ^= np.uint64(1 << int(bit))
    return random.permutation(np.concatenate([hashes, near]))


@pytest.mark.parametrize("distance", range(LARGEST_DISTANCE + 1))
def test_an_image_is_a_duplicate_exactly_if_one_before_it_is_near(distance):
    hashes = some_hashes(distance)
    first = near_duplicates(hashes, distance)
    near = np.bitwise_count(hashes[:, None] ^ hashes[None]) <= distance
    assert ((first != np.arange(len(hashes))) == np.tril(near, -1).any(axis=1)).all()
    assert (first[first] == first).all()  # the first of a group is its own
    assert (first <= np.arange(len(hashes))).all()
    for place, other in enumerate(first):  # one that is near, of the same group, comes before every duplicate
        assert place == other or (near[place, :place] & (first[:place] == other)).any()


def test_equal_hashes_are_one_group_and_no_hashes_are_none():
    assert near_duplicates(np.array([5, 9 << 40, 5, 5], np.uint64), 0).tolist() == [0, 1, 0, 0]
    assert near_duplicates(np.array([0, 2**64 - 1], np.uint64), 7).tolist() == [0, 1]
    assert near_duplicates(np.empty(0, np.uint64), 6).tolist() == []
