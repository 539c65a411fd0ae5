"""The training loop that all stages share: schedule, averaging, log, checkpoints.

A stage may be stopped (or its machine may die) at any moment: its state is on disk every two minutes, written beside
the old one and renamed over it. The data and the noise of a step depend on the seed and the number of the step alone
(`rng_of`, `generator_of`), so a run that was stopped and resumed learns exactly what an unbroken one learns.
"""

import logging
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

CHECKPOINT_SECONDS = 120
EVALUATE_SECONDS = 600
LOG_SECONDS = 60
_LONGEST_STEP = 10.0  # a step that took longer was paused from outside: the pause is not counted as training time

log = logging.getLogger(__name__)


def rng_of(*key: object) -> Random:
    """A random source for one purpose, such as `rng_of(seed, "captions", step)`."""
    return Random(" ".join(map(str, key)))


def generator_of(*key: object) -> torch.Generator:
    """The same for torch: noise that depends on `key` alone."""
    return torch.Generator().manual_seed(rng_of(*key).getrandbits(63))


def save_atomically(value: Any, path: Path) -> None:
    """Write with `torch.save` beside `path`, then rename: a reader sees the old file or the new one, never a part."""
    partial = path.with_name(path.name + ".partial")
    torch.save(value, partial)
    os.replace(partial, path)


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Learning rate over a stage: a short rise, a plateau, then a cosine down to nothing.

    The last part matters most: in the prototype two objects came out right in 6 of 48 pictures before the learning
    rate fell and in 48 of 48 after.
    """

    steps: int
    warmup: int = 50
    plateau: float = 0.4  # share of the stage before the rate begins to fall

    def factor(self, step: int) -> float:
        """What the learning rate is multiplied by at `step`, from 0 to 1."""
        done = step / self.steps
        fall = max(0.0, (done - self.plateau) / (1 - self.plateau))
        return min(1.0, (step + 1) / self.warmup) * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * fall)))


@dataclass(kw_only=True)
class Stage:
    """One stage of the training: what is trained, on what loss, for how long."""

    name: str
    folder: Path
    module: nn.Module
    optimizers: list[torch.optim.Optimizer]
    schedule: Schedule
    # From the number of a step to its loss, and the figures to log.
    loss: Callable[[int], tuple[Tensor, dict[str, float]]]
    # From the averaged module and the number of a step to the figures to log; called now and then, and at the end.
    evaluate: Callable[[nn.Module, int], dict[str, float]]
    ema_decay: float = 0.998

    @property
    def checkpoint(self) -> Path:
        """The file that holds the stage's state."""
        return self.folder / f"{self.name}.pt"

    def run(self) -> nn.Module:
        """Train from the last checkpoint, or from nothing, to the end.

        Returns:
            The exponential moving average of the weights, in evaluation mode: it draws better than the last weights.
        """
        average = AveragedModel(self.module, multi_avg_fn=get_ema_multi_avg_fn(self.ema_decay))
        average.requires_grad_(False)
        start, seconds = self._resume(average)
        base_rates = [[group["initial_lr"] for group in o.param_groups] for o in self.optimizers]
        saved = evaluated = logged = before = time.monotonic()
        for step in range(start, self.schedule.steps):
            factor = self.schedule.factor(step)
            for optimizer, rates in zip(self.optimizers, base_rates, strict=True):
                for group, rate in zip(optimizer.param_groups, rates, strict=True):
                    group["lr"] = rate * factor
            self.module.train()
            loss, figures = self.loss(step)
            loss.backward()
            nn.utils.clip_grad_norm_(self.module.parameters(), 1.0)
            for optimizer in self.optimizers:
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
            average.update_parameters(self.module)

            now = time.monotonic()
            seconds += min(now - before, _LONGEST_STEP)
            before = now
            last = step + 1 == self.schedule.steps
            if last or now - logged > LOG_SECONDS:
                logged = now
                self._log(step + 1, seconds, {"loss": loss.item(), "rate": factor, **figures})
            if last or now - saved > CHECKPOINT_SECONDS:
                self._save(average, step + 1, seconds)
                saved = now
            if last or now - evaluated > EVALUATE_SECONDS:
                self._log(step + 1, seconds, self.evaluate(average.module.eval(), step + 1))
                evaluated = now
        return average.module.eval()

    def _log(self, step: int, seconds: float, figures: dict[str, float]) -> None:
        text = " ".join(f"{name} {value:.4g}" for name, value in figures.items())
        log.info("%s %d/%d after %.0f s: %s", self.name, step, self.schedule.steps, seconds, text)

    def _save(self, average: AveragedModel, step: int, seconds: float) -> None:
        state = {
            "step": step,
            "seconds": seconds,
            "module": self.module.state_dict(),
            "average": average.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
        }
        save_atomically(state, self.checkpoint)

    def _resume(self, average: AveragedModel) -> tuple[int, float]:
        """Load the last checkpoint, if there is one; returns the steps done and the seconds they took."""
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["initial_lr"] = group["lr"]
        if not self.checkpoint.exists():
            return 0, 0.0
        state = torch.load(self.checkpoint, weights_only=True, map_location="cpu")
        self.module.load_state_dict(state["module"])
        average.load_state_dict(state["average"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        log.info("%s resumed at step %d", self.name, state["step"])
        return state["step"], state["seconds"]
