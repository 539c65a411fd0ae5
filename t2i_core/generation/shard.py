"""A shard -> image records: generate what is missing, and write each image while the next batch is generated."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from t2i_core.errors import Stopped
from t2i_core.generation.image_writer import ImageWriter, RecordWriter, RunContext, stored_record
from t2i_core.generation.interface import ImageGenerator, OnStep, Timings
from t2i_core.planning.pending import ImageRequest
from t2i_core.planning.shards import Shard
from t2i_core.storage.image_store import ImageStore
from t2i_core.storage.records import ImageRecord
from t2i_core.storage.thumbnail_store import ThumbnailStore, ThumbnailWriter


@dataclass(frozen=True, slots=True)
class ShardResult:
    """What became of a shard."""

    records: list[ImageRecord]
    timings: dict[str, float]  # seconds by stage, added up over threads
    failures: dict[str, str]  # key -> why the image could not be made this time; without a record, it is tried again


@dataclass(frozen=True, slots=True)
class Hooks:
    """What the process that runs a shard provides.

    `on_device` runs the part that uses the device. It is over before the last images are written, so that the next
    shard can go on generating. `on_images` is told how many images are done, as they are; `on_step` of each denoising
    step of the batch in flight.
    """

    on_device: Callable[[Callable[[], ImageWriter]], ImageWriter]
    on_images: Callable[[int], None]
    on_step: OnStep
    should_stop: Callable[[], bool]


def generate_shard(
    shard: Shard, images: ImageStore, context: RunContext, load_model: Callable[[], ImageGenerator], hooks: Hooks
) -> ShardResult:
    """Make what of `shard` is not stored yet; return the records of all its images.

    `load_model` is called only if something is missing. Idempotent: run again after a crash, it makes only what is
    missing.

    Raises:
        Stopped: within a denoising step; the batch in flight is dropped, what was generated before it is written.
        OutputError: where no image can be written any more.
    """
    records, missing = _split(shard, images, context, hooks.should_stop)
    hooks.on_images(len(records))
    if not missing:
        return ShardResult(records, {}, {})
    timings = Timings()

    def generate() -> ImageWriter:
        model = load_model()
        thumbnails = ThumbnailWriter(ThumbnailStore(images.root)) if context.thumbnails else None
        records = RecordWriter(images, context, model, timings, thumbnails)
        writer = ImageWriter(records, 2 * shard.batch_size, hooks.on_images)
        batches = [[request.spec for request in requests] for requests in missing]
        with writer.draining_on_error():
            generated = model.generate(batches, shard.batch_size, hooks.should_stop, timings, hooks.on_step)
            for requests, results in zip(missing, generated, strict=True):
                for request, result in zip(requests, results, strict=True):
                    writer.submit(request, result)
        return writer

    made, failures = hooks.on_device(generate).finish()
    return ShardResult(records + made, timings.totals(), failures)


def _split(
    shard: Shard, images: ImageStore, context: RunContext, should_stop: Callable[[], bool]
) -> tuple[list[ImageRecord], list[Sequence[ImageRequest]]]:
    """Return (records of the images that are stored, batches of those that are not).

    Raises:
        Stopped: between two batches.
    """
    records: list[ImageRecord] = []
    missing: list[Sequence[ImageRequest]] = []
    for batch in shard.batches:
        if should_stop():
            raise Stopped
        stored = {request.key: stored_record(request, images, context) for request in batch}
        records += [record for record in stored.values() if record is not None]
        if not_stored := [request for request in batch if stored[request.key] is None]:
            missing.append(not_stored)
    return records, missing
