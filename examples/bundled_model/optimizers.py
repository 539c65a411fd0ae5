"""Muon for weight matrices, AdamW for everything else.

Muon (Jordan and others, 2024, https://kellerjordan.github.io/posts/muon/) replaces the momentum of a weight matrix by
the nearest matrix with orthonormal rows or columns, so that every direction of the matrix learns at one pace. Small
models learn in about half the steps of AdamW. `torch.optim.Muon` is not used here: it takes no convolution filters,
and it iterates in bfloat16, which this model's CPUs have to emulate.
"""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

# Five steps of a Newton-Schulz iteration with coefficients tuned step by step (You Jiacheng, modded-nanogpt, 2025).
_COEFFICIENTS = (
    (4.0848, -6.8946, 2.9270),
    (3.9505, -6.3029, 2.6377),
    (3.7418, -5.5913, 2.3037),
    (2.8769, -3.1427, 1.2046),
    (2.8366, -3.0525, 1.2012),
)


def orthogonalize(matrix: Tensor) -> Tensor:
    """Push all singular values of a matrix [rows, columns] to about 1, without computing them."""
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    x = x / (x.norm() + 1e-7)
    for a, b, c in _COEFFICIENTS:
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if tall else x


class Muon(torch.optim.Optimizer):
    """Momentum, orthogonalized; a convolution filter [out, in, h, w] counts as a matrix [out, in * h * w]."""

    def __init__(self, params: Iterable[Tensor], lr: float = 0.02, momentum: float = 0.95) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Move every weight that has a gradient by `lr` times its orthogonalized Nesterov momentum."""
        assert closure is None, "Muon evaluates no closure"
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                state = self.state[weight]
                if not state:
                    state["momentum"] = torch.zeros_like(weight)
                state["momentum"].lerp_(weight.grad, 1 - group["momentum"])
                update = weight.grad.lerp(state["momentum"], group["momentum"]).flatten(1)
                scale = max(1.0, update.shape[0] / update.shape[1]) ** 0.5
                weight.add_(orthogonalize(update).view_as(weight), alpha=-group["lr"] * scale)


def split_optimizers(
    module: nn.Module, is_matrix: Callable[[str, Tensor], bool], *, muon_lr: float, adam_lr: float
) -> list[torch.optim.Optimizer]:
    """Muon for the parameters that `is_matrix(name, parameter)` picks, AdamW for the others."""
    named = [(name, parameter) for name, parameter in module.named_parameters() if parameter.requires_grad]
    matrices = [parameter for name, parameter in named if is_matrix(name, parameter)]
    others = [parameter for name, parameter in named if not is_matrix(name, parameter)]
    adam = torch.optim.AdamW(others, lr=adam_lr, betas=(0.9, 0.97), weight_decay=0.01)
    return [adam, Muon(matrices, lr=muon_lr)] if matrices else [adam]
