"""Measures the share of the time in which a simulated accelerator is busy while the rest of the work is real.

    python -m benchmarks.simulated {flow,plain,reference} CASE IMAGES FOLDER

Denoising, encoding and decoding take the times of a published run of FLUX.1-dev on an H100 (3.96 s for an image of
1024x1024 at 28 steps, compiled), divided among them by their FLOPs; their results are made up. Everything else is real:
pixels of full size, checks, PNG, files, Prefect. Each step holds Python's lock for a part of its time, as launching
kernels does: a mere sleep would leave the other threads more time than they really have. Nothing was measured on a GPU.
"""

import json
import os
import sys
import time
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

LOCKED_SHARE = 0.15  # of a step's time, in which no other thread can run Python
BATCH_SIZE = 4
# In the environment of the processes of a run: the case, and a file for how long the device worked, and since when.
CASE, NOTE = "T2I_BENCH_CASE", "T2I_BENCH_NOTE"
SECONDS_PER_TFLOP = 3.96 / (28 * 74.4)
ENCODE_TFLOP = 4.84
TFLOP = {512: (21.5, 2.5), 1024: (74.4, 10.5)}  # of a denoising step, of decoding


@dataclass(frozen=True)
class Case:
    """A model and its settings. `images` are enough for a steady state."""

    side: int
    steps: int
    images: int

    @property
    def step_seconds(self) -> float:
        return TFLOP[self.side][0] * SECONDS_PER_TFLOP

    @property
    def decode_seconds(self) -> float:
        return TFLOP[self.side][1] * SECONDS_PER_TFLOP


CASES = {
    "flux_dev_1024": Case(1024, 28, 16),
    "flux_dev_512": Case(512, 20, 40),
    "flux_schnell_1024": Case(1024, 4, 60),
    "flux_schnell_512": Case(512, 4, 120),
    "one_step_512": Case(512, 1, 240),
}


class Device:
    """An accelerator that does one thing after another, and adds up the seconds."""

    def __init__(self) -> None:
        self.busy = 0.0
        self.started: float | None = None

    def work(self, seconds: float) -> None:
        """Work for so long, and leave a note of how long that was in all."""
        if self.started is None:
            self.started = time.time()
        end = time.perf_counter() + seconds
        locked = time.perf_counter() + LOCKED_SHARE * seconds
        while time.perf_counter() < locked:
            pass
        time.sleep(max(0.0, end - time.perf_counter()))
        self.busy += seconds
        if path := os.environ.get(NOTE):
            Path(path).write_text(json.dumps([self.busy, self.started]))


def made_up_image(side: int, seed: int) -> torch.Tensor:
    """Return (3, side, side) in 0..1 that is as hard to compress as a photograph: waves and a little noise."""
    rng = np.random.default_rng(seed)
    across = np.linspace(0, 6, side, dtype=np.float32)
    waves = [np.sin(across * rng.uniform(1, 3))[:, None] * np.cos(across * rng.uniform(1, 3)) for _ in range(3)]
    noise = rng.standard_normal((3, side, side), dtype=np.float32) * 0.008
    return torch.from_numpy((np.stack(waves) * 0.4 + 0.5 + noise).clip(0, 1))


class SimulatedStages:
    """`Stages` whose work is simulated, in place of `FluxStages`."""

    device = torch.device("cpu")
    decodes_apart = True

    def __init__(self, case: Case) -> None:
        self.case = case
        self.accelerator = Device()
        self._texts: set[str] = set()
        self._images = [made_up_image(case.side, seed) for seed in range(8)]

    def encoding(self):
        return nullcontext()

    def encode(self, spec) -> None:
        if spec.prompt not in self._texts:
            self._texts.add(spec.prompt)
            self.accelerator.work(ENCODE_TFLOP * SECONDS_PER_TFLOP)

    def wants_more_texts(self) -> bool:
        return False

    def denoise(self, specs, on_step) -> torch.Tensor:
        for step in range(self.case.steps):
            self.accelerator.work(self.case.step_seconds * len(specs))
            on_step(step + 1, self.case.steps)
        return torch.empty(len(specs))

    def decode(self, denoised, index, spec) -> torch.Tensor:
        self.accelerator.work(self.case.decode_seconds)
        return self._images[spec.seed % len(self._images)]

    def images_a_call(self, batch_size: int) -> int:
        return batch_size

    def set_vae_tiling(self, on: bool) -> bool:
        return False


def serve() -> None:
    """Make the calls of a flow, as `tasks.serving` does, with a simulated model."""
    from t2i_core.engine.quiet import silence_libraries

    silence_libraries()
    import t2i_core.engine.load as load
    import tasks.serving
    from t2i_core.engine.batch_generator import BatchGenerator

    stages = SimulatedStages(CASES[os.environ[CASE]])
    load.load_model = lambda load_config: BatchGenerator(stages, "simulated", {})
    tasks.serving.serve()


def flow(stages: SimulatedStages, prompts: Path, folder: Path) -> None:
    """Run the flow as a user does, but with a simulated model, in the process that has it."""
    from flows import served
    from flows.cli import main

    served.MODULE = "benchmarks.simulated"
    case = stages.case
    arguments = [f"--dataset={prompts}", "--model=demo", f"--output={folder}", f"--batch-size={BATCH_SIZE}"]
    arguments += [f"--height={case.side}", f"--width={case.side}", f"--steps={case.steps}"]
    if main(arguments) != 0:
        raise SystemExit("the flow failed")


def loop(stages: SimulatedStages, prompts: Path, folder: Path) -> None:
    """Work batch after batch, and save each image by image before the next batch: a plain loop, and the reference.

    On one device the two differ in what they keep (files alone, or paths for a manifest at the end), not in how long
    they wait.
    """
    texts = prompts.read_text(encoding="utf-8").splitlines()
    case = stages.case
    folder.mkdir(parents=True)
    for start in range(0, len(texts), BATCH_SIZE):
        batch = texts[start : start + BATCH_SIZE]
        for _ in batch:
            stages.accelerator.work(ENCODE_TFLOP * SECONDS_PER_TFLOP)
        for _ in range(case.steps):
            stages.accelerator.work(case.step_seconds * len(batch))
        decoded = []
        for i in range(len(batch)):
            stages.accelerator.work(case.decode_seconds)
            decoded.append(stages._images[(start + i) % 8])
        # As diffusers' image processor does it.
        arrays = (torch.stack(decoded).permute(0, 2, 3, 1).numpy() * 255).round().astype("uint8")
        for i, array in enumerate(arrays):
            Image.fromarray(array).save(folder / f"{start + i}.png")


def main() -> None:
    way, name, images, folder = sys.argv[1], sys.argv[2], int(sys.argv[3]), Path(sys.argv[4])
    prompts = folder.with_suffix(".txt")
    prompts.write_text("".join(f"a photograph of object number {i} on a table\n" for i in range(images)))
    note = folder.with_suffix(".note")
    os.environ |= {CASE: name, NOTE: str(note)}
    stages = SimulatedStages(CASES[name])
    {"flow": flow, "plain": loop, "reference": loop}[way](stages, prompts, folder)
    files = [path for path in folder.rglob("*.png") if ".t2i" in path.parts or way != "flow"]
    assert len(files) == images, f"{len(files)} of {images}"
    # From the first work of the device to the last image on disk.
    busy, started = json.loads(note.read_text())
    wall = max(path.stat().st_mtime for path in files) - started
    print(json.dumps({"busy_share": busy / wall, "seconds": wall}))


if __name__ == "__main__":
    main()
