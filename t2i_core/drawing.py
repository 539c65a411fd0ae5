"""The seam between generation and the engine: what a loaded model is asked, and what it gives. No torch here."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from t2i_core.spec import ImageSpec

Pixels = npt.NDArray[np.float32]
Batch = Sequence[ImageSpec]


@dataclass(frozen=True, slots=True)
class Weights:
    """Where a worker finds the model, and how to load it; equal values share one model in memory."""

    path: str
    dtype: str
    device: str
    scheduler: str | None = None
    adapters: tuple[tuple[str, float], ...] = ()  # (local file, weight)
    text_encoder: str = "auto"  # resident | staged | auto
    offload: str = "none"  # none | model | group
    compile: bool = False
    quantization: str | None = None  # fp8 | int8 | nf4
    prepare: str | None = None  # module:function

    def tuning(self) -> dict[str, Any]:
        """The settings that may change the last bits of an image, and are not in its spec by name."""
        values = {"offload": self.offload, "compile": self.compile, "prepare": self.prepare}
        return {name: value for name, value in values.items() if value not in ("none", False, None)}


@dataclass(frozen=True, slots=True)
class TextLength:
    """A prompt as one text encoder takes it. `cut`: the part beyond its limit, which has no say in the image."""

    encoder: str  # class of the encoder
    tokens: int
    limit: int | None
    cut: str | None


@dataclass(frozen=True, slots=True)
class Drawn:
    """One image that the model has drawn, perhaps still on its way from the device."""

    # Waits for the copy; (height, width, 3) in 0..1, NaN where the model's own pixels were not finite.
    pixels: Callable[[], Pixels]
    # Its share of the device's time for the batch; known once the pixels are there.
    seconds: Callable[[], float]
    batch_size: int  # of the call it went through: smaller than asked for where memory was short
    vae_tiling: bool  # whether its latents were decoded in tiles, which memory may force
    prompt_lengths: Sequence[TextLength] = ()  # one for each text encoder


@dataclass(frozen=True, slots=True)
class Speed:
    """What one image costs in batches of `batch_size`, as measured."""

    batch_size: int
    seconds: float  # an image
    effort: int  # of that image: its pixels times its steps
    peak_bytes: int  # of the device's memory, or of the process's on the CPU
    memory_share: float  # of all the device has; 0 where that is not known


class Model(Protocol):
    """A model in memory."""

    @property
    def device(self) -> str:
        """What records call the device it runs on."""

    @property
    def versions(self) -> dict[str, str]:
        """The versions that have a say in the pixels."""

    def draw(
        self, batches: Sequence[Batch], batch_size: int, should_stop: Callable[[], bool], timings: "Timings"
    ) -> Iterator[Sequence[Drawn | Exception]]:
        """For each of `batches`, whose specs share a call group, its images in order, or for an image its error.

        Raises:
            Stopped: at the end of a denoising step after `should_stop` turned true.
        """


class Timings:
    """Seconds by stage, added up over threads."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._seconds: dict[str, float] = defaultdict(float)
        self._later: list[tuple[str, Callable[[], float]]] = []

    def add(self, stage: str, seconds: float) -> None:
        """Count `seconds` for `stage`."""
        with self._lock:
            self._seconds[stage] += seconds

    def add_later(self, stage: str, seconds: Callable[[], float]) -> None:
        """Count what a device will know once it is done."""
        self._later.append((stage, seconds))

    def totals(self) -> dict[str, float]:
        """Seconds by stage; waits for what is still to come."""
        for stage, seconds in self._later:
            self.add(stage, seconds())
        self._later.clear()
        return {stage: round(seconds, 4) for stage, seconds in self._seconds.items()}

    @contextmanager
    def measure(self, stage: str) -> Iterator[None]:
        """Count the wall time of a block for `stage`."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.add(stage, time.perf_counter() - started)
