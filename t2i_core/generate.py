"""A shard -> image records: draw what is missing batch by batch, and write each image while the next is drawn."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from t2i_core.drawing import Drawn, Model, Pixels, Timings
from t2i_core.errors import ImageFailure, Stopped
from t2i_core.images import pixels_digest, read_image, to_bytes, write_image
from t2i_core.records import ImageRecord
from t2i_core.shards import Order, Shard
from t2i_core.spec import ImageSpec
from t2i_core.store import Store
from t2i_core.writing import ImageWriter


@dataclass(frozen=True, slots=True, kw_only=True)
class Making:
    """What a shard's images have in common; goes into their records."""

    run: str
    refresh: bool
    model_name: str
    commit: str | None
    tuning: dict[str, Any]
    png_compress_level: int


@dataclass(frozen=True, slots=True)
class ShardResult:
    """A shard that was gone through: the records of its images, and where the time of those made now went."""

    records: list[ImageRecord]
    timings: dict[str, float]  # seconds by stage, added up over threads
    failures: dict[str, str]  # key -> why the image could not be made this time; without a record, it is tried again


def generate_shard(
    shard: Shard,
    store: Store,
    making: Making,
    load_model: Callable[[], Model],
    *,
    on_device: Callable[[Callable[[], ImageWriter]], ImageWriter],
    on_images: Callable[[int], None],
    should_stop: Callable[[], bool],
) -> ShardResult:
    """Make what of `shard` is not on disk yet; return the records of all its images.

    `load_model` is called only if something is missing; `on_images` is told how many images are done as they are.
    `on_device` runs the part that uses the device; it is over before the last images are written, so that the next
    shard can go on drawing. Idempotent: run again after a crash, it makes only what is missing.

    Raises:
        Stopped: within a denoising step; the batch in flight is dropped, what was drawn before it is written.
        OutputError: where no image can be written any more.
    """
    records, missing = _split(shard, store, making, should_stop)
    on_images(len(records))
    if not missing:
        return ShardResult(records, {}, {})
    timings = Timings()

    def draw() -> ImageWriter:
        model = load_model()
        write = partial(_write, store=store, making=making, model=model, timings=timings, on_images=on_images)
        writer = ImageWriter(write, pending=2 * shard.batch_size, timings=timings)
        batches = [[order.spec for order in orders] for orders in missing]
        drawing = model.draw(batches, shard.batch_size, should_stop, timings)
        with writer.draining_on_error():
            for orders, images in zip(missing, drawing, strict=True):
                for order, image in zip(orders, images, strict=True):
                    writer.submit(order, image)
        return writer

    writer = on_device(draw)
    failures: dict[str, str] = {}
    for order, outcome in writer.finish():
        if isinstance(outcome, Exception):
            failures[order.replaces or order.key] = f"{type(outcome).__name__}: {outcome}"
        else:
            records.append(outcome)
    return ShardResult(records, timings.totals(), failures)


def _split(
    shard: Shard, store: Store, making: Making, should_stop: Callable[[], bool]
) -> tuple[list[ImageRecord], list[list[Order]]]:
    """(records of the images that are on disk, batches of those that are not)."""
    records, missing = [], []
    for batch in shard.batches:
        if should_stop():
            raise Stopped
        stored = [_stored(order, store, making) for order in batch]
        records += [record for record in stored if record is not None]
        if None in stored:
            missing.append([order for order, record in zip(batch, stored, strict=True) if record is None])
    return records, missing


def _write(
    order: Order,
    drawn: Drawn | Exception,
    *,
    store: Store,
    making: Making,
    model: Model,
    timings: Timings,
    on_images: Callable[[int], None],
) -> ImageRecord:
    """Check one image and write it; its record, that of a failure where it will fail again.

    Raises:
        Exception: why the image could not be drawn or written this time.
    """
    try:
        if isinstance(drawn, Exception):
            raise drawn
        with timings.measure("waiting for the device"):
            image = drawn.pixels()
        with timings.measure("check"):
            pixels = _checked(image, order.spec)
            sha256 = pixels_digest(pixels)
        facts = _facts(order, making, model) | {
            "batch_size": drawn.batch_size,
            "seconds": round(drawn.seconds(), 4),
            "vae_tiling": drawn.vae_tiling or None,
            "prompt_lengths": [asdict(length) for length in drawn.prompt_lengths] or None,
        }
        record = ImageRecord(status="made", pixels_sha256=sha256, **facts)
        path = store.image_path(order.key)
        with timings.measure("encode PNG and write"):
            write_image(path, pixels, record.header(), making.png_compress_level)
        return _with_file(record.header(), path)
    except ImageFailure as failure:
        store.image_path(order.key).unlink(missing_ok=True)  # of an earlier run, where everything is made again
        return ImageRecord(status="failed", error=str(failure), **_facts(order, making, model))
    finally:
        on_images(1)


def _checked(image: Pixels, spec: ImageSpec) -> npt.NDArray[np.uint8]:
    """As bytes, after the checks."""
    if image.shape != (spec.height, spec.width, 3):
        raise ImageFailure(
            f"the model returned {image.shape[1]}x{image.shape[0]} pixels for {spec.width}x{spec.height}; "
            "ask for a size it takes"
        )
    return to_bytes(image)


def _facts(order: Order, making: Making, model: Model) -> dict[str, Any]:
    return {
        "key": order.key,
        "spec": order.spec.canonical(),
        "run": making.run,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "device": model.device,
        "versions": model.versions,
        "model_name": making.model_name,
        "commit": making.commit,
        "tuning": making.tuning or None,
        "replaces": order.replaces,
    }


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


def _with_file(header: dict[str, Any], path: Path) -> ImageRecord:
    status = path.stat()
    return ImageRecord(status="made", file_size=status.st_size, mtime_ns=status.st_mtime_ns, **header)
