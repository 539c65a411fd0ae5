"""The interface between generation and the engine: what a loaded model is asked, and what it gives. No torch here."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from threading import Lock
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from t2i_core.models.loaded_files import LoadedFile
from t2i_core.models.local_files import ModelSource
from t2i_core.spec import ImageSpec

Batch = Sequence[ImageSpec]
# A prompt of which an encoder does not know a larger share than this is reported.
UNREAD_SHARE = 1 / 3
# Told of each denoising step that is done: its number, from 1, and how many steps the batch has.
OnStep = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class LocalCheckpoint:
    """A file, or the folder of a denoiser, on this machine, and the components that it supplies to a pipeline."""

    path: str
    components: tuple[str, ...]
    variant: str | None = None  # of the weights in a folder


@dataclass(frozen=True, slots=True)
class LoadConfig:
    """Where a process finds the model, and how to load it. Equal values share one model in memory."""

    path: str
    dtype: str
    device: str
    scheduler: str | None = None
    scheduler_options: str | None = None  # JSON
    variant: str | None = None  # of the weights
    checkpoints: tuple[LocalCheckpoint, ...] = ()  # in place of the model's own weights
    adapters: tuple[tuple[str, float], ...] = ()  # (local file, weight)
    lora_partial: bool = False  # whether an adapter's file may be used in part
    text_encoder: str = "auto"  # resident | staged | auto
    offload: str = "none"  # none | model | group
    compile: bool = False
    compile_mode: str = "default"  # default | max-autotune
    quantization: str | None = None  # fp8 | int8 | nf4
    prepare: str | None = None  # module:function
    attention: str | None = None  # cudnn | flash2 | flash3 | sage
    tf32: bool = False
    step_cache: str | None = None  # magcache | taylorseer
    files: tuple[LoadedFile, ...] = ()  # all that are loaded, as they were when they were hashed
    prepare_sha256: str | None = None  # of the file that defines `prepare`
    source: ModelSource | None = None  # where it is loaded on other machines than the flow's: what they have to fetch

    def on_this_machine(self, paths: Mapping[str, Any]) -> "LoadConfig":
        """Return the same with the paths and files that `fetch_and_verify` returned here."""
        checkpoints = zip(self.checkpoints, paths["checkpoints"], strict=True)
        adapters = zip(self.adapters, paths["adapters"], strict=True)
        return replace(
            self,
            source=None,
            files=tuple(paths["files"]),
            path=paths["model"],
            checkpoints=tuple(replace(checkpoint, path=path) for checkpoint, path in checkpoints),
            adapters=tuple((path, weight) for (_, weight), path in adapters),
        )

    def tuning(self) -> dict[str, Any]:
        """Return the settings that may change the last bits of an image and are not in its spec by name."""
        names = ("offload", "compile", "compile_mode", "prepare")
        values = {name: getattr(self, name) for name in names}
        return {name: value for name, value in values.items() if value not in ("none", "default", False, None)}


@dataclass(frozen=True, slots=True)
class TextLength:
    """The length of a prompt for one text encoder, and what the encoder does not see of it or does not know.

    cut: the part beyond the limit, which the encoder never sees.
    unknown: how many of the tokens are the unknown token; one may stand for a whole sentence.
    unread: the share of the prompt's letters, digits and symbols that the encoder does not know: those for which the
        unknown token stands, and those that the tokenizer leaves out. None where the tokenizer does not tell.
    """

    encoder: str  # class of the encoder
    tokens: int
    limit: int | None
    cut: str | None
    unknown: int | None = None
    unread: float | None = None


def is_unread(share: float | None) -> bool:
    """Return whether `TextLength.unread` is so large that the image cannot be expected to show the prompt."""
    return share is not None and share > UNREAD_SHARE


@dataclass(frozen=True, slots=True, eq=False)
class Pixels:
    """The pixels of an image as bytes, and the extremes of the model's own float pixels, which lie in 0..1.

    A cast to bytes hides that a float pixel is not finite, and small differences; the extremes show both.
    """

    values: npt.NDArray[np.uint8]  # (height, width, channels)
    lowest: npt.NDArray[np.float32]  # of each channel; NaN or infinite where one of its pixels is
    highest: npt.NDArray[np.float32]  # likewise


@dataclass(frozen=True, slots=True)
class GeneratedImage:
    """One image that the model has generated, perhaps still on its way from the device."""

    # Waits for the copy from the device.
    pixels: Callable[[], Pixels]
    # The image's share of the device's time for the batch; known once the pixels are there.
    seconds: Callable[[], float]
    batch_size: int  # of the call that made it: smaller than asked for where memory was short
    vae_tiling: bool  # whether its latents were decoded in tiles, which memory may force
    prompt_lengths: Sequence[TextLength] = ()  # one for each text encoder


@dataclass(frozen=True, slots=True)
class Speed:
    """What one image costs in batches of `batch_size`, as measured."""

    batch_size: int
    seconds: float  # an image
    pixel_steps: int  # of that image: its pixels times its denoising steps
    peak_bytes: int  # of the device's memory, or of the process's on the CPU
    memory_share: float  # of all the device has; 0 where that is not known

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Speed":
        """Return the speed of a stored result. Before release 0.1.0 `pixel_steps` was called `effort`."""
        values = dict(values)
        if "effort" in values:
            values["pixel_steps"] = values.pop("effort")
        return cls(**values)


class ImageGenerator(Protocol):
    """A model in memory, ready to generate."""

    @property
    def device(self) -> str:
        """What records call the device it runs on."""

    @property
    def versions(self) -> dict[str, str]:
        """The versions of the libraries that decide the pixels."""

    def generate(
        self,
        batches: Sequence[Batch],
        batch_size: int,
        should_stop: Callable[[], bool],
        timings: "Timings",
        on_step: OnStep,
    ) -> Iterator[Sequence[GeneratedImage | Exception]]:
        """Yield, for each of `batches`, its images in order; in place of an image that failed, its error.

        The specs of a batch share a call group. `on_step` is told of steps where the pipeline tells of them.

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
        """Add `seconds` to `stage`."""
        with self._lock:
            self._seconds[stage] += seconds

    def add_later(self, stage: str, seconds: Callable[[], float]) -> None:
        """Add to `stage` what `seconds` returns once the device is done; `totals` calls it."""
        self._later.append((stage, seconds))

    def totals(self) -> dict[str, float]:
        """Return the seconds by stage; waits for the device where `add_later` was used."""
        for stage, seconds in self._later:
            self.add(stage, seconds())
        self._later.clear()
        return {stage: round(seconds, 4) for stage, seconds in self._seconds.items()}

    @contextmanager
    def measure(self, stage: str) -> Iterator[None]:
        """Add the wall time of a block to `stage`."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.add(stage, time.perf_counter() - started)
