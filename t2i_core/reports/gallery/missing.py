"""Thumbnails of pictures that have none yet: of an earlier version, or of a run that was killed."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from t2i_core.errors import DamagedImage
from t2i_core.generation.image_writer import THREADS
from t2i_core.reports.gallery.data import Source
from t2i_core.storage.formats import read_image
from t2i_core.storage.image_store import ImageStore
from t2i_core.storage.keys import as_keys
from t2i_core.storage.tables import read_chunks
from t2i_core.storage.thumbnail_store import CHUNK
from t2i_core.storage.thumbnails import Thumbnail, make_thumbnail

# (key, hash of the pixels) of a picture
Wanted = tuple[str, str]


def missing_thumbnails(source: Source) -> Iterator[Wanted]:
    """Yield the pictures without a thumbnail, in data-set order."""
    for chunk in read_chunks(source.table, ["key", "pixels_sha256", "path"]):
        hashes = as_keys(chunk["pixels_sha256"].fill_null(""))
        wanted = (source.thumbnails.find(hashes) < 0) & pc.is_valid(chunk["path"]).to_numpy(zero_copy_only=False)
        for row in chunk.filter(pa.array(wanted)).to_pylist():
            if row["pixels_sha256"] is not None:
                yield row["key"], row["pixels_sha256"]


def make_thumbnails(source: Source, wanted: Sequence[Wanted], on_images: Callable[[int], None]) -> None:
    """Make thumbnails in threads, a chunk in each. A picture that cannot be read gets none."""

    def make_chunk(part: Sequence[Wanted]) -> int:
        made = [_thumbnail(source.images, *item) for item in part]
        if found := [thumbnail for thumbnail in made if thumbnail is not None]:
            source.store.write(found)
        return len(part)

    waiting: deque[Future[int]] = deque()
    with ThreadPoolExecutor(THREADS, thread_name_prefix="thumbnail") as pool:
        for start in range(0, len(wanted), CHUNK):
            waiting.append(pool.submit(make_chunk, wanted[start : start + CHUNK]))
            if len(waiting) > 2 * THREADS:
                on_images(waiting.popleft().result())
        for future in waiting:
            on_images(future.result())


def _thumbnail(images: ImageStore, key: str, pixels_sha256: str) -> Thumbnail | None:
    data = images.read(key)
    if data is None:
        return None
    try:
        picture = read_image(data)
    except DamagedImage:
        return None
    return make_thumbnail(np.asarray(picture.image), pixels_sha256)
