"""Keys are looked up by bisection."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from t2i_core.storage.keys import as_keys, find

HEX = st.text("0123456789abcdef", min_size=64, max_size=64)


@given(st.sets(HEX), st.lists(HEX))
def test_every_key_is_found_where_it_is_and_no_other(known, asked):
    within = sorted(known)
    expected = [within.index(key) if key in known else -1 for key in [*asked, *within]]
    assert (
        find(as_keys(pa.array([*asked, *within], pa.string())), as_keys(pa.array(within, pa.string()))).tolist()
        == expected
    )


@pytest.mark.parametrize("value", [-5, 3, 99])
def test_a_value_beyond_the_ends_or_between_is_not_found(value):
    assert find(np.array([value]), np.array([1, 2, 4])).tolist() == [-1]
