"""A shard is drawn and written side by side; an error reaches its own images and no others."""

import errno
import threading

import numpy as np
import pytest

from t2i_core.errors import ImageFailure, OutputError, Stopped
from t2i_core.generation.interface import GeneratedImage
from t2i_core.generation.shard import RunContext, generate_shard
from t2i_core.planning.shards import ImageRequest, Shard
from t2i_core.spec import ImageSpec
from t2i_core.storage.png import read_image
from t2i_core.storage.workspace import Workspace

CONTEXT = RunContext(run="r1", refresh=False, model_name="fake", commit=None, tuning={}, png_compress_level=1)
SECONDS = 20  # a wait that is longer than this has nothing to wait for


def request(number):
    spec = ImageSpec(model="m", prompt=f"p{number}", seed=number, height=8, width=8, steps=1, dtype="float32")
    return ImageRequest(spec, spec.key)


def shard(batches, batch_size=2):
    requests = [request(i) for i in range(batches * batch_size)]
    parts = tuple(tuple(requests[i : i + batch_size]) for i in range(0, len(requests), batch_size))
    return Shard(1, 1, batch_size, parts)


def picture(spec):
    pixels = np.zeros((8, 8, 3), np.float32)
    pixels[: 1 + spec.seed % 7] = 1.0
    return pixels


def generated(spec, pixels=None):
    return GeneratedImage(pixels or (lambda: picture(spec)), lambda: 0.5, batch_size=2, vae_tiling=False)


class FakeModel:
    """Draws with `image(spec)`; `before(number)` is called before the batch of that number."""

    device, versions = "fake", {}

    def __init__(self, image=generated, before=lambda number: None):
        self.image, self.before = image, before

    def generate(self, batches, batch_size, should_stop, timings):
        for number, batch in enumerate(batches):
            if should_stop():
                raise Stopped
            self.before(number)
            yield [self.image(spec) for spec in batch]


def generate(store, model, work, **options):
    defaults = {"on_device": lambda generate: generate(), "on_images": lambda count: None, "should_stop": lambda: False}
    return generate_shard(work, store, CONTEXT, lambda: model, **defaults | options)


@pytest.fixture
def store(tmp_path):
    return Workspace(tmp_path)


def prompts(store):
    return sorted(read_image(path).record["spec"]["prompt"] for path in store.images.rglob("*.png"))


def test_images_are_written_while_the_next_batch_is_drawn(store):
    second_batch = threading.Event()

    def image(spec):
        def pixels():
            # Only a writer beside the drawing can wait for the second batch and live to see it.
            assert second_batch.wait(SECONDS)
            return picture(spec)

        return generated(spec, pixels)

    model = FakeModel(image, before=lambda number: second_batch.set() if number == 1 else None)
    result = generate(store, model, shard(2))
    assert [record.status for record in result.records] == ["made"] * 4
    assert prompts(store) == ["p0", "p1", "p2", "p3"]
    assert {"check", "encode PNG and write", "waiting for writers"} <= set(result.timings)


def test_the_next_shard_has_its_turn_before_the_last_images_are_written(store):
    turn, given_up = threading.Lock(), threading.Event()

    def image(spec):
        def pixels():
            assert given_up.wait(SECONDS)
            return picture(spec)

        return generated(spec, pixels)

    def on_device(generate):
        with turn:
            return generate()

    def next_shard():
        with turn:
            given_up.set()

    thread = threading.Thread(target=next_shard)
    result = generate(store, FakeModel(image, before=lambda number: thread.start()), shard(1), on_device=on_device)
    thread.join()
    assert len(result.records) == 2


def test_pixels_do_not_pile_up(store):
    """While nothing can be written, no more than two batches are drawn ahead."""
    drawn_batches = []
    may_write = threading.Event()

    def image(spec):
        def pixels():
            assert may_write.wait(SECONDS)
            return picture(spec)

        return generated(spec, pixels)

    model = FakeModel(image, before=drawn_batches.append)
    thread = threading.Thread(target=generate, args=(store, model, shard(6)))
    thread.start()
    while len(drawn_batches) < 3:
        thread.join(0.01)
    thread.join(0.3)
    assert drawn_batches == [0, 1, 2]
    may_write.set()
    thread.join(SECONDS)
    assert drawn_batches == [0, 1, 2, 3, 4, 5]


def nan(spec):
    return generated(spec, lambda: np.full((8, 8, 3), np.nan, np.float32))


def black(spec):
    return generated(spec, lambda: np.zeros((8, 8, 3), np.float32))


def small(spec):
    return generated(spec, lambda: np.ones((4, 4, 3), np.float32))


def unfit(spec):
    return ImageFailure("it does not fit alone")


@pytest.mark.parametrize(
    ("bad", "reason"),
    [(nan, "NaN"), (black, "black"), (small, "4x4 pixels for 8x8"), (unfit, "does not fit alone")],
)
def test_what_will_fail_again_is_a_record_and_the_others_are_made(store, bad, reason):
    result = generate(store, FakeModel(lambda spec: bad(spec) if spec.seed == 1 else generated(spec)), shard(2))
    (failed,) = [record for record in result.records if record.status == "failed"]
    assert failed.key == request(1).key
    assert reason in failed.error
    assert prompts(store) == ["p0", "p2", "p3"]


def raising(error):
    def pixels():
        raise error

    return pixels


@pytest.mark.parametrize("stage", ["drawing", "copy"])
def test_what_may_pass_is_told_for_its_own_images_alone(store, stage):
    def image(spec):
        if spec.seed != 2:
            return generated(spec)
        error = RuntimeError("a cable fell out")
        return error if stage == "drawing" else generated(spec, raising(error))

    result = generate(store, FakeModel(image), shard(3))
    assert result.failures == {request(2).key: "RuntimeError: a cable fell out"}
    assert len(result.records) == 5
    assert prompts(store) == ["p0", "p1", "p3", "p4", "p5"]
    again = generate(store, FakeModel(), shard(3))
    assert len(again.records) == 6


def test_a_file_that_cannot_be_written_is_told_for_its_own_image(store, monkeypatch):
    from t2i_core import generate as module

    real = module.write_image

    def write_image(path, pixels, record, level):
        if record["spec"]["prompt"] == "p1":
            raise OSError(errno.EIO, "Input/output error")
        real(path, pixels, record, level)

    monkeypatch.setattr(module, "write_image", write_image)
    result = generate(store, FakeModel(), shard(2))
    assert "Input/output error" in result.failures[request(1).key]
    assert prompts(store) == ["p0", "p2", "p3"]


def test_a_full_disk_ends_the_drawing_with_one_line(store, monkeypatch):
    def write_image(path, pixels, record, level):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr("t2i_core.generation.shard.write_image", write_image)
    drawn_batches = []
    with pytest.raises(OutputError, match="No space left on device; what is there is kept"):
        generate(store, FakeModel(before=drawn_batches.append), shard(50))
    assert len(drawn_batches) < 50


def test_a_stop_drains_what_was_drawn_before_it(store):
    stopped = threading.Event()

    def image(spec):
        def pixels():
            assert stopped.wait(SECONDS)
            return picture(spec)

        return generated(spec, pixels)

    model = FakeModel(image, before=lambda number: stopped.set() if number == 2 else None)
    with pytest.raises(Stopped):
        generate(store, model, shard(5), should_stop=stopped.is_set)
    assert prompts(store) == ["p0", "p1", "p2", "p3", "p4", "p5"]


def test_every_image_is_counted_once_whatever_becomes_of_it(store):
    counted = []
    ways = [generated, nan, unfit, lambda spec: RuntimeError("x")]
    generate(store, FakeModel(), shard(1))
    generate(store, FakeModel(lambda spec: ways[spec.seed % 4](spec)), shard(4), on_images=counted.append)
    assert sum(counted) == 8
    assert counted[0] == 2  # on disk already


def test_the_model_is_not_loaded_when_everything_is_there(store):
    generate(store, FakeModel(), shard(2))
    result = generate_shard(
        shard(2),
        store,
        CONTEXT,
        lambda: pytest.fail("loaded"),
        on_device=lambda generate: generate(),
        on_images=lambda count: None,
        should_stop=lambda: False,
    )
    assert [record.status for record in result.records] == ["made"] * 4


def test_what_failed_for_good_has_a_record_beside_what_may_pass(store):
    ways = {1: nan, 2: lambda spec: MemoryError("busy")}
    result = generate(store, FakeModel(lambda spec: ways.get(spec.seed, generated)(spec)), shard(2))
    assert [record.key for record in result.records if record.status == "failed"] == [request(1).key]
    assert list(result.failures) == [request(2).key]
