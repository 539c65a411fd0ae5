"""What a run will take is said before it starts."""

from collections import namedtuple

import pytest

from t2i_core.engine.batch_generator import BatchGenerator
from t2i_core.engine.calibrate import best_batch_size
from t2i_core.generation.interface import Speed
from t2i_core.planning.shards import WorkEstimate
from t2i_core.spec import ImageSpec
from tests.test_draw import FakeStages

pytestmark = pytest.mark.timeout(300)


def said(caplog):
    """The lines a run said, by their first word."""
    lines = [line for record in caplog.records for line in record.getMessage().splitlines() if " " in line]
    caplog.clear()
    return dict(line.split(maxsplit=1) for line in lines)


def test_a_dry_run_says_batches_padding_disk_and_weights(run, prompts, no_model, caplog):
    rows = [{"conversations": f"p{i}", "generation": {"height": 64 + 8 * (i % 5)}} for i in range(6)]
    assert run(dataset=prompts(*rows), dry_run=True, batch_size=4).is_completed()
    lines = said(caplog)
    assert lines["work"] == "6 images to make, in 5 batches of 4, 1 shards"
    assert lines["padding"].startswith("70% of the model's work fills up batches that are not full")
    assert "are free" in lines["disk"]
    assert "too little" not in lines["disk"]
    assert lines["weights"].endswith("MB, by the size of their files")
    assert "time" not in lines


def test_too_little_disk_is_said_before_the_work(run, prompts, monkeypatch, caplog):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("t2i_core.reports.estimate.shutil.disk_usage", lambda path: usage(10**9, 10**9, 100))
    run(dataset=prompts("a fox"), dry_run=True)
    assert said(caplog)["disk"].endswith("too little")
    run(dataset=prompts("a fox"))
    assert "are needed" in said(caplog)["disk"]


def test_too_little_memory_for_the_weights_is_said_before_they_are_loaded(run, prompts, monkeypatch, caplog):
    monkeypatch.setattr("t2i_core.engine.device.free_memory", lambda device: 1000)
    run(dataset=prompts("a fox"))
    assert said(caplog)["memory"].endswith("cpu has 0.0 GB free: --quantization takes less")


def test_the_size_of_files_is_that_of_the_images_which_are_there(run, output, prompts, caplog):
    dataset = prompts("a fox", "a cat", "a house", "a moon")
    run(dataset=dataset, limit=2)
    sizes = [path.stat().st_size for path in output.stored().values()]
    caplog.clear()
    run(dataset=dataset, dry_run=True)
    told = float(said(caplog)["disk"].split()[1])
    assert told == pytest.approx(sum(sizes) / 1e6, abs=0.06)


def test_an_estimate_measures_and_makes_nothing(run, output, prompts, caplog):
    dataset = prompts("a fox", "a cat", "a house")
    assert run(dataset=dataset, estimate=True).is_completed()
    lines = said(caplog)
    assert {"work", "disk", "weights", "time", "memory"} <= set(lines)
    assert output.stored() == {}
    assert not (output.folder / "manifest.jsonl").exists()
    assert not (output.folder / ".t2i/output.json").exists()


def test_an_image_that_cannot_be_drawn_is_no_reason_to_stop(run, output, prompts, monkeypatch, caplog):
    from t2i_core.engine.flux import FluxStages

    original = FluxStages.denoise

    def denoise(self, specs, on_step):
        if specs[0].prompt == "a fox":
            raise RuntimeError("unlucky")
        return original(self, specs, on_step)

    monkeypatch.setattr(FluxStages, "denoise", denoise)
    dataset = prompts("a fox", "a cat", "a house", "a moon", "a boat")
    assert run(dataset=dataset, estimate=True).is_completed()
    assert "not known: RuntimeError: unlucky" in said(caplog)["time"]
    assert run(dataset=dataset, batch_size="auto").name == "TooManyFailures"
    assert output.counts()["images_generated"] == 1  # in batches of 4 as nothing could be measured: one without the fox
    assert output.run()["work"]["batch_size"] == 4


def test_a_measured_batch_size_is_kept_for_the_output(run, output, prompts, monkeypatch, caplog):
    from t2i_core.engine import calibrate

    dataset = prompts("a fox", "a cat", "a house")
    monkeypatch.setattr(calibrate, "LARGEST_BATCH", 2)
    monkeypatch.setattr(calibrate, "GAIN", 0.0)
    run(dataset=dataset, batch_size="auto", dry_run=True)
    assert "of 4 are a guess" in said(caplog)["batches"]
    assert run(dataset=dataset, batch_size="auto", limit=1).is_completed()
    assert output.run()["work"]["batch_size"] == 2
    monkeypatch.setattr(calibrate, "best_batch_size", lambda *arguments: pytest.fail("measured again"))
    assert run(dataset=dataset, batch_size="auto").is_completed()
    assert output.run()["work"]["batch_size"] == 2
    assert output.counts()["images_generated"] == 2
    caplog.clear()
    run(dataset=dataset, batch_size="auto", dry_run=True)
    assert "batches" not in said(caplog)


def test_the_time_of_a_run_goes_by_pixels_and_steps():
    from t2i_core.reports.estimate import lines

    work = WorkEstimate(images=9, batches=5, shards=1, batch_size=2, pixels=9 * 64 * 64, pixel_steps=10 * 64 * 64 * 8)
    speed = Speed(batch_size=2, seconds=3.0, pixel_steps=64 * 64 * 4, peak_bytes=5 * 10**9, memory_share=0.5)
    model = namedtuple("model", "weights_bytes")(10**9)
    said_lines = lines(work, model, 1, 2, speed)
    assert "time      about 0:01:00: 3 s for an image like the first" in said_lines
    assert "memory    5.0 GB at its peak" in said_lines


class Clock:
    """Stands in for `time`: a batch takes as long as the test says."""

    def __init__(self):
        self.now = 0.0

    def perf_counter(self):
        return self.now


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (lambda n: n, 1),  # nothing gained by batching
        (lambda n: 1 + 0.001 * n, 64),  # all gained, up to the largest
        (lambda n: max(n, 8) * 1.0, 8),
    ],
)
def test_a_batch_grows_while_images_a_second_gain(monkeypatch, seconds, expected):
    clock = Clock()
    monkeypatch.setattr("t2i_core.engine.calibrate.time", clock)

    class Slow(FakeStages):
        def denoise(self, specs, on_step):
            clock.now += seconds(len(specs)) * specs[0].steps
            return super().denoise(specs, on_step)

    spec = ImageSpec(model="m", prompt="p", seed=1, height=8, width=8, steps=10, dtype="float32")
    speed = best_batch_size(BatchGenerator(Slow(max_batch=1000), "cpu", {}), spec, lambda: False)
    assert speed.batch_size == expected
    assert speed.seconds == pytest.approx(seconds(expected) * 10 / expected)


def test_a_batch_does_not_grow_beyond_what_fits(monkeypatch):
    spec = ImageSpec(model="m", prompt="p", seed=1, height=8, width=8, steps=2, dtype="float32")
    monkeypatch.setattr("t2i_core.engine.calibrate.GAIN", 0.0)
    assert best_batch_size(BatchGenerator(FakeStages(max_batch=4), "cpu", {}), spec, lambda: False).batch_size == 4
