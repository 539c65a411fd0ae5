"""What is written of a generated image: the file, the record, and an error in the place of either."""

import errno
import threading
from dataclasses import replace

import numpy as np
import pytest

from t2i_core.errors import ImageFailure, OutputError
from t2i_core.generation import image_writer
from t2i_core.generation.image_writer import ImageWriter, RecordWriter, RunContext
from t2i_core.generation.interface import GeneratedImage, TextLength, Timings
from t2i_core.planning.pending import ImageRequest
from t2i_core.spec import ImageSpec
from t2i_core.storage.formats import Encoding, decode_image, pixels_digest
from t2i_core.storage.image_store import ImageStore
from t2i_core.storage.records import Status
from tests.builders import rounded

CONTEXT = RunContext(
    run="r1",
    refresh=False,
    model_name="owner/name",
    commit="c" * 40,
    tuning={"offload": "group"},
    encoding=Encoding(),
)
SPEC = ImageSpec(model="m", prompt="a fox", seed=3, height=8, width=16, steps=2, dtype="float32")
REQUEST = ImageRequest(SPEC, SPEC.key)
PIXELS = np.linspace(0, 1, 8 * 16 * 3, dtype=np.float32).reshape(8, 16, 3)
SECONDS = 20


class FakeGenerator:
    device, versions = "a card", {"torch": "2.9"}


def generated(pixels=lambda: rounded(PIXELS), **values):
    return GeneratedImage(pixels, **{"seconds": lambda: 0.25, "batch_size": 4, "vae_tiling": False} | values)


@pytest.fixture
def images(tmp_path):
    return ImageStore(tmp_path)


@pytest.fixture
def records(images):
    return RecordWriter(images, CONTEXT, FakeGenerator(), Timings())


@pytest.fixture
def writer(records):
    return ImageWriter(records, pending=2, on_images=lambda count: None)


def test_the_record_tells_what_was_asked_for_by_what_it_was_made_and_where_it_is(images, records):
    lengths = [TextLength("CLIPTextModel", 80, 77, "the rest", 2, 0.5)]
    record = records.write(REQUEST, generated(vae_tiling=True, prompt_lengths=lengths))
    stored = images.stat(SPEC.key)
    assert record.status == Status.MADE
    assert (record.key, record.spec) == (SPEC.key, SPEC.canonical())
    assert (record.run, record.model_name, record.commit) == ("r1", "owner/name", "c" * 40)
    assert (record.device, record.versions, record.tuning) == ("a card", {"torch": "2.9"}, {"offload": "group"})
    assert (record.batch_size, record.seconds, record.vae_tiling) == (4, 0.25, True)
    length = {"encoder": "CLIPTextModel", "tokens": 80, "limit": 77, "cut": "the rest", "unknown": 2, "unread": 0.5}
    assert record.prompt_lengths == [length]
    assert (record.file_size, record.mtime_ns) == (stored.size, stored.mtime_ns)
    assert record.error is None
    assert record.replaces is None


def test_the_file_holds_the_pixels_and_everything_that_is_known_before_it_is_written(images, records):
    record = records.write(REQUEST, generated())
    image = decode_image(images.read(SPEC.key))
    assert image.pixels_sha256 == pixels_digest((PIXELS * 255).round().astype(np.uint8)) == record.pixels_sha256
    assert image.record == record.header()
    assert "vae_tiling" not in image.record  # only where memory forced it
    assert "prompt_lengths" not in image.record


def test_no_tuning_is_none_in_the_record(images):
    context = replace(CONTEXT, tuning={}, commit=None)
    record = RecordWriter(images, context, FakeGenerator(), Timings()).write(REQUEST, generated())
    assert record.tuning is None
    assert "tuning" not in record.header()


def test_a_replacement_names_the_image_it_stands_for(records, images):
    record = records.write(replace(REQUEST, replaces="a" * 64), generated())
    assert record.replaces == "a" * 64
    assert decode_image(images.read(SPEC.key)).record["replaces"] == "a" * 64


BLACK_OUT = lambda: rounded(np.full((8, 16, 3), np.nan, np.float32))  # noqa: E731


@pytest.mark.parametrize("before", ["none", "damaged", "of an earlier run, where all are made again"])
def test_the_record_of_a_failure_says_why_and_leaves_no_file(images, records, before):
    if before == "damaged":
        images.write(SPEC.key, b"torn", "png")
    elif before != "none":
        records.write(REQUEST, generated())
        records = replace(records, context=replace(CONTEXT, run="r2", refresh=True))
    record = records.write(REQUEST, generated(BLACK_OUT))
    assert record.status == Status.FAILED
    assert "NaN" in record.error
    assert (record.key, record.spec, record.run) == (SPEC.key, SPEC.canonical(), records.context.run)
    assert record.file_size is None
    assert images.read(SPEC.key) is None


def test_a_failure_does_not_take_away_what_another_process_made_meanwhile(images, records):
    made = RecordWriter(images, replace(CONTEXT, run="another"), FakeGenerator(), Timings()).write(REQUEST, generated())
    assert records.write(REQUEST, generated(BLACK_OUT)) == made
    assert images.read(SPEC.key) is not None


def test_waiting_for_a_disk_that_hangs_is_told_of(records, monkeypatch):
    monkeypatch.setattr(image_writer, "WAIT_SECONDS", 0.02)
    told, disk = [], threading.Event()

    def on_images(count):
        told.append(count)
        if told.count(0) == 2:
            disk.set()

    def slow():
        assert disk.wait(SECONDS)
        return rounded(PIXELS)

    writer = ImageWriter(records, pending=1, on_images=on_images)
    for _ in range(2):
        writer.submit(REQUEST, generated(slow))
    writer.finish()
    assert (told.count(0) >= 2, told.count(1)) == (True, 2)


def test_an_error_of_the_device_is_no_record(images, records):
    def lost():
        raise RuntimeError("the device is gone")

    with pytest.raises(RuntimeError, match="the device is gone"):
        records.write(REQUEST, generated(lost))
    assert images.read(SPEC.key) is None


def test_finish_returns_records_and_failures(writer):
    other = replace(SPEC, seed=4)
    writer.submit(REQUEST, generated())
    writer.submit(ImageRequest(other, other.key), RuntimeError("busy"))
    records, failures = writer.finish()
    assert [record.key for record in records] == [SPEC.key]
    assert failures == {other.key: "RuntimeError: busy"}


def test_a_permanent_failure_of_the_model_is_a_record(writer):
    writer.submit(REQUEST, ImageFailure("does not fit alone"))
    (record,), failures = writer.finish()
    assert (record.status, record.error) == (Status.FAILED, "does not fit alone")
    assert failures == {}


def test_what_is_no_exception_of_an_image_ends_the_shard(writer):
    def pixels():
        raise KeyboardInterrupt

    writer.submit(REQUEST, generated(pixels))
    with pytest.raises(KeyboardInterrupt):
        writer.finish()


@pytest.mark.parametrize(
    "number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENAMETOOLONG, errno.ELOOP]
)
def test_once_the_disk_takes_nothing_more_no_further_image_is_taken(writer, images, monkeypatch, number):
    def write(store, key, data, format):
        raise OSError(number, "no")

    monkeypatch.setattr(ImageStore, "write", write)
    with pytest.raises(OutputError, match=rf"^output: {images.root}: no; "):
        for _ in range(10):
            writer.submit(REQUEST, generated())
    with pytest.raises(OutputError):
        writer.finish()


def test_another_error_of_the_disk_concerns_one_image(writer, monkeypatch):
    def write(store, key, data, format):
        raise OSError(errno.EIO, "I/O error")

    monkeypatch.setattr(ImageStore, "write", write)
    for _ in range(5):
        writer.submit(REQUEST, generated())
    records, failures = writer.finish()
    assert records == []
    assert list(failures) == [SPEC.key]


def test_no_more_images_are_pending_than_allowed(records):
    may_write, third = threading.Event(), threading.Event()

    def pixels():
        assert may_write.wait(SECONDS)
        return rounded(PIXELS)

    writer = ImageWriter(records, pending=2, on_images=lambda count: None)

    def submit_three():
        for _ in range(3):
            writer.submit(REQUEST, generated(pixels))
        third.set()

    thread = threading.Thread(target=submit_three)
    thread.start()
    assert not third.wait(0.3)
    may_write.set()
    assert third.wait(SECONDS)
    thread.join(SECONDS)
    assert len(writer.finish()[0]) == 3


def test_where_the_generation_breaks_off_everything_handed_in_is_written(images, records):
    writer = ImageWriter(records, pending=2, on_images=lambda count: None)
    with pytest.raises(ValueError, match="broken off"), writer.draining_on_error():
        writer.submit(REQUEST, generated())
        raise ValueError("broken off")
    assert images.stat(SPEC.key) is not None


def test_each_image_is_told_once_whatever_became_of_it(records):
    told = []
    writer = ImageWriter(records, pending=2, on_images=told.append)
    for image in (generated(), RuntimeError("busy"), ImageFailure("black")):
        writer.submit(REQUEST, image)
    writer.finish()
    assert told == [1, 1, 1]


@pytest.mark.parametrize("form", ["png", "webp", "jpeg"])
def test_an_image_is_stored_in_the_format_that_was_asked_for(images, form):
    context = replace(CONTEXT, encoding=Encoding(form))
    record = RecordWriter(images, context, FakeGenerator(), Timings()).write(REQUEST, generated())
    image = decode_image(images.read(SPEC.key))
    assert images.stat(SPEC.key).format == record.format == form
    assert image.record == record.header()
    assert image.pixels_sha256 == pixels_digest((PIXELS * 255).round().astype(np.uint8)) == record.pixels_sha256
    assert (record.decoded_sha256 is None) == (form != "jpeg")
