"""Near-duplicates among 64-bit hashes: found by bands, not by comparing all pairs."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

Hashes = npt.NDArray[np.uint64]
Index = npt.NDArray[np.int64]

BANDS, BAND_BITS = 4, 16
# Two hashes within this distance agree in a band but for one bit at most: 7 differences in 4 bands.
LARGEST_DISTANCE = 7


def near_duplicates(hashes: Hashes, distance: int) -> Index:
    """Return for each hash the index of the first one of its group; a group of one is its own first.

    A hash belongs to the group of a hash before it that differs in at most `distance` bits, if there is one. So each
    but the first of a group has one before it that is nearly equal, and the first has none.

    Memory grows with the number of hashes alone. Time grows with how many share a band and are not nearly equal.
    """
    assert 0 <= distance <= LARGEST_DISTANCE
    values, first, inverse = np.unique(hashes, return_index=True, return_inverse=True)
    order = np.argsort(first)  # of the different values, as they come
    values, rank = values[order], np.argsort(order)
    before = np.arange(len(values))  # of each value the place of one near it that comes before
    for buckets in _buckets(values, distance):
        _link_within(buckets, values, distance, before)
    while (jumped := before[before] != before).any():
        before[jumped] = before[before[jumped]]
    return first[order][before][rank[inverse]]


def _buckets(values: Hashes, distance: int) -> Iterator[npt.NDArray[np.uint16]]:
    """Yield numbers of buckets: any two values within `distance` share one at least."""
    for band in range(BANDS):
        bits = (values >> np.uint64(band * BAND_BITS)).astype(np.uint16)
        if distance < BANDS:
            yield bits
            continue
        for bit in range(BAND_BITS):
            yield bits & np.uint16(~(1 << bit) & 0xFFFF)


def _link_within(buckets: npt.NDArray[np.uint16], values: Hashes, distance: int, before: Index) -> None:
    """Compare values with those before them in the same bucket; note in `before` the first that is near.

    Values that are linked already are not compared again.
    """
    order = np.argsort(buckets, kind="stable")
    buckets, values = buckets[order], values[order]
    begins = np.flatnonzero(np.concatenate([np.ones(min(1, len(order)), bool), np.diff(buckets) != 0]))
    other = np.repeat(begins, np.diff(begins, append=len(order)))
    here = np.flatnonzero((before[order] == order) & (other < np.arange(len(order))))
    other = other[here]
    while len(here):
        near = np.bitwise_count(values[here] ^ values[other]) <= distance
        before[order[here[near]]] = order[other[near]]
        left = ~near & (other + 1 < here)
        here, other = here[left], other[left] + 1
