"""How often a value came before: prompts that are equal, keys that rows share."""

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.uint64]


class Occurrences:
    """The values seen so far, as numbers of 64 bits: eight bytes each, where a set of Python's takes a hundred."""

    def __init__(self) -> None:
        # Sorted, each at least twice as long as the next: a value is sorted again only a few times.
        self._seen: list[Numbers] = []

    def count(self, values: Numbers) -> npt.NDArray[np.int64]:
        """Return, for each of `values`, how often it was seen before: in earlier calls, and earlier in this one."""
        order = np.argsort(values, kind="stable")
        in_order = values[order]
        earlier = np.arange(len(values)) - np.searchsorted(in_order, in_order)
        for seen in self._seen:
            earlier += np.searchsorted(seen, in_order, "right") - np.searchsorted(seen, in_order)
        self._add(in_order)
        counts = np.empty(len(values), np.int64)
        counts[order] = earlier
        return counts

    def _add(self, values: Numbers) -> None:
        self._seen.append(values)
        while len(self._seen) > 1 and len(self._seen[-2]) < 2 * len(self._seen[-1]):
            last = self._seen.pop()
            self._seen[-1] = np.sort(np.concatenate([self._seen[-1], last]), kind="stable")


def numbers_of(keys: list[str]) -> Numbers:
    """Return the first 64 bits of keys in hexadecimal digits."""
    return np.frombuffer(bytes.fromhex("".join([key[:16] for key in keys])), ">u8").astype(np.uint64)
