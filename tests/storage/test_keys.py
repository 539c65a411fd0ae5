"""Keys are looked up by bisection."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from t2i_core.storage.keys import KEY, as_keys, find

HEX = st.text("0123456789abcdef", min_size=64, max_size=64)


def column(keys):
    return as_keys(pa.array(keys, pa.string()))


@settings(deadline=None)
@given(st.sets(HEX), st.lists(HEX))
def test_every_key_is_found_where_it_is_and_no_other(known, asked):
    within = sorted(known)
    expected = [within.index(key) if key in known else -1 for key in [*asked, *within]]
    assert find(column([*asked, *within]), column(within)).tolist() == expected


@pytest.mark.parametrize("value", [-5, 3, 99])
def test_a_value_beyond_the_ends_or_between_is_not_found(value):
    assert find(np.array([value]), np.array([1, 2, 4])).tolist() == [-1]


def test_nothing_is_found_in_nothing():
    assert find(np.array([7, 8]), np.array([], int)).tolist() == [-1, -1]
    assert find(np.array([], int), np.array([7])).tolist() == []


def test_a_key_costs_64_bytes_and_no_object():
    keys = column(["0" * 64, "f" * 64])
    assert keys.dtype == KEY
    assert keys.nbytes == 128
    assert column([]).dtype == KEY
