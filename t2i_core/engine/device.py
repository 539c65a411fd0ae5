"""Functions about the device: its choice, the time of its work, the copy of pixels to the host, its memory."""

import functools
import gc
import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import psutil
import torch
from torch import Tensor

from t2i_core.errors import ConfigError
from t2i_core.generation.interface import Pixels

# A card is busy if other processes hold more than this: what does not fit now may fit later. CUDA itself takes some
# hundred megabytes in each process, which count as other processes' here.
BUSY_BYTES = 1 << 30


def resolve_device(name: str) -> str:
    """Return `name`, or for `auto` the best device of this machine.

    Raises:
        ConfigError: torch does not find the named device, or not so many of its kind.
    """
    available = {
        "cuda": torch.cuda.is_available(),
        "xpu": torch.xpu.is_available(),
        "mps": torch.backends.mps.is_available(),
    }
    if name == "auto":
        return next((kind for kind, present in available.items() if present), "cpu")
    kind, _, index = name.partition(":")
    if kind != "cpu" and not available[kind]:
        usable = ", ".join(["cpu", *(kind for kind, present in available.items() if present)])
        raise ConfigError(
            [f"device: torch {torch.__version__} finds no {kind} here; use {usable} or auto (got {name!r})"]
        )
    if index and int(index) >= (count := torch.get_device_module(kind).device_count()):
        raise ConfigError([f"device: this machine has no {name}; it has {count}, numbered from {kind}:0"])
    return name


def card_of_rank(device: str, rank: int) -> str:
    """Return the device of one of several processes on this machine, counted from 0: in turn, the cards of `device`."""
    kind = resolve_device(device)
    if kind not in ("cuda", "xpu"):
        return kind
    torch.get_device_module(kind).init()  # as in `cards`
    return f"{kind}:{rank % torch.get_device_module(kind).device_count()}"


def cards(device: str) -> list[str]:
    """Return the names of the cards that several processes can have one each of; none for the CPU.

    Raises:
        ConfigError: for a device of which several processes cannot have one each.
    """
    kind = resolve_device(device)
    if kind not in ("cpu", "cuda"):
        raise ConfigError([f"workers: several processes are for cuda and cpu; leave workers out for {kind}"])
    if kind == "cpu":
        return []
    torch.cuda.init()  # before it, cards that are cut into slices (MIG) count, and not the slices
    slices = os.environ.get("CUDA_VISIBLE_DEVICES", "").count("MIG-")
    if slices > 1:  # a process sees the first one only
        return [torch.cuda.get_device_name(0)] * slices
    return [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]


def host_threads() -> int:
    """Return how many threads torch uses in a process on the CPU: the cores that it may use, unless told otherwise."""
    return int(torch.get_num_threads())


def device_name(device: torch.device) -> str:
    """Return the name of the device in records: `cpu`, or the card's own name."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)


def title_of_device(name: str) -> str:
    """Return what records call the device that `name`, as configured, means on this machine.

    Raises:
        ConfigError: as `resolve_device`.
    """
    return device_name(torch.device(resolve_device(name)))


def card_id(name: str) -> str:
    """Return the number that the card has by itself (its UUID), by which two processes tell whether they share it.

    Empty where there is no card, or torch knows no such number.
    """
    device = torch.device(resolve_device(name))
    if device.type != "cuda":
        return ""
    seen = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    slices = f" {seen}" if "MIG-" in seen else ""  # of which the number may be that of the whole card
    number = str(getattr(torch.cuda.get_device_properties(device), "uuid", ""))
    return number and f"{number}{slices}"


class Span:
    """A stretch of the device's work, from when the object is made until `close`.

    On CUDA the work goes on after the call that asked for it has returned, so the device itself marks both ends.
    Elsewhere a call returns when its work is done.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._start = self._mark()
        self._end: Any = None

    def close(self) -> None:
        """Mark the end."""
        self._end = self._mark()

    def seconds(self) -> float:
        """Return the seconds from start to end; waits for the device."""
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


def to_host(image: Tensor) -> Callable[[], Pixels]:
    """Start to copy an image (3, height, width) in 0..1 to the host: as bytes, and with the extremes of its floats.

    On CUDA the copy goes to pinned memory on a stream of its own, beside what the device does next. On the CPU there is
    nothing to copy, and whoever calls the function rounds the pixels, beside the next batch.

    Returns:
        A function that waits for the copy and returns it.
    """
    if image.device.type == "cpu":
        floats = image.float().permute(1, 2, 0).numpy()
        return lambda: _rounded_by_numpy(floats)
    parts = _rounded(image)
    if image.device.type != "cuda":
        pixels = Pixels(*(part.cpu().numpy() for part in parts))
        return lambda: pixels
    stream = _copy_stream(image.device)
    host = [torch.empty(part.shape, dtype=part.dtype, pin_memory=True) for part in parts]
    stream.wait_stream(torch.cuda.current_stream(image.device))
    with torch.cuda.stream(stream):
        for target, part in zip(host, parts, strict=True):
            target.copy_(part, non_blocking=True)
            part.record_stream(stream)
        copied = torch.cuda.Event()
        copied.record(stream)

    def wait() -> Pixels:
        copied.synchronize()
        return Pixels(*(part.numpy() for part in host))

    return wait


def _rounded(image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return an image as bytes (height, width, 3), and the lowest and the highest float of each channel."""
    floats = image.float()
    # Halves go to the even byte, as in numpy.
    values = (floats * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous()
    return values, floats.amin(dim=(1, 2)), floats.amax(dim=(1, 2))


def _rounded_by_numpy(floats: npt.NDArray[np.float32]) -> Pixels:
    """Return the same of float pixels (height, width, 3) without torch.

    Each thread that calls torch gets threads of its own. With more of them than cores, all sleep whenever they wait,
    and a small model becomes nearly half as fast.
    """
    with np.errstate(invalid="ignore"):  # of NaN, which the extremes tell
        values = np.ascontiguousarray((floats * 255).round().astype(np.uint8))
    return Pixels(values, floats.min(axis=(0, 1)), floats.max(axis=(0, 1)))


@functools.cache
def _copy_stream(device: torch.device) -> Any:
    return torch.cuda.Stream(device)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that memory, of the device or of the host, was too short."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    # The CPU's allocator, and libraries that CUDA kernels call, have no error class of their own for it.
    text = str(error)
    return isinstance(error, RuntimeError) and any(
        sign in text for sign in ("can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDA error: out of memory")
    )


def why_lost(name: str) -> str:
    """Return why a device answers this process no more, whatever it is asked; empty if it answers.

    After some errors of CUDA, such as an illegal address, all that this process asks of the card fails; another
    process may use it. `name`: as configured.
    """
    if not (torch.cuda.is_available() and torch.cuda.is_initialized()):
        return ""
    device = torch.device(resolve_device(name))
    if device.type != "cuda":
        return ""
    try:
        torch.ones(1, device=device).add_(1).cpu()
    except RuntimeError as error:
        return "" if is_out_of_memory(error) else str(error).strip().partition("\n")[0]
    return ""


def release_memory(device: torch.device) -> None:
    """Give unused memory back to the device.

    After an error, call it outside the `except` block: within it the error's traceback keeps tensors alive.
    """
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def free_memory(device: str) -> int | None:
    """Return the free bytes of the device, for the CPU those of this machine; None for a device that cannot say."""
    if device.startswith("cuda"):
        return int(torch.cuda.mem_get_info(device)[0])
    return int(psutil.virtual_memory().available) if device == "cpu" else None


def memory_of_others(device: torch.device) -> int:
    """Return the bytes of a CUDA device that other processes hold; 0 up to `BUSY_BYTES`, and for other devices."""
    if device.type != "cuda":
        return 0
    free, total = torch.cuda.mem_get_info(device)
    others = total - free - torch.cuda.memory_reserved(device)
    return int(others) if others > BUSY_BYTES else 0
