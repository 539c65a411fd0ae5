"""The images that a run still has to make."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.compute as pc

from t2i_core.hashing import derive_seed
from t2i_core.planning.catalog import Catalog
from t2i_core.planning.parts import Part
from t2i_core.spec import ImageSpec


@dataclass(frozen=True, slots=True)
class ImageRequest:
    """One image to make. `replaces`: the key of the failed image that this one, with a new seed, stands for."""

    spec: ImageSpec
    key: str
    replaces: str | None = None


@dataclass(frozen=True, slots=True)
class Pending:
    """The images without a picture. Those that failed before are left out, unless `retry_failed` asks for them."""

    catalog: Catalog
    retry_failed: bool = False
    reseed: bool = False  # give failed images a new seed
    only: frozenset[str] | None = None  # leave out images whose key is not among them
    part: Part | None = None  # leave out images that fall to other parts

    def chunks(self, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        """Yield columns of the image specs that are pending, in data-set order. Rows may share a key."""
        failed = pa.array([] if self.retry_failed else list(self.catalog.index.errors), pa.string())
        for chunk in self.catalog.chunks(columns):
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
        seen: set[bytes] = set()  # 32 bytes a key, only of what is pending
        for chunk in self.chunks():
            for row in chunk.to_pylist():
                key = bytes.fromhex(row["key"])
                if key not in seen:
                    seen.add(key)
                    yield self._request(ImageSpec.from_row(row), row["key"])

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

    def _request(self, spec: ImageSpec, key: str) -> ImageRequest:
        """Return the request for `key`: the image itself, its replacement once more, or its next replacement."""
        index = self.catalog.index
        if key in index.replacements:
            seed = index.replacements[key][1]
        elif self.reseed and key in index.errors:
            seed = derive_seed(spec.seed, "reseed", index.attempts[key] + 1)
        else:
            return ImageRequest(spec, key)
        other = replace(spec, seed=seed)
        return ImageRequest(other, other.key, replaces=key)
