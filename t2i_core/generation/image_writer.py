"""Writes generated images in threads, while the model generates the next batch: check, encode, write, record."""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from threading import BoundedSemaphore
from typing import Any

from t2i_core.errors import ImageFailure, UserError
from t2i_core.generation.health import checked_pixels
from t2i_core.generation.interface import GeneratedImage, ImageGenerator, Timings
from t2i_core.planning.pending import ImageRequest
from t2i_core.storage.files import naming
from t2i_core.storage.formats import Encoding, decode_image, encode_image, pixels_digest
from t2i_core.storage.image_store import ImageStore
from t2i_core.storage.records import ImageRecord, Status
from t2i_core.storage.thumbnail_store import ThumbnailWriter
from t2i_core.storage.thumbnails import make_thumbnail
from t2i_core.system_errors import as_user_error, is_lasting

# So often it is told that images still wait for a disk.
WAIT_SECONDS = 60.0
# Encoding and hashing release the GIL. More than four threads outpace any one GPU.
THREADS = min(4, os.cpu_count() or 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunContext:
    """What all images of a run have in common; it goes into their records.

    options: those that name what is loaded.
    sampler: the class of the model's own scheduler, for the texts that other tools read.
    """

    run: str
    refresh: bool
    model_name: str
    commit: str | None
    tuning: dict[str, Any]
    encoding: Encoding
    options: dict[str, Any] | None = None
    sampler: str | None = None
    thumbnails: bool = False  # a thumbnail of each image is written, too


@dataclass(frozen=True, slots=True)
class RecordWriter:
    """Turns one generated image into a stored file and a record."""

    images: ImageStore
    context: RunContext
    generator: ImageGenerator
    timings: Timings
    thumbnails: ThumbnailWriter | None = None

    def write(self, request: ImageRequest, generated: GeneratedImage) -> ImageRecord:
        """Check one image and write it. Return its record: that of a failure, where a check says it will fail again.

        Raises:
            Exception: whatever kept the image from being copied from the device, or written, this time.
        """
        try:
            with self.timings.measure("waiting for the device"):
                image = generated.pixels()
            with self.timings.measure("check"):
                pixels = checked_pixels(image, request.spec)
                sha256 = pixels_digest(pixels)
        except ImageFailure as failure:
            return self.record_failure(request, failure)
        header = ImageRecord(
            status=Status.MADE,
            pixels_sha256=sha256,
            batch_size=generated.batch_size,
            seconds=round(generated.seconds(), 4),
            vae_tiling=generated.vae_tiling or None,
            prompt_lengths=[asdict(length) for length in generated.prompt_lengths] or None,
            **self._facts(request),
        ).header()
        with self.timings.measure("encode and write"):
            encoding = self.context.encoding
            encoded = encode_image(pixels, header, encoding, self.context.sampler)
            file = self.images.write(request.key, encoded.data, encoding.format)
        if self.thumbnails is not None:
            with self.timings.measure("thumbnail"):
                self.thumbnails.add(make_thumbnail(pixels, sha256))
        return ImageRecord.from_header(encoded.record, file)

    def record_failure(self, request: ImageRequest, failure: ImageFailure) -> ImageRecord:
        """Return the record of an image that failed and will fail again; of a picture that another process made."""
        if (made := stored_record(request, self.images, self.context)) is not None:
            return made
        self.images.delete(request.key)  # a damaged one; or that of an earlier run, where everything is made again
        return failure_record(request, str(failure), self.context, self.generator.device, self.generator.versions)

    def finish(self) -> None:
        """Write what is left when all images are written."""
        if self.thumbnails is not None:
            self.thumbnails.close()

    def _facts(self, request: ImageRequest) -> dict[str, Any]:
        return _facts(request, self.context, self.generator.device, self.generator.versions)


def stored_record(request: ImageRequest, images: ImageStore, context: RunContext) -> ImageRecord | None:
    """Return the record of an image that is stored whole; with `refresh`, only if this run made it."""
    file, data = images.stat(request.key), images.read(request.key)
    image = None if data is None else decode_image(data)
    if file is None or image is None or image.record.get("key") != request.key:
        return None
    if context.refresh and image.record.get("run") != context.run:
        return None
    return ImageRecord.from_header(image.record, file)


def failure_record(
    request: ImageRequest, error: str, context: RunContext, device: str, versions: dict[str, str]
) -> ImageRecord:
    """Return the record of an image that failed and will fail again. `device`, `versions`: of the process."""
    return ImageRecord(status=Status.FAILED, error=error, **_facts(request, context, device, versions))


def _facts(request: ImageRequest, context: RunContext, device: str, versions: dict[str, str]) -> dict[str, Any]:
    return {
        "key": request.key,
        "spec": request.spec.canonical(),
        "run": context.run,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "device": device,
        "versions": versions,
        "model_name": context.model_name,
        "options": context.options,
        "commit": context.commit,
        "tuning": context.tuning or None,
        "replaces": request.replaces,
        "attempt": request.attempt,
    }


class ImageWriter:
    """Writes images in threads, `pending` at most at a time, so that pixels never pile up in memory."""

    def __init__(self, records: RecordWriter, pending: int, on_images: Callable[[int], None]) -> None:
        """`on_images` is told of each image once it is done, whatever became of it."""
        self._records = records
        self._on_images = on_images
        self._slots = BoundedSemaphore(pending)
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="write image")
        self._futures: list[tuple[ImageRequest, Future[ImageRecord]]] = []
        self._disk_error: UserError | None = None

    @contextmanager
    def draining_on_error(self) -> Iterator[None]:
        """Write what was handed in before, where the block ends early: for a stop or an error."""
        try:
            yield
        except BaseException:
            self._pool.shutdown(wait=True)
            self._records.finish()
            raise

    def submit(self, request: ImageRequest, generated: GeneratedImage | Exception) -> None:
        """Hand in an image, or the error in its place; waits while too many are pending.

        Raises:
            OutputError: once the disk is full, or the output cannot be written any more for another lasting reason.
        """
        with self._records.timings.measure("waiting for writers"):
            while not self._slots.acquire(timeout=WAIT_SECONDS):
                self._on_images(0)  # it is not the device that hangs
        if self._disk_error:
            self._slots.release()
            raise self._disk_error
        self._futures.append((request, self._pool.submit(self._write, request, generated)))

    def finish(self) -> tuple[list[ImageRecord], dict[str, str]]:
        """Wait for everything handed in; return (records, failures).

        `failures` holds the images without a record, which may succeed next time: the key that the data set asks for,
        and why it was not made.

        Raises:
            OutputError: likewise.
        """
        self._pool.shutdown(wait=True)
        self._records.finish()
        records, failures = [], {}
        for request, future in self._futures:
            error = future.exception()
            if error is None:
                records.append(future.result())
            elif isinstance(error, Exception):
                failures[request.replaces or request.key] = f"{type(error).__name__}: {error}"
            else:
                raise error
        if self._disk_error:
            raise self._disk_error
        return records, failures

    def _write(self, request: ImageRequest, generated: GeneratedImage | Exception) -> ImageRecord:
        try:
            if isinstance(generated, ImageFailure):
                return self._records.record_failure(request, generated)
            if isinstance(generated, Exception):
                raise generated
            with naming(self._records.images.root):
                return self._records.write(request, generated)
        except OSError as error:
            if is_lasting(error):  # every further image would meet it, too
                self._disk_error = as_user_error(error, {"output": Path("/")})  # whatever it names
            raise
        finally:
            self._on_images(1)
            self._slots.release()
