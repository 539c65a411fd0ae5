"""Measures how fast a model is on this device and how much memory it takes, with a few steps of a real image."""

import logging
import resource
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from t2i_core.engine.batch_generator import BatchGenerator
from t2i_core.errors import MeasureFailed, SafetyFailure
from t2i_core.generation.interface import OnStep, Speed, Timings
from t2i_core.spec import ImageSpec

log = logging.getLogger(__name__)

GAIN = 1.05  # images/s have to grow by this factor for a batch to be worth twice the memory
MEMORY_SHARE = 0.85  # of the device's memory a batch may take
LARGEST_BATCH = 64
STEPS = 4  # of the longer of the two calls that are timed


def measure(
    generator: BatchGenerator, spec: ImageSpec, batch_size: int, should_stop: Callable[[], bool], on_step: OnStep
) -> Speed:
    """Generate a batch of `spec` with one step and with a few, and return what all its steps would take.

    No image is kept. Where memory is too short, the batch size of the result is smaller than `batch_size`.

    Raises:
        MeasureFailed: an image of the batch failed.
    """
    few = min(STEPS, spec.steps)
    _generate(generator, replace(spec, steps=1), batch_size, should_stop, on_step)  # compiles, allocates, fills caches
    if generator.torch_device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(generator.torch_device)
    one_step, fitting_size = _generate(generator, replace(spec, steps=1), batch_size, should_stop, on_step)
    few_steps = one_step
    if few > 1:
        few_steps, _ = _generate(generator, replace(spec, steps=few), batch_size, should_stop, on_step)
    step = max(0.0, few_steps - one_step) / max(1, few - 1)
    peak, total = _memory(generator.torch_device)
    seconds = (one_step + step * (spec.steps - 1)) / batch_size
    pixel_steps = spec.height * spec.width * spec.steps
    return Speed(fitting_size, seconds, pixel_steps, peak, peak / total if total else 0.0)


def best_batch_size(
    generator: BatchGenerator, spec: ImageSpec, should_stop: Callable[[], bool], on_step: OnStep
) -> Speed:
    """Double the batch until images/s gain less than 5 % or memory would pass 85 %; return the speed of the best.

    Raises:
        MeasureFailed: a single image failed.
    """
    best = measure(generator, spec, 1, should_stop, on_step)
    while best.batch_size < LARGEST_BATCH:
        try:
            larger = measure(generator, spec, best.batch_size * 2, should_stop, on_step)
        except MeasureFailed as error:
            log.warning("batches of %d were not measured: %s", best.batch_size * 2, error)
            break
        fits = larger.batch_size == best.batch_size * 2 and larger.memory_share <= MEMORY_SHARE
        if not fits or best.seconds < larger.seconds * GAIN:
            break
        best = larger
    return best


def _generate(
    generator: BatchGenerator, spec: ImageSpec, batch_size: int, should_stop: Callable[[], bool], on_step: OnStep
) -> tuple[float, int]:
    """Generate a batch; return its wall seconds and the batch size that fitted."""
    batch: Sequence[ImageSpec] = [replace(spec, seed=spec.seed + i) for i in range(batch_size)]
    started = time.perf_counter()
    (images,) = generator.generate([batch], batch_size, should_stop, Timings(), on_step)
    sizes = []
    for image in images:
        if isinstance(image, SafetyFailure):  # it cost as much as any other
            continue
        if isinstance(image, Exception):
            raise MeasureFailed(f"{type(image).__name__}: {image}")
        image.pixels()
        sizes.append(image.batch_size)
    return time.perf_counter() - started, min(sizes, default=batch_size)


def _memory(device: torch.device) -> tuple[int, int]:
    """Return (peak bytes in use, all bytes of the device).

    Without CUDA the peak is that of the process, and 0 stands for all bytes.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device), torch.cuda.get_device_properties(device).total_memory
    # psutil knows no peak on Linux. The unit of `ru_maxrss` differs.
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit, 0
