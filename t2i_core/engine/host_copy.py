"""`HostCopy` moves a module between host and device, and copies its weights in one direction only."""

from typing import Any

from torch import Tensor, nn


class HostCopy:
    """A module that comes to the device and leaves it again; its weights stay in host memory all the while.

    So leaving copies nothing: the module takes its tensors on the host back, and those on the device are free.
    Quantized weights are copied both ways, as their tensors hold others. The host memory is not pinned: the images of a
    window take far longer than a copy from unpinned memory, and gigabytes that cannot be swapped harm the machine.
    """

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._parameters: list[tuple[nn.Module, str, nn.Parameter, Tensor]] = []
        self._buffers: list[tuple[nn.Module, str, Tensor]] = []

    def to_device(self, device: Any) -> None:
        """Copy the weights to `device`. The module is on the host, or was on its way when memory was too short."""
        if not self._parameters and not any(is_quantized(parameter) for parameter in self._module.parameters()):
            self._keep()
        self._module.to(device)

    def to_host(self) -> None:
        """Take the weights on the host back, or copy them to it where it has none yet."""
        if not self._parameters:
            self._module.to("cpu")
        for owner, name, parameter, weights in self._parameters:
            parameter.data = weights
            owner._parameters[name] = parameter
        for owner, name, weights in self._buffers:
            owner._buffers[name] = weights

    def _keep(self) -> None:
        """Keep hold of all tensors of the module; `Module.to` replaces what a parameter holds, and a whole buffer."""
        for owner in self._module.modules():
            for name, parameter in owner._parameters.items():
                if parameter is not None:
                    self._parameters.append((owner, name, parameter, parameter.data))
            self._buffers += [(owner, name, buffer) for name, buffer in owner._buffers.items() if buffer is not None]


def is_quantized(parameter: nn.Parameter) -> bool:
    """Return whether a parameter is more than one plain tensor: torchao and bitsandbytes have classes of their own."""
    return type(parameter) is not nn.Parameter or type(parameter.data) is not Tensor
