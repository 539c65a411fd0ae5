"""How often a value came before is counted over all calls, as a plain counter would count it."""

from collections import Counter

import numpy as np
import pytest

from t2i_core.planning.occurrences import Occurrences, numbers_of


@pytest.mark.parametrize("different", [1, 7, 1000, 2**63])
def test_counts_are_those_of_a_counter(different):
    rng = np.random.default_rng(0)
    occurrences, counter = Occurrences(), Counter()
    for size in (1, 0, 5, 300, 2, 2, 1, 1000, 64):
        values = rng.integers(0, different, size, np.uint64)
        counted = occurrences.count(values).tolist()
        for value, count in zip(values.tolist(), counted, strict=True):
            assert count == counter[value]
            counter[value] += 1


def test_keys_are_told_apart_by_their_first_digits():
    keys = ["0" * 15 + "1" + "0" * 48, "f" * 64, "0" * 15 + "1" + "f" * 48]
    assert numbers_of(keys).tolist() == [1, 2**64 - 1, 1]
    assert numbers_of([]).tolist() == []
