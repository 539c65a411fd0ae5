"""How torch's threads wait for each other on the CPU. This module does not import torch: it is in time only before."""

import os

# Iterations that a thread spins before it sleeps, of libgomp, which torch brings along on Linux. Its own 300,000 are a
# hundred times as long as the steps of a small model: where other programs want the cores, each step then waits for
# the scheduler. The figure is a compromise, measured by `python -m benchmarks.busy` (README).
SPIN_COUNT = "4000"
CHOSEN_BY_USER = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")


def limit_spinning() -> None:
    """Let torch's threads spin shortly when they wait, unless the environment says how; call it before torch loads."""
    if not any(name in os.environ for name in CHOSEN_BY_USER):
        os.environ["GOMP_SPINCOUNT"] = SPIN_COUNT
