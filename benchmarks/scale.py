"""What a run costs besides its images, from ten thousand rows to a million: seconds and peak memory of its process.

    python -m benchmarks.scale [--rows 10000 100000 1000000] [--phases plan ...] [--folder DIR]
                               [--slow] [--here | --workers | --cluster]

The model is simulated and makes 64x64 images in no time; Prefect, files and checks are real, with a server that runs
already. Of each phase: wall seconds, seconds of CPU time (on a machine that does other work, too, these tell
more), the peak of the process's memory, and how the seconds grow with the rows. With `--folder` the made-up images are
kept, so that single phases can be run again. Phases:

plan       --dry-run of a new data set
first      until the first image of a new data set is there, with 0.1 s an image; `plan` is when it was read to its end
submit     a part of a new data set with a few thousand images, which take no time
adopt      all images are there, and their records are lost; the manifest is written
unchanged  nothing has changed
inserted   1,000 prompts inserted at random places; their images take no time

`--slow` adds a millisecond to each call that looks for a file or a folder, as a network file system does. The images
are made by the process beside the flow's; with `--here` by the flow's own, with `--workers` by two processes of the
run's own, with `--cluster` by a worker of a Dask scheduler.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np

from benchmarks.processes import Done, run, wait
from t2i_core.errors import Stopped
from t2i_core.generation.interface import GeneratedImage, Pixels

PHASES = ("plan", "first", "submit", "adopt", "unchanged", "inserted")
INSERTED = 1000
SUBMITTED = 2000
# In the environment of the processes of a run: the simulated seconds an image.
SECONDS = "T2I_BENCH_SECONDS"
SLOW = Path(__file__).with_name("slow_files.c")


class Runs:
    """The flow over a made-up data set of so many rows, in a folder of its own."""

    def __init__(self, folder: Path, rows: int, slow: bool, elsewhere: list[str]) -> None:
        """`elsewhere`: options that say which processes make the images."""
        self.rows, self.home, self.elsewhere = rows, folder / f"rows{rows}", elsewhere
        self.environment = {"LD_PRELOAD": str(slow_files(folder)), "SLOW_FILES": str(self.home)} if slow else {}
        if not (self.home / "prompts.jsonl").exists():
            run("benchmarks.made_up", rows, self.home)

    def plan(self) -> dict[str, float]:
        return self._flow("new", "--dry-run")

    def first(self) -> dict[str, float]:
        """Stop the run once it has read the data set to its end, and made an image."""
        new = self._new()
        started = time.perf_counter()
        with tempfile.TemporaryFile("w+") as log:
            arguments = self._arguments(new)
            process = subprocess.Popen(self._command(0.1, *arguments), stdout=log, stderr=log, env=self._env())
            times: dict[str, float] = {}
            while len(times) < 2 and process.poll() is None:
                time.sleep(0.05)
                if "first" not in times and next((new / ".t2i/images").glob("*/*/*.png"), None):
                    times["first"] = time.perf_counter() - started
                if "plan" not in times and next((new / ".t2i/results").glob("plan-*/*"), None):
                    times["plan"] = time.perf_counter() - started
            process.send_signal(signal.SIGTERM)
            code, cpu_seconds, peak_bytes = wait(process)
            log.seek(0)
            assert code in (143, -signal.SIGTERM), log.read()[-2000:]
        return figures(Done("", times["first"], cpu_seconds, peak_bytes)) | {"plan": times["plan"]}

    def submit(self) -> dict[str, float]:
        result = self._flow("new", f"--part=1/{max(1, self.rows // SUBMITTED)}")
        return result | ({"images/s": result.pop("images") / result["generate"]} if "images" in result else {})

    def adopt(self) -> dict[str, float]:
        shutil.rmtree(self.home / "out/.t2i/records", ignore_errors=True)
        shutil.rmtree(self.home / "out/.t2i/results", ignore_errors=True)
        return self._checked(images_generated=0)

    def unchanged(self) -> dict[str, float]:
        return self._checked(images_generated=0)

    def inserted(self) -> dict[str, float]:
        dataset = self.home / "prompts.jsonl"
        lines = dataset.read_text(encoding="utf-8").splitlines(keepends=True)
        for number in range(INSERTED):
            message = {"role": "user", "content": f"a drawing of object {number}, {len(lines)}"}
            lines.insert(random.randrange(len(lines)), json.dumps({"conversations": [message]}) + "\n")
        dataset.write_text("".join(lines), encoding="utf-8")
        result = self._checked(images_generated=INSERTED)
        work = json.loads((self.home / "out/run.json").read_text())["work"]
        assert (work["images"], work["batches"]) == (INSERTED, INSERTED // work["batch_size"]), work
        return result

    def _checked(self, **expected: int) -> dict[str, float]:
        result = self._flow("out")
        counts = json.loads((self.home / "out/run.json").read_text())["accounting"]
        assert counts["images_failed"] == counts["images_pending"] == 0, counts
        assert {name: counts[name] for name in expected} == expected, counts
        return result

    def _flow(self, output: str, *more: str) -> dict[str, float]:
        folder = self._new() if output == "new" else self.home / output
        with environment(self.environment):
            done = run("benchmarks.scale", "--child", "0", *self._arguments(folder), *more)
        return figures(done) | json.loads(done.output.splitlines()[-1])

    def _arguments(self, output: Path) -> list[str]:
        return [f"--dataset={self.home / 'prompts.jsonl'}", f"--output={output}", "--model=demo", *self.elsewhere]

    def _command(self, seconds: float, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "benchmarks.scale", "--child", str(seconds), *arguments]

    def _env(self) -> dict[str, str]:
        return os.environ | self.environment

    def _new(self) -> Path:
        new = self.home / "new"
        shutil.rmtree(new, ignore_errors=True)
        return new


def figures(done: Done) -> dict[str, float]:
    return {"seconds": done.seconds, "cpu": done.cpu_seconds, "peak MB": done.peak_bytes / 1e6}


class environment:
    """The environment of children with some more variables for the block."""

    def __init__(self, more: dict[str, str]) -> None:
        self.more = more

    def __enter__(self) -> None:
        os.environ |= self.more

    def __exit__(self, *_: object) -> None:
        for name in self.more:
            del os.environ[name]


def slow_files(folder: Path) -> Path:
    """Return a library that makes a process wait for files as on a network file system, compiled to `folder`."""
    library = folder / "slow_files.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-O2", "-o", library, SLOW, "-ldl"], check=True)
    return library


class Generator:
    """A model that makes 64x64 images in no time, or in so many seconds each: `ImageGenerator`, without torch."""

    device = "simulated"
    versions: dict[str, str] = {}  # noqa: RUF012 - of no library

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        rng = np.random.default_rng(0)
        self.pixels = [rng.integers(0, 256, (64, 64, 3), np.uint8) for _ in range(8)]

    def generate(self, batches, batch_size, should_stop, timings, on_step):
        for batch in batches:
            time.sleep(self.seconds * len(batch))
            if should_stop():
                raise Stopped
            yield [self.image(spec) for spec in batch]

    def image(self, spec) -> GeneratedImage:
        values = self.pixels[spec.seed % len(self.pixels)]
        low, high = values.min((0, 1)) / np.float32(255), values.max((0, 1)) / np.float32(255)
        return GeneratedImage(lambda: Pixels(values, low, high), lambda: self.seconds, 4, False)


def simulate(seconds: float) -> None:
    """Put the simulated model in the place of the real one, in this process."""
    import tasks.generation

    generator = Generator(seconds)
    tasks.generation.load_generator = lambda *_: generator


def serve() -> None:
    """Make the calls of a flow, as `tasks.serving` does."""
    import tasks.serving

    simulate(float(os.environ[SECONDS]))
    tasks.serving.serve()


def dask_setup(worker: object) -> None:
    """Prepare a worker of `--cluster` as that of a run; Dask calls this by name."""
    import tasks.elsewhere

    tasks.elsewhere.dask_setup(worker)
    simulate(0)


@contextmanager
def cluster(folder: Path) -> Iterator[str]:
    """A scheduler with a worker, for the block: its address."""
    from tests.dask_cluster import Cluster, has_workers, until

    started = Cluster(folder)
    try:
        started.start_worker("benchmarks.scale")
        until(lambda: has_workers(started.address))
        yield started.address
    finally:
        started.end()


def child(seconds: float, arguments: list[str]) -> int:
    """Run the flow with a simulated model; print, as JSON, seconds of its stages."""
    import flows.generating
    import flows.served
    import tasks.dataset
    import tasks.manifest
    import tasks.records
    from flows.cli import main

    stages: dict[str, float] = {}

    def timed(name: str, place: object, function: str) -> None:
        inner = getattr(place, function)

        def outer(*given, **named):
            started = time.perf_counter()
            try:
                return inner(*given, **named)
            finally:
                stages[name] = stages.get(name, 0.0) + time.perf_counter() - started

        setattr(place, function, outer)

    timed("read", tasks.dataset, "write_plan")
    timed("records", tasks.records, "collect_records")
    timed("manifest", tasks.manifest, "write_manifest")
    timed("generate", flows.generating.Generating, "__call__")
    images = []
    note = flows.generating.Generating._note

    def noted(self, flight, result, shown) -> None:
        images.append(len(flight.work.shard.requests))
        note(self, flight, result, shown)

    flows.generating.Generating._note = noted
    flows.served.MODULE = "benchmarks.scale"
    os.environ[SECONDS] = str(seconds)
    if "--workers=0" in arguments:
        simulate(seconds)
    code = main(arguments)
    print(json.dumps(stages | ({"images": sum(images)} if images else {})))
    return code


def main() -> None:
    if sys.argv[1:2] == ["--child"]:
        raise SystemExit(child(float(sys.argv[2]), sys.argv[3:]))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="*", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--phases", nargs="*", choices=PHASES, default=PHASES)
    parser.add_argument("--folder", type=Path, help="keep the made-up images here")
    parser.add_argument("--slow", action="store_true", help="a millisecond for each look at a file")
    others = parser.add_mutually_exclusive_group()
    others.add_argument("--here", action="store_true", help="the flow's own process makes the images")
    others.add_argument("--workers", action="store_true", help="two processes of the run's own make the images")
    others.add_argument("--cluster", action="store_true", help="a worker of a Dask scheduler makes them")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args()
    from tests import prefect_server  # not in the flow's process, whose memory is measured: it imports pytest

    results: dict[str, dict[str, float]] = {}
    with ExitStack() as stack:
        temporary = stack.enter_context(tempfile.TemporaryDirectory())
        stack.enter_context(prefect_server.serve(Path(temporary) / "prefect"))
        elsewhere = ["--workers=2"] if options.workers else ["--workers=0"] if options.here else []
        if options.cluster:
            elsewhere = [f"--dask-scheduler={stack.enter_context(cluster(Path(temporary)))}"]
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        print("| phase | rows | seconds | CPU seconds | peak MB | stages |\n|---|---|---|---|---|---|")
        for rows in options.rows:
            runs = Runs(folder.resolve(), rows, options.slow, elsewhere)
            for phase in options.phases:
                found = results[f"{phase}.{rows}"] = getattr(runs, phase)()
                told = [f"{found[name]:.1f}" for name in ("seconds", "cpu")] + [f"{found['peak MB']:.0f}"]
                stages = [
                    f"{name} {value:.1f}" for name, value in found.items() if name not in ("seconds", "cpu", "peak MB")
                ]
                print(f"| {phase} | {rows:,} | {' | '.join(told)} | {', '.join(stages)} |", flush=True)
    low, high = min(options.rows), max(options.rows)
    for phase in options.phases if low < high else ():
        growth = [results[f"{phase}.{high}"][name] - results[f"{phase}.{low}"][name] for name in ("cpu", "peak MB")]
        time_, memory = (value / (high - low) * 1e6 for value in growth)
        print(f"{phase}: {time_:.0f} µs and {memory:.0f} bytes a row")
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
elif __name__ == "__mp_main__":  # a process of `--workers`
    simulate(0)
