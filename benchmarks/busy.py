"""The demo model on this machine, idle and beside other work, by how torch's threads wait for each other.

    python -m benchmarks.busy [--seconds 5] [--json FILE]

Prints images/s of the engine with this project's setting (`ours`), with torch's own (`torch`), with sleeping threads
(`passive`) and with one thread (`one_thread`): alone, and beside two busy loops a core. Run it on a quiet machine.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.processes import report

BATCH_SIZE = 4
ROUNDS = 3
WAYS: dict[str, dict[str, str]] = {
    "torch": {"GOMP_SPINCOUNT": "300000"},  # the default of libgomp, which torch brings along
    "ours": {},
    "passive": {"OMP_WAIT_POLICY": "PASSIVE"},
    "one_thread": {"OMP_NUM_THREADS": "1"},
}
BUSY_LOOP = "while True: pass"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(images_per_second(options.seconds))
        return
    figures: dict[str, float] = {"cores": os.cpu_count() or 0}
    for place, loops in (("idle", 0), ("busy", 2 * (os.cpu_count() or 1))):
        others = [subprocess.Popen([sys.executable, "-c", BUSY_LOOP]) for _ in range(loops)]
        try:
            speeds: dict[str, list[float]] = {way: [] for way in WAYS}
            for _ in range(ROUNDS):
                for way, environment in WAYS.items():
                    speeds[way].append(measure(options.seconds, environment))
        finally:
            for other in others:
                other.kill()
                other.wait()
        figures |= {f"{place}.{way}": statistics.median(speeds[way]) for way in WAYS}
    figures["idle.ours_over_torch"] = figures["idle.ours"] / figures["idle.torch"]
    figures["ours.idle_over_busy"] = figures["idle.ours"] / figures["busy.ours"]
    figures["torch.idle_over_busy"] = figures["idle.torch"] / figures["busy.torch"]
    report(figures, options.json)


def measure(seconds: float, environment: dict[str, str]) -> float:
    """Return the images/s of a process of its own."""
    command = [sys.executable, "-m", "benchmarks.busy", "--child", f"--seconds={seconds}"]
    done = subprocess.run(command, env=os.environ | environment, check=True, capture_output=True, text=True)
    return float(done.stdout)


def images_per_second(seconds: float, ready: Callable[[], object] = lambda: None) -> float:
    """Return how many images a second the engine generates with the demo model, batch after batch.

    `ready` is called once the model is loaded and warm, before the time counts.
    """
    from t2i_core.engine.waiting import limit_spinning

    limit_spinning()
    from benchmarks.gpu_check import Check
    from t2i_core.engine.load import load_model
    from t2i_core.generation.interface import Timings

    demo = Check("demo", "cpu")
    specs = demo.specs[:BATCH_SIZE]
    model = load_model(demo.load_config)

    def batch() -> None:
        for images in model.generate([specs], BATCH_SIZE, lambda: False, Timings()):
            assert len(images) == BATCH_SIZE

    batch()
    ready()
    started, count = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        batch()
        count += BATCH_SIZE
    return count / (time.perf_counter() - started)


if __name__ == "__main__":
    main()
