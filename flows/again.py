"""Making some images again: what is said where that did not succeed."""

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from t2i_core.planning.catalog import Catalog


@dataclass(frozen=True, slots=True)
class NotMade:
    """The images that were to be made again, and were not."""

    count: int
    message: str


def not_made_again(catalog: Catalog, again: frozenset[str]) -> NotMade | None:
    """Return what became of images that the run was to make again and did not make; None where it made all."""
    left: list[str] = []
    made, wanted = catalog.made_in_run(), pa.array(again, pa.string())
    for chunk in catalog.chunks([]):
        done = chunk.present.copy()
        done[chunk.present] = made[chunk.index[chunk.present]]
        missing = pc.and_not(pc.is_in(chunk.specs["key"], value_set=wanted), pa.array(done))
        left += chunk.specs["key"].filter(missing).to_pylist()
    if not left:
        return None
    reasons = [_reason(catalog, key) for key in left]
    reason = next((reason for reason in reasons if reason), "run again")
    message = f"{len(left)} of {len(again)} images were not made again, and stay as they were: {reason}"
    return NotMade(len(left), message)


def _reason(catalog: Catalog, key: str) -> str | None:
    index = catalog.index
    return catalog.errors.get(key) or index.errors.get(key) or index.replacement_errors.get(key)
