"""The images that a run still has to make."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from t2i_core.hashing import derive_seed
from t2i_core.planning.catalog import Catalog, CatalogChunk
from t2i_core.planning.growing import GrowingCatalog
from t2i_core.planning.occurrences import Occurrences, numbers_of
from t2i_core.planning.parts import Part
from t2i_core.spec import ImageSpec


@dataclass(frozen=True, slots=True)
class ImageRequest:
    """One image to make.

    `replaces`: the key of the image that this one, with a new seed, stands for. `attempt`: which new seed that is.
    """

    spec: ImageSpec
    key: str
    replaces: str | None = None
    attempt: int | None = None


@dataclass(frozen=True, slots=True)
class Pending:
    """The images without a picture. Those that failed before are left out, unless `retry_failed` asks for them."""

    catalog: Catalog | GrowingCatalog
    retry_failed: bool = False
    reseed: bool = False  # give failed images, or those of `again`, a new seed
    only: frozenset[str] | None = None  # leave out images whose key is not among them
    part: Part | None = None  # leave out images that fall to other parts
    # Make these again, whatever there is of them, and no others.
    again: frozenset[str] | None = None

    def chunks(self, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        """Yield columns of the image specs that are pending, in data-set order. Rows may share a key."""
        failed = pa.array([] if self.retry_failed else list(self.catalog.index.errors), pa.string())
        for chunk in self.catalog.chunks(columns):
            if self.again is not None:
                yield chunk.specs.filter(pa.array(self._to_make_again(chunk)))
                continue
            pending = pa.array(~chunk.present)
            if len(failed):
                pending = pc.and_not(pending, pc.is_in(chunk.specs["key"], value_set=failed))
            if self.only is not None:
                pending = pc.and_(pending, pc.is_in(chunk.specs["key"], value_set=pa.array(self.only, pa.string())))
            if self.part is not None:
                pending = pc.and_(pending, pa.array(self.part.has(chunk.specs["key"])))
            yield chunk.specs.filter(pending)

    def requests(self) -> Iterator[ImageRequest]:
        """Yield the images to make, each key once, in data-set order."""
        for chunk in self.distinct_chunks():
            for row in chunk.to_pylist():
                yield self._request(ImageSpec.from_row(row), row["key"])

    def distinct_chunks(self, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        """Yield the same as `chunks`, but of rows that share a key the first alone.

        Keys are compared by 64 bits: an image that has those of another, once in millions of runs, waits for the next
        run.
        """
        seen = Occurrences()
        for chunk in self.chunks(columns):
            counts = seen.count(numbers_of(chunk["key"].to_pylist()))
            yield chunk.filter(pa.array(counts == 0)) if counts.any() else chunk

    def first(self) -> ImageSpec:
        """Return the first image to make."""
        return next(self.requests()).spec

    def longest_prompt(self) -> int:
        """Return the bytes, in UTF-8, of the longest prompt or negative prompt; 0 where nothing is pending."""
        columns = ("prompt", "negative_prompt")
        lengths = (
            pc.max(pc.binary_length(chunk[column])).as_py()
            for chunk in self.chunks(["key", *columns])
            for column in columns
        )
        return max((length or 0 for length in lengths), default=0)

    def _to_make_again(self, chunk: CatalogChunk) -> npt.NDArray[np.bool_]:
        """Mark the images of `again` whose picture is not one of this very run: Prefect may start a run twice."""
        named = pc.is_in(chunk.specs["key"], value_set=pa.array(self.again, pa.string()))
        wanted: npt.NDArray[np.bool_] = np.array(named.to_pylist(), bool)
        if not wanted.any():
            return wanted
        assert isinstance(self.catalog, Catalog), "images are named of a plan that is whole"
        made = self.catalog.made_in_run()
        wanted[chunk.present] &= ~made[chunk.index[chunk.present]]
        return wanted

    def _request(self, spec: ImageSpec, key: str) -> ImageRequest:
        """Return the request for `key`: the image itself, its replacement once more, or its next replacement."""
        index = self.catalog.index
        attempt = index.attempt(key)
        if self.reseed and (self.again is not None or (key in index.errors and key not in index.replacements)):
            attempt = index.attempts[key] + 1
            seed = derive_seed(spec.seed, "reseed", attempt)
        elif key in index.replacements:
            seed = index.replacements[key][1]
        else:
            return ImageRequest(spec, key)
        other = replace(spec, seed=seed)
        return ImageRequest(other, other.key, replaces=key, attempt=attempt)
