"""The device is found or refused, its free memory is known, and pixels arrive on the host as bytes."""

from types import SimpleNamespace

import numpy as np
import psutil
import pytest
import torch

from t2i_core.engine import device as module
from t2i_core.engine.device import Span, free_memory, is_out_of_memory, memory_of_others, resolve_device, to_host
from t2i_core.errors import ConfigError

CPU = torch.device("cpu")
CARD = torch.device("cuda", 0)


def test_a_device_that_torch_does_not_find_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_device("cpu") == "cpu"
    with pytest.raises(ConfigError, match="use cpu or auto"):
        resolve_device("cuda:7")


def test_auto_is_the_first_accelerator_or_else_the_cpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.xpu, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert resolve_device("auto") == "cpu"
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert resolve_device("auto") == "mps"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert resolve_device("auto") == "cuda"


def test_a_card_beyond_those_of_this_machine_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    assert resolve_device("cuda:7") == "cuda:7"
    with pytest.raises(ConfigError, match="this machine has no cuda:8; it has 8, numbered from cuda:0"):
        resolve_device("cuda:8")


@pytest.fixture
def cards_of(monkeypatch):
    """A machine whose cards are known only once CUDA has begun: `cards_of(names)`."""

    def make(*names):
        begun = []
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "init", lambda: begun.append(1))
        monkeypatch.setattr(torch.cuda, "device_count", lambda: len(names) if begun else 8)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda number: names[number])
        monkeypatch.setattr(
            torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid=f"number of {device}")
        )

    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return make


def test_several_processes_have_a_card_each_or_a_slice_of_one(cards_of, monkeypatch):
    cards_of("H100", "A100")
    assert module.cards("auto") == ["H100", "A100"]
    assert module.cards("cpu") == []
    cards_of("H100 MIG 1g")
    assert module.cards("cuda") == ["H100 MIG 1g"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-a,MIG-b,MIG-c")  # of which a process sees the first
    assert module.cards("cuda") == ["H100 MIG 1g"] * 3


def test_processes_take_the_cards_in_turn(cards_of):
    cards_of("H100", "H100")
    assert [module.card_of_rank("auto", rank) for rank in range(3)] == ["cuda:0", "cuda:1", "cuda:0"]


def test_a_card_is_known_by_its_number_and_its_slice(cards_of, monkeypatch):
    assert module.card_id("cpu") == ""
    cards_of("H100")
    assert module.card_id("cuda") == "number of cuda"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-a")
    assert module.card_id("cuda") == "number of cuda MIG-a"


def test_the_free_memory_of_the_cpu_is_what_the_machine_has_available(monkeypatch):
    assert 0 < free_memory("cpu") <= psutil.virtual_memory().total
    # Memory that holds cached files is available, though not free.
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=5, free=3, total=9))
    assert free_memory("cpu") == 5


def test_the_free_memory_of_a_card_is_its_own_and_that_of_others_is_not_known(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: {"cuda:1": (5, 9)}[device])
    assert free_memory("cuda:1") == 5
    assert free_memory("mps") is None


@pytest.mark.parametrize(
    ("free", "reserved", "others"),
    [
        (70, 10, 0),  # all that is taken is ours
        (69, 10, 0),  # a gigabyte may be CUDA's own
        (60, 10, 10),
        (0, 80, 0),
    ],
)
def test_memory_that_others_hold_is_what_is_neither_free_nor_ours(monkeypatch, free, reserved, others):
    gigabyte = 1 << 30
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free * gigabyte, 80 * gigabyte))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: reserved * gigabyte)
    assert memory_of_others(CARD) == others * gigabyte
    assert memory_of_others(CPU) == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_pixels_come_to_the_host_as_bytes_with_channels_last_and_the_extremes_of_their_floats(dtype):
    image = (torch.arange(24).reshape(3, 2, 4) / 32).to(dtype)
    pixels = to_host(image)()
    assert pixels.values.dtype == "uint8"
    assert pixels.values.shape == (2, 4, 3)
    assert (pixels.values[1, 2] == [48, 112, 175]).all()  # 6, 14 and 22 of 32
    assert pixels.lowest.dtype == pixels.highest.dtype == "float32"
    assert (pixels.lowest == np.array([0, 8, 16]) / 32).all()
    assert (pixels.highest == np.array([7, 15, 23]) / 32).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_every_half_is_the_byte_that_numpy_makes_of_it(dtype):
    halves = torch.arange(1 << 15, dtype=torch.int16).view(dtype)
    assert_rounded_as_by_numpy(halves[halves <= 1])


def test_floats_near_the_border_of_two_bytes_are_the_bytes_that_numpy_makes_of_them():
    borders = torch.arange(255).add(0.5).div(255)
    steps = torch.arange(-50, 51, dtype=torch.int32)
    assert_rounded_as_by_numpy((borders.view(torch.int32)[:, None] + steps).view(torch.float32).flatten())
    assert_rounded_as_by_numpy(torch.rand(100_000, generator=torch.Generator().manual_seed(0)))


def assert_rounded_as_by_numpy(values):
    """Images of earlier releases were rounded by numpy, and the same images must be the same bytes."""
    floats = values.float().numpy()
    assert len(floats) > 10_000
    assert (to_host(values.expand(3, 1, -1))().values[0, :, 0] == (floats * 255).round().astype("uint8")).all()


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_a_float_that_is_not_finite_shows_in_the_extremes(value):
    image = torch.rand(3, 4, 4)
    image[1, 2, 3] = value
    pixels = to_host(image)()
    assert not (np.isfinite(pixels.lowest[1]) and np.isfinite(pixels.highest[1]))
    assert np.isfinite([pixels.lowest[0], pixels.highest[2]]).all()


def test_a_span_is_the_time_between_its_ends(monkeypatch):
    times = iter([3.0, 5.5])
    monkeypatch.setattr(module.time, "perf_counter", lambda: next(times))
    span = Span(CPU)
    span.close()
    assert span.seconds() == 2.5


def test_other_errors_are_not_about_memory():
    assert not is_out_of_memory(RuntimeError("CUDA error: device-side assert triggered"))
    assert not is_out_of_memory(ValueError("can't allocate memory"))
