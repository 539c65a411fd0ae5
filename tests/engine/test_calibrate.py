"""The measured speed is that of all steps, and the best batch is the largest that gains and fits."""

import psutil
import pytest
import torch

from t2i_core.engine import calibrate as module
from t2i_core.engine.batch_generator import BatchGenerator
from t2i_core.engine.calibrate import LARGEST_BATCH, MEMORY_SHARE, best_batch_size, measure
from t2i_core.errors import MeasureFailed, Stopped
from tests.engine.fake_stages import FakeStages, spec

SPEC = spec(1, steps=10)


class TimedStages(FakeStages):
    """Stages whose work takes as long as the test says, on a clock of their own."""

    def __init__(self, step_seconds, decode_seconds=0.0, **options):
        super().__init__(max_batch=options.pop("max_batch", 1000), **options)
        self.now = 0.0
        self.step_seconds, self.decode_seconds = step_seconds, decode_seconds

    def perf_counter(self):
        return self.now

    def denoise(self, specs, on_step):
        self.now += self.step_seconds(len(specs)) * specs[0].steps
        return super().denoise(specs, on_step)

    def decode(self, denoised, index, spec):
        self.now += self.decode_seconds
        return super().decode(denoised, index, spec)


@pytest.fixture
def timed(monkeypatch):
    """Make stages whose clock is the one that is read: `timed(seconds of a step by batch size)`."""

    def make(*arguments, **options):
        stages = TimedStages(*arguments, **options)
        monkeypatch.setattr(module, "time", stages)
        return stages

    return make


@pytest.fixture
def memory(monkeypatch):
    """Set how much of 1000 bytes a batch takes: `memory(stages, bytes of an image)`."""

    def take(stages, image_bytes):
        monkeypatch.setattr(module, "_memory", lambda device: (stages.sizes[-1] * image_bytes, 1000))

    return take


def best(stages, spec=SPEC):
    return best_batch_size(BatchGenerator(stages, "cpu", {}), spec, lambda: False, lambda step, steps: None)


def free_batching(size):
    """Seconds of a step: all is gained by a larger batch."""
    return 1 + 0.001 * size


@pytest.mark.parametrize(
    ("step_seconds", "expected"),
    [
        (lambda size: size, 1),  # nothing is gained
        (free_batching, LARGEST_BATCH),
        (lambda size: max(size, 8) * 1.0, 8),
    ],
)
def test_a_batch_grows_while_images_a_second_gain(timed, step_seconds, expected):
    speed = best(timed(step_seconds))
    assert speed.batch_size == expected
    assert speed.seconds == pytest.approx(step_seconds(expected) * 10 / expected)


@pytest.mark.parametrize(("factor", "expected"), [(1.04, 1), (1.06, LARGEST_BATCH)])
def test_five_per_cent_is_a_gain(timed, factor, expected):
    # Each doubling makes an image `factor` times as fast.
    stages = timed(lambda size: size / factor ** (size.bit_length() - 1))
    assert best(stages).batch_size == expected


@pytest.mark.parametrize(
    ("image_bytes", "expected"),
    [
        (100, 8),  # 16 images would take more than there is
        (106, 8),  # 84.8 %
        (107, 4),  # 85.6 %
        (900, 1),
    ],
)
def test_a_batch_leaves_a_part_of_the_memory_free_even_where_a_larger_one_is_faster(
    timed, memory, image_bytes, expected
):
    stages = timed(free_batching)
    memory(stages, image_bytes)
    speed = best(stages)
    assert speed.batch_size == expected
    assert speed.memory_share == pytest.approx(expected * image_bytes / 1000)
    assert speed.peak_bytes == expected * image_bytes
    assert expected == 1 or speed.memory_share <= MEMORY_SHARE
    assert max(stages.sizes) == expected * 2  # one more was tried


def test_a_batch_does_not_grow_beyond_what_fits(timed, monkeypatch):
    monkeypatch.setattr(module, "GAIN", 0.0)  # as where the clock makes a halved batch look faster
    stages = timed(free_batching, max_batch=4)
    assert best(stages).batch_size == 4
    assert max(stages.sizes) == 8


def test_an_error_in_a_larger_batch_keeps_the_smaller(timed, caplog):
    stages = timed(free_batching)

    def denoise(specs, on_step, real=stages.denoise):
        if len(specs) == 4:
            raise ValueError("no kernel for four")
        return real(specs, on_step)

    stages.denoise = denoise
    assert best(stages).batch_size == 2
    assert "batches of 4 were not measured: ValueError: no kernel for four" in caplog.text


def test_an_image_that_fails_cannot_be_measured(timed):
    stages = timed(free_batching)
    with pytest.raises(MeasureFailed, match="ValueError: unlucky"):
        best(stages, spec(99))


@pytest.mark.parametrize("steps", [1, 2, 3, 28])
def test_the_seconds_of_an_image_are_all_its_steps_and_its_decoding(timed, steps):
    stages = timed(lambda size: 2.0 * size, decode_seconds=5.0)
    speed = measure(BatchGenerator(stages, "cpu", {}), spec(1, steps=steps), 3, lambda: False, lambda step, steps: None)
    assert speed.seconds == pytest.approx(2.0 * steps + 5.0)
    assert speed.pixel_steps == 8 * 8 * steps
    assert speed.batch_size == 3
    assert max(call[0].steps for call in stages.calls) <= 4  # not all steps of the image are run


def test_what_only_the_first_call_costs_is_not_counted(timed):
    stages = timed(lambda size: 100.0 if not stages.calls else 1.0)
    speed = measure(BatchGenerator(stages, "cpu", {}), SPEC, 1, lambda: False, lambda step, steps: None)
    assert speed.seconds == pytest.approx(10.0)


def test_the_images_of_a_measured_batch_differ(timed):
    stages = timed(free_batching)
    measure(BatchGenerator(stages, "cpu", {}), SPEC, 4, lambda: False, lambda step, steps: None)
    assert {tuple(s.seed for s in call) for call in stages.calls} == {(1, 2, 3, 4)}


def test_a_stop_ends_a_measurement(timed):
    with pytest.raises(Stopped):
        best_batch_size(BatchGenerator(timed(free_batching), "cpu", {}), SPEC, lambda: True, lambda step, steps: None)


def test_on_the_cpu_the_memory_is_the_peak_of_this_process():
    peak, total = module._memory(torch.device("cpu"))
    assert 0.9 * psutil.Process().memory_info().rss <= peak < psutil.virtual_memory().total
    assert total == 0
