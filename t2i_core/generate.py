"""A shard -> image records: call the model batch by batch, check, write each image as soon as its batch is done."""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import numpy.typing as npt

from t2i_core.errors import ImageFailure, Stopped, UserError
from t2i_core.images import pixels_digest, read_image, to_bytes, write_image
from t2i_core.records import ImageRecord
from t2i_core.shards import Order, Shard
from t2i_core.spec import ImageSpec
from t2i_core.store import Store

log = logging.getLogger(__name__)

# specs of one call group, batch size, "stop now?" -> float pixels (len(specs), height, width, 3) in 0..1
CallModel = Callable[[Sequence[ImageSpec], int, Callable[[], bool]], npt.NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class Weights:
    """Where a worker finds the model, and how to load it; equal values share one model in memory."""

    path: str
    dtype: str
    device: str
    scheduler: str | None = None
    adapters: tuple[tuple[str, float], ...] = ()  # (local file, weight)


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model in memory: how to call it, and what its records say of where it ran."""

    call: CallModel
    device: str
    versions: dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Making:
    """What a shard's images have in common; goes into their records."""

    run: str
    refresh: bool
    model_name: str
    commit: str | None
    png_compress_level: int


class ShardIncomplete(Exception):
    """Some images of a shard could not be made for a reason that may pass; those that could are on disk.

    `failures` maps keys to reasons, lasting ones among them. One positional argument, so that the error survives a
    process border.
    """

    def __init__(self, failures: dict[str, str]) -> None:
        super().__init__(failures)
        self.failures = failures

    def __str__(self) -> str:
        return f"{len(self.failures)} images not made: {next(iter(self.failures.values()))}"


def generate_shard(
    shard: Shard,
    store: Store,
    making: Making,
    load_model: Callable[[], LoadedModel],
    *,
    on_images: Callable[[int], None],
    should_stop: Callable[[], bool],
) -> list[ImageRecord]:
    """Make what of `shard` is not on disk yet; return the records of all its images.

    `load_model` is called only if something is missing; `on_images` is told how many images are
    done as they are. Idempotent: run again after a crash, it makes only what is missing.

    Raises:
        ShardIncomplete: after the last batch, where some failed for a reason that may pass.
        Stopped: within a denoising step; the batch in flight is dropped.
    """
    records: list[ImageRecord] = []
    failures: dict[str, str] = {}
    for batch in shard.batches:
        if should_stop():
            raise Stopped
        missing = []
        for order in batch:
            stored = _stored(order, store, making)
            if stored is None:
                missing.append(order)
            else:
                records.append(stored)
        on_images(len(batch) - len(missing))
        if not missing:
            continue
        model = load_model()
        try:
            made = _make(missing, shard.batch_size, store, making, model, should_stop)
        except (Stopped, UserError):
            raise
        except Exception as error:
            # Whatever a library raised concerns this batch: reported for each of its images, and the next goes on.
            log.warning("batch of %d images failed: %s", len(missing), error)
            failures |= {order.replaces or order.key: f"{type(error).__name__}: {error}" for order in missing}
        else:
            records += made
        on_images(len(missing))
    if failures:
        lasting = {record.replaces or record.key: record.error for record in records if record.error}
        raise ShardIncomplete(failures | lasting)
    return records


def _make(
    orders: Sequence[Order],
    batch_size: int,
    store: Store,
    making: Making,
    model: LoadedModel,
    should_stop: Callable[[], bool],
) -> list[ImageRecord]:
    started = time.perf_counter()
    images = model.call([order.spec for order in orders], batch_size, should_stop)
    seconds = (time.perf_counter() - started) / len(orders)
    records = []
    for order, image in zip(orders, images, strict=True):
        spec = order.spec
        facts: dict[str, Any] = {
            "key": order.key,
            "spec": spec.canonical(),
            "run": making.run,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "batch_size": batch_size,
            "seconds": round(seconds, 4),
            "device": model.device,
            "versions": model.versions,
            "model_name": making.model_name,
            "commit": making.commit,
            "replaces": order.replaces,
        }
        try:
            if image.shape != (spec.height, spec.width, 3):
                raise ImageFailure(
                    f"the model returned {image.shape[1]}x{image.shape[0]} pixels for {spec.width}x{spec.height}; "
                    "ask for a size it takes"
                )
            pixels = to_bytes(image)
        except ImageFailure as failure:
            store.image_path(order.key).unlink(missing_ok=True)  # of an earlier run, where everything is made again
            records.append(ImageRecord(status="failed", error=str(failure), **facts))
            continue
        record = ImageRecord(status="made", pixels_sha256=pixels_digest(pixels), **facts)
        path = store.image_path(order.key)
        write_image(path, pixels, record.header(), making.png_compress_level)
        records.append(_with_file(record.header(), path))
    return records


def _stored(order: Order, store: Store, making: Making) -> ImageRecord | None:
    """The record of an image that is on disk already, whole and of this run if everything is to be made again."""
    path = store.image_path(order.key)
    if not path.exists():
        return None
    image = read_image(path)
    if image is None or image.record.get("key") != order.key:
        return None
    if making.refresh and image.record.get("run") != making.run:
        return None
    return _with_file(image.record, path)


def _with_file(header: dict[str, Any], path: Any) -> ImageRecord:
    status = path.stat()
    return ImageRecord(status="made", file_size=status.st_size, mtime_ns=status.st_mtime_ns, **header)
