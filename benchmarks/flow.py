"""How the flow compares, in one run: with a plain diffusers loop, and with itself when nothing has changed.

    python -m benchmarks.flow [--images 240] [--rows 10000 100000] [--json FILE]

Every figure is of this machine, with the demo model: only the ratios say something about other models.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.prefect_server import serve

BATCH_SIZE = 4
ROUNDS = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=240, help="images of each timed run (0: skip)")
    parser.add_argument("--rows", type=int, nargs="*", default=[10_000, 100_000], help="rows of the unchanged re-runs")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args()
    figures: dict[str, Any] = {"cores": os.cpu_count()}
    with tempfile.TemporaryDirectory() as folder, serve(Path(folder) / "prefect"):
        if options.images:
            figures |= generation(Path(folder), options.images)
        figures |= unchanged(Path(folder), options.rows)
    for name, value in figures.items():
        print(f"{name:42} {value:12.4g}")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")


def generation(folder: Path, images: int) -> dict[str, float]:
    """Images/s of the flow over those of a plain loop, in turns; both from before torch to the last image on disk."""
    prompts = folder / "prompts.txt"
    prompts.write_text("".join(f"a fox in a meadow by day, number {i}\n" for i in range(images)))
    plain, flow = [], []
    for turn in range(ROUNDS):
        done = run("benchmarks.plain_loop", prompts, folder / f"plain{turn}", BATCH_SIZE)
        plain.append(images / float(done.output))
        output = folder / f"flow{turn}"
        run(
            "flows.text2image",
            f"--dataset={prompts}",
            "--model=demo",
            f"--output={output}",
            f"--batch-size={BATCH_SIZE}",
        )
        flow.append(json.loads((output / "run.json").read_text())["images_per_second"])
    return {
        "cpu.plain_images_per_second": statistics.median(plain),
        "cpu.flow_images_per_second": statistics.median(flow),
        "cpu.flow_over_plain": statistics.median(f / p for f, p in zip(flow, plain, strict=True)),
    }


def unchanged(folder: Path, sizes: list[int]) -> dict[str, float]:
    """Wall seconds and peak memory of a run that finds everything made; and what a row more costs."""
    figures: dict[str, float] = {}
    peaks: dict[int, float] = {}
    for rows in sizes:
        home = folder / f"rows{rows}"
        run("benchmarks.made_up", rows, home)
        arguments = [f"--dataset={home / 'prompts.jsonl'}", f"--output={home / 'out'}", "--model=demo"]
        adopted = run("flows.text2image", *arguments)
        runs = [run("flows.text2image", *arguments) for _ in range(ROUNDS)]
        counts = json.loads((home / "out" / "run.json").read_text())["accounting"]
        assert counts["images_reused"] == counts["rows"] == rows, counts
        peaks[rows] = min(done.peak_bytes for done in runs)
        figures[f"adopt.{rows}.seconds"] = adopted.seconds
        figures[f"unchanged.{rows}.seconds"] = statistics.median(done.seconds for done in runs)
        figures[f"unchanged.{rows}.peak_megabytes"] = peaks[rows] / 1e6
    if len(sizes) > 1:
        low, high = min(sizes), max(sizes)
        figures["unchanged.bytes_per_row"] = (peaks[high] - peaks[low]) / (high - low)
    return figures


class Done:
    """A process that ended well: what it printed, its wall seconds, its peak memory."""

    def __init__(self, output: str, seconds: float, peak_bytes: int) -> None:
        self.output, self.seconds, self.peak_bytes = output, seconds, peak_bytes


def run(module: str, *arguments: object) -> Done:
    started = time.perf_counter()
    with tempfile.TemporaryFile("w+") as log, tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen([sys.executable, "-m", module, *map(str, arguments)], stdout=output, stderr=log)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        for file in (log, output):
            file.seek(0)
        if process.returncode != 0:
            raise SystemExit(f"{module} ended with {process.returncode}:\n{log.read()[-2000:]}")
        return Done(output.read(), seconds, usage.ru_maxrss * 1024)


if __name__ == "__main__":
    main()
