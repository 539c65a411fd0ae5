"""A module comes to the device and leaves it without a copy back; `meta` stands for a device that is not the host's."""

import pytest
import torch
from torch import nn
from transformers import T5Config, T5EncoderModel

from t2i_core.engine.host_copy import HostCopy, is_quantized


class Normalized(nn.Module):
    """Has a parameter, the same parameter under another name, buffers of both kinds, and names without a tensor."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(3, 3)
        self.second = nn.Linear(3, 3, bias=False)
        self.second.weight = self.first.weight
        self.register_parameter("none", None)
        self.register_buffer("scale", torch.rand(3))
        self.register_buffer("offset", torch.rand(3), persistent=False)
        self.register_buffer("nothing", None)

    def forward(self, values):
        return self.second(self.first(values)) * self.scale + self.offset


def addresses(module):
    return {name: tensor.data_ptr() for name, tensor in [*module.named_parameters(), *module.named_buffers()]}


def devices(module):
    return {tensor.device.type for tensor in [*module.parameters(), *module.buffers()]}


@pytest.mark.parametrize(
    "build", [Normalized, lambda: T5EncoderModel(T5Config(vocab_size=9, d_model=8, d_kv=4, d_ff=8, num_layers=2))]
)
def test_a_module_takes_its_own_tensors_on_the_host_back_each_time(build):
    module = build().eval()
    before, copy = addresses(module), HostCopy(module)
    for _ in range(2):
        copy.to_device("meta")
        assert devices(module) == {"meta"}
        copy.to_host()
        assert addresses(module) == before


def test_what_a_module_returns_is_the_same_before_and_after():
    module, values = Normalized(), torch.rand(2, 3)
    copy, before = HostCopy(module), module(values)
    copy.to_device("meta")
    assert module(values.to("meta")).device.type == "meta"
    copy.to_host()
    assert (module(values) == before).all()
    assert module.second.weight is module.first.weight


def test_a_module_that_begins_on_the_device_is_copied_to_the_host_once(monkeypatch):
    module = Normalized()
    copy, moves = HostCopy(module), []
    real = module.to
    monkeypatch.setattr(module, "to", lambda device: moves.append(str(device)) or real(device))
    for _ in range(3):
        copy.to_host()
        copy.to_device("meta")
    assert moves == ["cpu", "meta", "meta", "meta"]


def test_a_module_that_did_not_fit_comes_back_whole(monkeypatch):
    module = Normalized()
    before, copy = addresses(module), HostCopy(module)

    def to(device):
        module.first.to(device)
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(module, "to", to)
    with pytest.raises(torch.OutOfMemoryError):
        copy.to_device("meta")
    copy.to_host()
    assert addresses(module) == before


class Packed(nn.Parameter):
    """Stands for a quantized parameter, which holds more tensors than one."""


def test_quantized_weights_are_copied_both_ways(monkeypatch):
    module = nn.Linear(3, 3)
    module.weight = Packed(torch.rand(3, 3))
    assert is_quantized(module.weight)
    assert not is_quantized(module.bias)
    copy, moves = HostCopy(module), []
    monkeypatch.setattr(module, "to", moves.append)
    for _ in range(2):
        copy.to_device("card")
        copy.to_host()
    assert moves == ["card", "cpu"] * 2
