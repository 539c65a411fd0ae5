"""A shard: generating and writing run side by side, and an error reaches its own images and no others."""

import errno
import threading
from dataclasses import replace

import numpy as np
import pytest

from t2i_core.errors import ImageFailure, OutputError, Stopped
from t2i_core.generation.image_writer import RunContext
from t2i_core.generation.interface import GeneratedImage
from t2i_core.generation.shard import Hooks, generate_shard
from t2i_core.planning.pending import ImageRequest
from t2i_core.planning.shards import Shard
from t2i_core.spec import ImageSpec
from t2i_core.storage.formats import Encoding, decode_image
from t2i_core.storage.image_store import ImageStore
from t2i_core.storage.thumbnail_store import ThumbnailStore
from tests.builders import rounded

CONTEXT = RunContext(run="r1", refresh=False, model_name="fake", commit=None, tuning={}, encoding=Encoding())
HOOKS = Hooks(
    on_device=lambda generate: generate(),
    on_images=lambda count: None,
    on_step=lambda step, steps: None,
    should_stop=lambda: False,
)
SECONDS = 20  # a wait that is longer than this has nothing to wait for


def request(number):
    spec = ImageSpec(model="m", prompt=f"p{number}", seed=number, height=8, width=8, steps=1, dtype="float32")
    return ImageRequest(spec, spec.key)


def shard(batches, batch_size=2):
    requests = [request(i) for i in range(batches * batch_size)]
    parts = tuple(tuple(requests[i : i + batch_size]) for i in range(0, len(requests), batch_size))
    return Shard(1, 1, batch_size, parts)


def pixels_of(spec):
    pixels = np.zeros((8, 8, 3), np.float32)
    pixels[: 1 + spec.seed % 7] = 1.0
    return rounded(pixels)


def generated(spec, pixels=None):
    return GeneratedImage(pixels or (lambda: pixels_of(spec)), lambda: 0.5, batch_size=2, vae_tiling=False)


class FakeGenerator:
    """Generates with `image(spec)`; `before(number)` is called before the batch of that number."""

    device, versions = "fake", {}

    def __init__(self, image=generated, before=lambda number: None):
        self.image, self.before = image, before
        self.batches = []  # the prompts of each batch

    def generate(self, batches, batch_size, should_stop, timings, on_step):
        for number, batch in enumerate(batches):
            if should_stop():
                raise Stopped
            self.before(number)
            self.batches.append([spec.prompt for spec in batch])
            yield [self.image(spec) for spec in batch]


def thumbnails(images):
    """The hashes of the pixels that there are thumbnails of."""
    return {pixels.decode() for pixels in ThumbnailStore(images.root).index().pixels}


def generate(images, generator, work, context=CONTEXT, **hooks):
    return generate_shard(work, images, context, lambda: generator, replace(HOOKS, **hooks))


@pytest.fixture
def images(tmp_path):
    return ImageStore(tmp_path)


def prompts(images):
    keys = [key.decode() for key in images.scan().keys]
    return sorted(decode_image(images.read(key)).record["spec"]["prompt"] for key in keys)


def waiting_for(event):
    """Images whose pixels are there only once `event` is set."""

    def image(spec):
        def pixels():
            assert event.wait(SECONDS)
            return pixels_of(spec)

        return generated(spec, pixels)

    return image


def test_images_are_written_while_the_next_batch_is_generated(images):
    # Only a writer beside the generation can wait for the second batch and live to see it.
    second_batch = threading.Event()
    generator = FakeGenerator(
        waiting_for(second_batch), before=lambda number: second_batch.set() if number == 1 else None
    )
    result = generate(images, generator, shard(2))
    assert [record.status for record in result.records] == ["made"] * 4
    assert prompts(images) == ["p0", "p1", "p2", "p3"]
    assert {"check", "encode and write", "waiting for writers"} <= set(result.timings)


def test_the_next_shard_has_its_turn_before_the_last_images_are_written(images):
    turn, given_up = threading.Lock(), threading.Event()

    def on_device(generate):
        with turn:
            return generate()

    def next_shard():
        with turn:
            given_up.set()

    thread = threading.Thread(target=next_shard)
    generator = FakeGenerator(waiting_for(given_up), before=lambda number: thread.start())
    result = generate(images, generator, shard(1), on_device=on_device)
    thread.join()
    assert len(result.records) == 2


def test_pixels_do_not_pile_up(images):
    """While nothing can be written, no more than two batches are generated ahead."""
    may_write, third_batch = threading.Event(), threading.Event()
    generator = FakeGenerator(waiting_for(may_write), before=lambda number: third_batch.set() if number == 2 else None)
    thread = threading.Thread(target=generate, args=(images, generator, shard(6)))
    thread.start()
    assert third_batch.wait(SECONDS)
    thread.join(0.3)
    assert len(generator.batches) == 3
    may_write.set()
    thread.join(SECONDS)
    assert len(generator.batches) == 6


def nan(spec):
    return generated(spec, lambda: rounded(np.full((8, 8, 3), np.nan, np.float32)))


def black(spec):
    return generated(spec, lambda: rounded(np.zeros((8, 8, 3), np.float32)))


def small(spec):
    return generated(spec, lambda: rounded(np.ones((4, 4, 3), np.float32)))


def unfit(spec):
    return ImageFailure("it does not fit alone")


@pytest.mark.parametrize(
    ("bad", "reason"),
    [(nan, "NaN"), (black, "black"), (small, "4x4 pixels for 8x8"), (unfit, "does not fit alone")],
)
def test_a_permanent_failure_is_a_record_and_the_others_are_made(images, bad, reason):
    result = generate(images, FakeGenerator(lambda spec: bad(spec) if spec.seed == 1 else generated(spec)), shard(2))
    (failed,) = [record for record in result.records if record.status == "failed"]
    assert failed.key == request(1).key
    assert reason in failed.error
    assert result.failures == {}
    assert prompts(images) == ["p0", "p2", "p3"]


def raising(error):
    def pixels():
        raise error

    return pixels


@pytest.mark.parametrize("stage", ["generation", "copy"])
def test_a_transient_failure_is_told_for_its_own_images_alone(images, stage):
    def image(spec):
        if spec.seed != 2:
            return generated(spec)
        error = RuntimeError("a cable fell out")
        return error if stage == "generation" else generated(spec, raising(error))

    result = generate(images, FakeGenerator(image), shard(3))
    assert result.failures == {request(2).key: "RuntimeError: a cable fell out"}
    assert len(result.records) == 5
    assert prompts(images) == ["p0", "p1", "p3", "p4", "p5"]
    again = FakeGenerator()
    assert len(generate(images, again, shard(3)).records) == 6
    assert again.batches == [["p2"]]


def test_a_failed_replacement_is_told_under_the_key_that_the_data_set_asks_for(images):
    first = replace(request(0), replaces="a" * 64)
    work = Shard(1, 1, 1, ((first,), (request(1),)))
    result = generate(images, FakeGenerator(lambda spec: RuntimeError("busy")), work)
    assert set(result.failures) == {"a" * 64, request(1).key}


def test_a_file_that_cannot_be_written_is_told_for_its_own_image(images, monkeypatch):
    real = ImageStore.write

    def write(store, key, data, format):
        if key == request(1).key:
            raise OSError(errno.EIO, "Input/output error")
        return real(store, key, data, format)

    monkeypatch.setattr(ImageStore, "write", write)
    result = generate(images, FakeGenerator(), shard(2))
    assert list(result.failures) == [request(1).key]
    assert "Input/output error" in result.failures[request(1).key]
    assert prompts(images) == ["p0", "p2", "p3"]


def test_a_full_disk_ends_the_generation_with_one_line(images, monkeypatch):
    def write(store, key, data, format):
        raise OSError(errno.ENOSPC, "No space left on device", "/there")

    monkeypatch.setattr(ImageStore, "write", write)
    generator = FakeGenerator()
    with pytest.raises(OutputError, match="/there: No space left on device; what is there is kept"):
        generate(images, generator, shard(50))
    assert len(generator.batches) < 50


def test_a_stop_drains_what_was_generated_before_it(images):
    stopped = threading.Event()
    generator = FakeGenerator(waiting_for(stopped), before=lambda number: stopped.set() if number == 2 else None)
    with pytest.raises(Stopped):
        generate(images, generator, shard(5), should_stop=stopped.is_set)
    assert prompts(images) == ["p0", "p1", "p2", "p3", "p4", "p5"]


def test_a_stop_reaches_a_shard_whose_images_are_all_stored(images):
    generate(images, FakeGenerator(), shard(2))
    with pytest.raises(Stopped):
        generate(images, FakeGenerator(), shard(2), should_stop=lambda: True)


def test_every_image_is_counted_once_whatever_becomes_of_it(images):
    counted = []
    ways = [generated, nan, unfit, lambda spec: RuntimeError("x")]
    generate(images, FakeGenerator(), shard(1))
    generate(images, FakeGenerator(lambda spec: ways[spec.seed % 4](spec)), shard(4), on_images=counted.append)
    assert counted[0] == 2  # stored already
    assert counted[1:] == [1] * 6


def test_the_model_is_not_loaded_when_everything_is_stored(images):
    made = generate(images, FakeGenerator(), shard(2)).records
    result = generate_shard(shard(2), images, CONTEXT, lambda: pytest.fail("loaded"), HOOKS)
    assert sorted(result.records, key=lambda r: r.key) == sorted(made, key=lambda r: r.key)


def test_only_what_is_missing_of_a_batch_is_generated(images):
    generate(images, FakeGenerator(), Shard(1, 1, 2, ((request(1), request(2)),)))
    generator = FakeGenerator()
    result = generate(images, generator, shard(2))
    assert generator.batches == [["p0"], ["p3"]]
    assert {record.key for record in result.records} == {request(i).key for i in range(4)}


@pytest.mark.parametrize("damage", ["torn", "of another key"])
def test_a_stored_file_that_is_not_the_image_is_made_again(images, damage):
    generate(images, FakeGenerator(), shard(1))
    key = request(0).key
    data = images.read(key)[:-40] if damage == "torn" else images.read(request(1).key)
    images.delete(key)
    images.write(key, data)
    generator = FakeGenerator()
    result = generate(images, generator, shard(1))
    assert generator.batches == [["p0"]]
    assert {record.key for record in result.records} == {request(0).key, request(1).key}
    assert decode_image(images.read(key)).record["key"] == key


def test_refresh_makes_again_what_other_runs_made_and_keeps_what_this_run_made(images):
    generate(images, FakeGenerator(), shard(1))
    refresh = replace(CONTEXT, run="r2", refresh=True)
    generator = FakeGenerator()
    generate(images, generator, shard(1), refresh)
    assert generator.batches == [["p0", "p1"]]
    generate(images, generator, shard(1), refresh)  # a retry of the shard does not start over
    assert generator.batches == [["p0", "p1"]]


def test_with_refresh_a_failure_takes_the_earlier_picture_away(images):
    generate(images, FakeGenerator(), shard(1))
    refresh = replace(CONTEXT, run="r2", refresh=True)
    result = generate(
        images, FakeGenerator(lambda spec: black(spec) if spec.seed else generated(spec)), shard(1), refresh
    )
    assert [record.key for record in result.records if record.status == "failed"] == [request(1).key]
    assert prompts(images) == ["p0"]


def test_permanent_failures_have_a_record_beside_transient_ones(images):
    ways = {1: nan, 2: lambda spec: MemoryError("busy")}
    result = generate(images, FakeGenerator(lambda spec: ways.get(spec.seed, generated)(spec)), shard(2))
    assert [record.key for record in result.records if record.status == "failed"] == [request(1).key]
    assert list(result.failures) == [request(2).key]


def test_thumbnails_are_made_while_images_are_written_where_they_are_asked_for(images):
    generate(images, FakeGenerator(), shard(1))
    assert thumbnails(images) == set()
    images.delete(request(0).key)
    result = generate(images, FakeGenerator(), shard(2), replace(CONTEXT, thumbnails=True))
    made = {record.pixels_sha256 for record in result.records if record.key != request(1).key}
    assert thumbnails(images) == made
    assert result.timings["thumbnail"] > 0


def test_a_shard_that_is_stopped_leaves_the_thumbnails_of_what_it_wrote(images):
    stop = threading.Event()
    generator = FakeGenerator(before=lambda number: stop.set())
    with pytest.raises(Stopped):
        generate(images, generator, shard(2), replace(CONTEXT, thumbnails=True), should_stop=stop.is_set)
    assert len(prompts(images)) == len(thumbnails(images)) == 2


def test_an_image_that_failed_has_no_thumbnail(images):
    def image(spec):
        return ImageFailure("black") if spec.seed == 0 else generated(spec)

    generate(images, FakeGenerator(image), shard(1), replace(CONTEXT, thumbnails=True))
    assert len(thumbnails(images)) == 1
