"""The device: which one, how long its work took, how pixels leave it, and what its memory says."""

import gc
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from t2i_core.errors import ConfigError

# A card on which others hold more than this is busy: what does not fit now may fit later. CUDA itself takes some
# hundred megabytes in each process, which count as others' here.
BUSY_BYTES = 1 << 30


def resolve_device(name: str) -> str:
    """`auto` -> the best device there is. A named device that is missing is refused."""
    available = {
        "cuda": torch.cuda.is_available(),
        "xpu": torch.xpu.is_available(),
        "mps": torch.backends.mps.is_available(),
    }
    if name == "auto":
        return next((kind for kind, there in available.items() if there), "cpu")
    kind = name.partition(":")[0]
    if kind != "cpu" and not available[kind]:
        there = ", ".join(["cpu", *(k for k, v in available.items() if v)])
        raise ConfigError(
            [f"device: torch {torch.__version__} finds no {kind} here; use {there} or auto (got {name!r})"]
        )
    return name


def device_name(device: torch.device) -> str:
    """What records call the device: `cpu`, or the card's own name."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)


class Span:
    """A stretch of the device's work. On CUDA the work goes on after the call that asked for it has returned, so the
    device itself marks both ends; elsewhere calls return when they are done.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._start = self._mark()
        self._end: Any = None

    def close(self) -> None:
        """Mark the end."""
        self._end = self._mark()

    def seconds(self) -> float:
        """From start to end; waits for the device."""
        if self._device.type != "cuda":
            return float(self._end - self._start)
        self._end.synchronize()
        return float(self._start.elapsed_time(self._end)) / 1000

    def _mark(self) -> Any:
        if self._device.type != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self._device))
        return event


def to_host(image: Tensor) -> Callable[[], npt.NDArray[np.float32]]:
    """Start to copy an image (3, height, width) to the host; the result waits for it: float32 (height, width, 3).

    On CUDA the copy goes to pinned memory on a stream of its own, beside what the device does next.
    """
    pixels = image.permute(1, 2, 0).float().contiguous()
    if pixels.device.type != "cuda":
        array = pixels.cpu().numpy()
        return lambda: array
    stream = _copy_stream(pixels.device)
    host = torch.empty(pixels.shape, dtype=pixels.dtype, pin_memory=True)
    stream.wait_stream(torch.cuda.current_stream(pixels.device))
    with torch.cuda.stream(stream):
        host.copy_(pixels, non_blocking=True)
        pixels.record_stream(stream)
        copied = torch.cuda.Event()
        copied.record(stream)

    def wait() -> npt.NDArray[np.float32]:
        copied.synchronize()
        result: npt.NDArray[np.float32] = host.numpy()
        return result

    return wait


_streams: dict[torch.device, Any] = {}


def _copy_stream(device: torch.device) -> Any:
    if device not in _streams:
        _streams[device] = torch.cuda.Stream(device)
    return _streams[device]


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory, of the device or of the host, was too short."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    # The CPU's allocator, and libraries that CUDA kernels call, have no error class of their own for it.
    text = str(error)
    return isinstance(error, RuntimeError) and any(
        sign in text for sign in ("can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDA error: out of memory")
    )


def release_memory(device: torch.device) -> None:
    """Give back what a failed attempt held. Call it outside the `except` block, whose traceback holds tensors."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def free_memory(device: str) -> int | None:
    """Bytes that are free on the device, or on this machine for the CPU; None where that cannot be told."""
    if device.startswith("cuda"):
        return int(torch.cuda.mem_get_info(device)[0])
    if device != "cpu":
        return None
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        return None


def memory_of_others(device: torch.device) -> int:
    """Bytes of a CUDA device that other processes hold, if they are worth a word; else 0."""
    if device.type != "cuda":
        return 0
    free, total = torch.cuda.mem_get_info(device)
    others = total - free - torch.cuda.memory_reserved(device)
    return int(others) if others > BUSY_BYTES else 0
