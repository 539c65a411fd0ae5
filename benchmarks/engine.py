"""The flow beside a plain diffusers loop and the reference's way, in one run.

    python -m benchmarks.engine [--images 160] [--cases flux_dev_512 ...] [--json FILE]

`cpu.*`: images/s with the demo model on this machine, as ratios; they say nothing of a real model's speed.
`simulated.*`: the share of the time in which a simulated accelerator is busy (`benchmarks/simulated.py`).
"""

import argparse
import json
import os
import statistics
import tempfile
from pathlib import Path

from benchmarks.processes import report, run
from benchmarks.simulated import CASES
from tests.prefect_server import serve

BATCH_SIZE = 4
ROUNDS = 3
WAYS = ("flow", "plain", "reference")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=160, help="images of each run on the CPU (0: skip)")
    parser.add_argument("--cases", nargs="*", default=list(CASES), choices=list(CASES), help="simulated cases")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args()
    figures: dict[str, float] = {"cores": os.cpu_count() or 0}
    with tempfile.TemporaryDirectory() as folder, serve(Path(folder) / "prefect"):
        if options.images:
            figures |= on_this_cpu(Path(folder), options.images)
        for case in options.cases:
            figures |= simulated(Path(folder), case)
    report(figures, options.json)


def on_this_cpu(folder: Path, images: int) -> dict[str, float]:
    """Return images/s of the flow over those of two loops, run in turns; each from before torch to the last file."""
    prompts = folder / "prompts.txt"
    prompts.write_text("".join(f"a fox in a meadow by day, number {i}\n" for i in range(images)))
    speeds: dict[str, list[float]] = {way: [] for way in WAYS}
    for turn in range(ROUNDS):
        for way in ("plain", "reference"):
            done = run("benchmarks.plain_loop", way, prompts, folder / f"{way}{turn}", BATCH_SIZE)
            speeds[way].append(images / float(done.output))
        output = folder / f"flow{turn}"
        arguments = [f"--dataset={prompts}", "--model=demo", f"--output={output}", f"--batch-size={BATCH_SIZE}"]
        run("flows.text2image", *arguments)
        speeds["flow"].append(json.loads((output / "run.json").read_text())["images_per_second"])
    figures = {f"cpu.{way}_images_per_second": statistics.median(speeds[way]) for way in WAYS}
    for way in ("plain", "reference"):
        ratios = (ours / theirs for ours, theirs in zip(speeds["flow"], speeds[way], strict=True))
        figures[f"cpu.flow_over_{way}"] = statistics.median(ratios)
    return figures


def simulated(folder: Path, case: str) -> dict[str, float]:
    figures = {}
    for way in WAYS:
        done = run("benchmarks.simulated", way, case, CASES[case].images, folder / f"{case}-{way}")
        figures[f"simulated.{case}.busy_share.{way}"] = json.loads(done.output.splitlines()[-1])["busy_share"]
    return figures


if __name__ == "__main__":
    main()
