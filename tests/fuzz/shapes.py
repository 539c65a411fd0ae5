"""JSON of every shape, and files that somebody damaged or made up, for the tests that break things."""

from hypothesis import strategies as st

SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just("../../x") | st.just("/etc/x")
JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4)
)


@st.composite
def changed(draw, values):
    """A JSON object of ours with one value, at whatever depth, in another's place; or without it."""
    if not isinstance(values, dict | list) or not values or draw(st.integers(0, 3)) == 0:
        return draw(JSON)
    places = sorted(values) if isinstance(values, dict) else range(len(values))
    place = draw(st.sampled_from(list(places)))
    copy = dict(values) if isinstance(values, dict) else list(values)
    if draw(st.integers(0, 5)) == 0:
        del copy[place]
    else:
        copy[place] = draw(changed(values[place]))
    return copy


@st.composite
def damaged(draw, data):
    """Bytes of a file of ours that were cut, flipped or written over."""
    kind = draw(st.sampled_from(["cut", "flip", "over", "foreign"]))
    if kind == "foreign":
        return draw(st.binary(max_size=200))
    place = draw(st.integers(0, len(data) - 1))
    if kind == "cut":
        return data[:place]
    if kind == "flip":
        return data[:place] + bytes([data[place] ^ (1 << draw(st.integers(0, 7)))]) + data[place + 1 :]
    piece = draw(st.binary(min_size=1, max_size=20))
    return data[:place] + piece + data[place + len(piece) :]
