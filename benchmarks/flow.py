"""What the flow adds: the time to the first image, beside a plain loop; and a run that finds everything made.

Of the latter wall time and peak memory, and what a row more costs.

python -m benchmarks.flow [--rows 10000 100000] [--json FILE]
"""

import argparse
import json
import statistics
import tempfile
from pathlib import Path

from benchmarks.processes import report, run, seconds_to_first_image
from tests.prefect_server import serve

ROUNDS = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="*", default=[10_000, 100_000], help="rows of the unchanged re-runs")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, serve(Path(folder) / "prefect"):
        report(first_image(Path(folder)) | unchanged(Path(folder), options.rows), options.json)


def first_image(folder: Path) -> dict[str, float]:
    """Return seconds from the start of a process to its first image: medians of turns taken one after the other."""
    prompts = folder / "four.txt"
    prompts.write_text("".join(f"a fox number {i}\n" for i in range(4)), encoding="utf-8")
    plain, flow = [], []
    for turn in range(ROUNDS):
        out = folder / f"plain{turn}"
        plain.append(seconds_to_first_image(out, "benchmarks.plain_loop", "plain", prompts, out, 4))
        out = folder / f"flow{turn}"
        arguments = [f"--dataset={prompts}", f"--output={out}", "--model=demo", "--batch-size=4"]
        flow.append(seconds_to_first_image(out, "flows.text2image", *arguments))
    figures = {
        "first_image.plain.seconds": statistics.median(plain),
        "first_image.flow.seconds": statistics.median(flow),
    }
    return figures | {"first_image.later_by.seconds": statistics.median(flow) - statistics.median(plain)}


def unchanged(folder: Path, sizes: list[int]) -> dict[str, float]:
    """Return, for each number of rows, what it takes to adopt made-up images, and to find nothing to do."""
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


if __name__ == "__main__":
    main()
