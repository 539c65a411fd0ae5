"""How fast a model is on this device, and how much memory it takes: measured with a few steps of a real image."""

import logging
import resource
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from t2i_core.drawing import Speed, Timings
from t2i_core.engine.draw import Drawer
from t2i_core.errors import MeasureFailed
from t2i_core.spec import ImageSpec

log = logging.getLogger(__name__)

# Images/s have to gain as much for a batch to be worth twice the memory; and how much of the memory it may take.
GAIN = 1.05
MEMORY_SHARE = 0.85
LARGEST_BATCH = 64
STEPS = 4


def measure(drawer: Drawer, spec: ImageSpec, batch_size: int, should_stop: Callable[[], bool]) -> Speed:
    """Draw a batch of `spec` with one step and with a few, and reckon what all its steps take. Nothing is kept.

    Raises:
        MeasureFailed: where the image cannot be drawn; memory that is too short shows as a smaller batch.
    """
    few = min(STEPS, spec.steps)
    _draw(drawer, replace(spec, steps=1), batch_size, should_stop)  # compiles, allocates, fills caches
    if drawer.torch_device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(drawer.torch_device)
    once, drawn_size = _draw(drawer, replace(spec, steps=1), batch_size, should_stop)
    more, _ = _draw(drawer, replace(spec, steps=few), batch_size, should_stop) if few > 1 else (once, drawn_size)
    step = max(0.0, more - once) / max(1, few - 1)
    peak, total = _memory(drawer.torch_device)
    seconds = (once + step * (spec.steps - 1)) / batch_size
    effort = spec.height * spec.width * spec.steps
    return Speed(drawn_size, seconds, effort, peak, peak / total if total else 0.0)


def best_batch_size(drawer: Drawer, spec: ImageSpec, should_stop: Callable[[], bool]) -> Speed:
    """Double the batch until images/s gain less than 5 %, or memory would pass 85 %."""
    best = measure(drawer, spec, 1, should_stop)
    while best.batch_size < LARGEST_BATCH:
        try:
            larger = measure(drawer, spec, best.batch_size * 2, should_stop)
        except MeasureFailed as error:
            log.warning("batches of %d were not measured: %s", best.batch_size * 2, error)
            break
        fits = larger.batch_size == best.batch_size * 2 and larger.memory_share <= MEMORY_SHARE
        if not fits or best.seconds < larger.seconds * GAIN:
            break
        best = larger
    return best


def _draw(drawer: Drawer, spec: ImageSpec, batch_size: int, should_stop: Callable[[], bool]) -> tuple[float, int]:
    """(wall seconds of a batch, the batch size that fitted)."""
    batch: Sequence[ImageSpec] = [replace(spec, seed=spec.seed + i) for i in range(batch_size)]
    started = time.perf_counter()
    (images,) = drawer.draw([batch], batch_size, should_stop, Timings())
    sizes = []
    for image in images:
        if isinstance(image, Exception):
            raise MeasureFailed(f"{type(image).__name__}: {image}")
        image.pixels()
        sizes.append(image.batch_size)
    return time.perf_counter() - started, min(sizes)


def _memory(device: torch.device) -> tuple[int, int]:
    """(peak bytes, all bytes or 0)."""
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device), torch.cuda.get_device_properties(device).total_memory
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit, 0
