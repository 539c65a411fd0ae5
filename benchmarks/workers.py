"""Whether several processes make as many times the images: `--workers`, `--part`, the demo model with a thread each.

    python -m benchmarks.workers [--ways workers parts demo bare] [--counts 1 2 4 8] [--images 160] [--rounds 3]

Whole flows run as real processes, with a Prefect server of their own. For `workers` and `parts` the model is
simulated: it sleeps `--seconds` for each image, so that a few cores can serve eight of it, and makes images of 64x64.
`demo` is the bundled model, with a thread for each process. `--images` are those of each process. `bare` is the same
model in processes that know nothing of each other, without a flow: what this machine's cores are worth together, and so
the most that `demo` can reach. With `--rounds`, everything is measured so often, in turns, for the speed of a machine
changes; then there are medians, too.

Of each run, in seconds: `begin`, from the start of the command until the first process generates; `all`, until all
do; `end`, from the last image to the end of the command. Of what is between `all` and the last image: `images/s`, and
how many times the first run's that is (`times`). `steady` is the same up to when the first process has nothing left to
do, and `busy` the share of that time in which the model works; both are nan where the processes did not all generate at
the same time: take more images. `batch` is how long a batch took over what it should.

Of Prefect's server, asked once a second (`demo`: every ten, for that takes some of the cores): how long after its end
a task run is seen as `Completed` (`lag`: median and maximum), how long after its start a flow run is seen (`flow lag`),
and how long after the end of the command the last task run came (`drain`).
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

import tasks.generation
import tasks.serving
from tasks.process import import_engine
from tests import prefect_server

WAYS = ("workers", "parts", "demo", "bare")
BARE_SECONDS = 20.0
# Between two looks at the server, where two workers need both cores: each look takes some of them.
DEMO_LOOK_SECONDS = 10.0
BATCH_SIZE = 4
SIDE, STEPS = 64, 4
# In the environment of the processes of a run: a folder for what they did, and the simulated seconds an image.
FOLDER, SECONDS = "T2I_BENCH_FOLDER", "T2I_BENCH_SECONDS"


# What runs in the processes of a flow.


class Logged:
    """An `ImageGenerator` that writes down when each batch began and ended, by the clock of the machine."""

    def __init__(self, inner) -> None:
        self.inner, self.device, self.versions = inner, inner.device, inner.versions
        self.log = (Path(os.environ[FOLDER]) / f"{os.getpid()}.log").open("a", buffering=1)

    def generate(self, batches, batch_size, should_stop, timings, on_step):
        generated = self.inner.generate(batches, batch_size, should_stop, timings, on_step)
        while True:
            began = time.time()
            images = next(generated, None)
            if images is None:
                return
            self.log.write(f"{began} {time.time()} {len(images)}\n")
            yield images


def simulated(seconds: float):
    """Return the generator of a model that sleeps `seconds` for each image."""
    from benchmarks.simulated import Case, SimulatedStages
    from t2i_core.engine.batch_generator import BatchGenerator

    class Sleeping(SimulatedStages):
        def encode(self, spec) -> None:
            """Take no time."""

        def denoise(self, specs, on_step):
            for step in range(STEPS):
                time.sleep(seconds * len(specs) / STEPS)
                on_step(step + 1, STEPS)

        def decode(self, denoised, index, spec):
            return self._images[spec.seed % len(self._images)]

    return BatchGenerator(Sleeping(Case(SIDE, STEPS, 0)), "simulated", {})


_loaded: dict[str, Logged] = {}
_load = tasks.generation.load_generator


def load_generator(load_config, run=None) -> Logged:
    """Return the simulated model or the real one, loaded once a process."""
    if "model" not in _loaded:
        import_engine()  # as all processes of a real run do
        seconds = float(os.environ[SECONDS])
        _loaded["model"] = Logged(simulated(seconds) if seconds else _load(load_config, run))
    return _loaded["model"]


if FOLDER in os.environ:  # the processes of a flow import this module, too
    tasks.generation.load_generator = load_generator


def serve() -> None:
    """Make the calls of a flow, as `tasks.serving` does."""
    tasks.serving.serve()


# What measures them.


class Watch:
    """Looks every so many seconds at what Prefect's server knows, for the block."""

    def __init__(self, url: str, seconds: float) -> None:
        self.url, self.seconds = url, seconds
        self.lags: dict[str, list[float]] = {"task_runs": [], "flow_runs": []}
        self.last = 0.0  # when a task run was last seen for the first time
        self._seen: set[str] = set()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self) -> "Watch":
        self._look(note=False)  # of earlier runs
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def wait(self) -> None:
        """Wait until nothing new has been seen for a while."""
        begun = time.time()
        while time.time() - max(self.last, begun) < max(5, 2 * self.seconds):
            time.sleep(0.2)

    def _follow(self) -> None:
        while not self._ended.wait(self.seconds):
            self._look()

    def _look(self, *, note: bool = True) -> None:
        finished = {"task_runs": {"state": {"type": {"any_": ["COMPLETED"]}}}}
        started = {"flow_runs": {"state": {"type": {"any_": ["RUNNING"]}}}}
        for kind, body, field in (
            ("task_runs", finished | {"sort": "END_TIME_DESC", "limit": 200}, "end_time"),
            ("flow_runs", started, "start_time"),
        ):
            for run in self._ask(f"{kind}/filter", body):
                if run["id"] not in self._seen and run[field]:
                    self._seen.add(run["id"])
                    now = datetime.now(UTC)
                    if note:
                        self.lags[kind].append((now - datetime.fromisoformat(run[field])).total_seconds())
                        self.last = now.timestamp() if kind == "task_runs" else self.last

    def _ask(self, path: str, body: object) -> list[dict[str, str]]:
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"{self.url}/{path}", json.dumps(body).encode(), headers)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.loads(answer.read())


def measure(way: str, count: int, images: int, seconds: float, folder: Path, url: str) -> dict[str, float]:
    """Run the flow with `count` processes; return what was measured."""
    folder.mkdir(parents=True)
    prompts, logs = folder / "prompts.txt", folder / "logs"
    logs.mkdir()
    prompts.write_text("".join(f"a photograph of object number {i} on a table\n" for i in range(images)))
    flags = [f"--dataset={prompts}", f"--output={folder / 'out'}", "--model=demo", f"--batch-size={BATCH_SIZE}"]
    flags += [] if way == "demo" else [f"--height={SIDE}", f"--width={SIDE}", f"--steps={STEPS}"]
    each = [[f"--part={i}/{count}"] for i in range(1, count + 1)] if way == "parts" else [[f"--workers={count}"]]
    environment = os.environ | {FOLDER: str(logs), SECONDS: str(0 if way == "demo" else seconds)}
    if way == "demo":
        environment["OMP_NUM_THREADS"] = str(count)  # divided among the processes
    started = time.time()
    with Watch(url, DEMO_LOOK_SECONDS if way == "demo" else 1) as watch:
        run_all([[*flags, *more] for more in each], environment, folder)
        ended = time.time()
        watch.wait()
    nominal = 0 if way == "demo" else seconds * BATCH_SIZE
    lags = watch.lags["task_runs"]
    server = {
        "task runs": len(lags),
        "lag": statistics.median(lags),
        "max lag": max(lags),
        "flow lag": max(watch.lags["flow_runs"]),
        "drain": max(0.0, watch.last - ended),
    }
    return timeline(list(read_logs(logs)), count, images, nominal, started, ended) | server


def measure_bare(count: int) -> dict[str, float]:
    """Return what `count` processes make that generate with the demo model, at the same time, and do nothing else."""
    command = [sys.executable, "-m", "benchmarks.workers", "--bare"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with ExitStack() as stack:
        processes = []
        for _ in range(count):
            processes.append(subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, **pipes))
            stack.callback(processes[-1].kill)
        for process in processes:
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            process.stdin.write("go\n")
            process.stdin.flush()
        speed = sum(float(process.communicate()[0]) for process in processes)
    return dict.fromkeys((*COLUMNS, *SERVER_COLUMNS), math.nan) | {"images/s": speed, "steady": speed}


def generate_bare() -> None:
    """Print how fast this process generates, once all others are ready."""
    from benchmarks.busy import images_per_second

    def ready() -> None:
        print("ready", flush=True)
        sys.stdin.readline()

    print(images_per_second(BARE_SECONDS, ready))


def run_all(arguments: list[list[str]], environment: dict[str, str], folder: Path) -> None:
    """Run a flow with each of `arguments`, all at once."""
    processes = []
    for number, flags in enumerate(arguments):
        with (folder / f"{number}.txt").open("w") as log:
            command = [sys.executable, "-m", "benchmarks.workers", "--flow", *flags]
            processes.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log))
    for number, process in enumerate(processes):
        if process.wait() != 0:
            text = (folder / f"{number}.txt").read_text()
            raise SystemExit(f"a flow ended with {process.returncode}:\n{text[-2000:]}")


# When a batch began and ended, and how many images it has.
Batch = tuple[float, float, int]


def read_logs(folder: Path) -> Iterator[list[Batch]]:
    """Yield the batches of each process."""
    for file in folder.iterdir():
        rows = (line.split() for line in file.read_text().splitlines())
        yield [(float(began), float(ended), int(images)) for began, ended, images in rows]


def timeline(
    processes: list[list[Batch]], count: int, images: int, nominal: float, started: float, ended: float
) -> dict[str, float]:
    """Return how the time between start and end of a command was spent."""
    batches = [batch for process in processes for batch in process]
    assert len(processes) == count, f"{len(processes)} of {count} processes generated"
    assert sum(batch[2] for batch in batches) == images, "images were made twice, or not at all"
    begins = [process[0][0] for process in processes]
    ends = [process[-1][1] for process in processes]
    made, _ = within(batches, max(begins), max(ends))
    steady, busy = within(batches, max(begins), min(ends))
    together = min(ends) - max(begins) if max(begins) < min(ends) else math.nan
    return {
        "begin": min(begins) - started,
        "all": max(begins) - started,
        "end": ended - max(ends),
        "images/s": made / (max(ends) - max(begins)),
        "steady": steady / together,
        "busy": busy / count / together,
        "batch": statistics.mean(batch[1] - batch[0] for batch in batches) / nominal if nominal else 1.0,
    }


def within(batches: list[Batch], start: float, end: float) -> tuple[float, float]:
    """Return how many images were made in a stretch of time, and the seconds of the model in it, of all processes.

    Images of a batch that was cut by an end of the stretch count in proportion.
    """
    cut = [(max(0.0, min(end, ended) - max(start, began)), ended - began, images) for began, ended, images in batches]
    return sum(images * inside / whole for inside, whole, images in cut), sum(inside for inside, _, _ in cut)


COLUMNS = ("images/s", "times", "steady", "steady times", "busy", "batch", "begin", "all", "end")
SERVER_COLUMNS = ("task runs", "lag", "max lag", "flow lag", "drain")


def line(way: str, count: int | str, found: dict[str, float]) -> str:
    """Return a row of the table."""
    return f"| {way} | {count} | {' | '.join(f'{found[name]:.3g}' for name in (*COLUMNS, *SERVER_COLUMNS))} |"


def medians_of(rows: list[dict[str, float]]) -> dict[str, float]:
    """Return the median of each figure, without rounds that have none."""
    known = {name: [row[name] for row in rows if not math.isnan(row[name])] for name in rows[0]}
    return {name: statistics.median(values) if values else math.nan for name, values in known.items()}


def main() -> None:
    if sys.argv[1:2] == ["--flow"]:
        from flows import served
        from flows.cli import main as flow

        served.MODULE = "benchmarks.workers"
        raise SystemExit(flow(sys.argv[2:]))
    if sys.argv[1:2] == ["--bare"]:
        generate_bare()
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ways", nargs="*", choices=WAYS, default=WAYS)
    parser.add_argument(
        "--counts", type=int, nargs="*", default=[1, 2, 4, 8], help="processes; 1 and 2 for demo and bare"
    )
    parser.add_argument("--seconds", type=float, default=0.2, help="that a simulated image takes")
    parser.add_argument("--images", type=int, default=160, help="for each process")
    parser.add_argument("--rounds", type=int, default=1, help="measure all so often, in turns")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args()
    runs = [(way, count) for way in options.ways for count in ([1, 2] if way in ("demo", "bare") else options.counts)]
    rounds: list[dict[str, dict[str, float]]] = []
    columns = (*COLUMNS, *SERVER_COLUMNS)
    print(f"| way | processes | {' | '.join(columns)} |\n|{'---|' * (len(columns) + 2)}")
    with tempfile.TemporaryDirectory() as temporary, prefect_server.serve(Path(temporary) / "prefect") as url:
        for number in range(options.rounds):
            results: dict[str, dict[str, float]] = {}
            rounds.append(results)
            for way, count in runs:
                folder = Path(temporary) / f"{way}{count}-{number}"
                if way == "bare":
                    found = measure_bare(count)
                else:
                    found = measure(way, count, count * options.images, options.seconds, folder, url)
                first = next((results[name] for name in results if name.startswith(f"{way}.")), found)
                found["times"] = found["images/s"] / first["images/s"]
                found["steady times"] = found["steady"] / first["steady"]
                results[f"{way}.{count}"] = found
                print(line(way, count, found), flush=True)
    medians = {name: medians_of([results[name] for results in rounds]) for name in rounds[0]}
    if options.rounds > 1:
        print("\nmedians:")
        for name, found in medians.items():
            print(line(*name.split("."), found))
    if options.json:
        options.json.write_text(json.dumps(medians, indent=1) + "\n")


if __name__ == "__main__":
    main()
