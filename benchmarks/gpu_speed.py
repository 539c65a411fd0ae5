"""Measures on a GPU what this engine and its options of speed are worth, without any model's weights.

    python -m benchmarks.gpu_speed [--models flux-dev sdxl] [--ways engine flash3] [--minutes 9] [--json FILE]

Pipelines of full size get random weights on the device (`random_models.py`): a step takes as long as with real ones,
and the images are noise. For each model and size it prints images a second of a plain diffusers loop, and as ratios to
it those of this engine and of each option; the peak of the device's memory; and how much of the time the device was
busy. Few denoising steps keep it short, so encoding and decoding weigh more than in a run. When the time is up, what
was not measured is named. Ways that are measured only where `--ways` names them: `max_autotune` and
`flash3_max_autotune`, which compile for minutes, and `tf32`, which needs `--dtype float32`.

`--device cpu` tries the script itself with tiny models.
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from benchmarks.processes import report
from t2i_core.engine.device import is_out_of_memory, release_memory, resolve_device
from t2i_core.engine.quiet import silence_libraries
from t2i_core.engine.tuning import check_tf32, set_tf32
from t2i_core.errors import ConfigError
from t2i_core.generation.interface import LoadConfig, Timings
from t2i_core.spec import ImageSpec

BATCH_SIZE = 4
SIZES = (512, 1024)
TINY_SIZES = (64, 96)
# Those after the first two are options of this tool, by what `LoadConfig` calls them.
WAYS: Mapping[str, Mapping[str, Any]] = {
    "plain": {},
    "engine": {},
    "compile": {"compile": True},
    "cudnn": {"attention": "cudnn"},
    "flash2": {"attention": "flash2"},
    "flash3": {"attention": "flash3"},
    "sage": {"attention": "sage"},
    "flash3_compile": {"attention": "flash3", "compile": True},
    "magcache": {"step_cache": "magcache"},
    "taylorseer": {"step_cache": "taylorseer"},
    "tf32": {"tf32": True},
    "max_autotune": {"compile": True, "compile_mode": "max-autotune"},
    "flash3_max_autotune": {"attention": "flash3", "compile": True, "compile_mode": "max-autotune"},
}
ON_REQUEST = {"tf32", "max_autotune", "flash3_max_autotune"}
# Its denoiser is that of flux-dev, so options change it as much.
WITHOUT_OPTIONS = {"flux-schnell"}
# One pass a step: guidance by a negative prompt takes two everywhere.
SETTINGS: Mapping[str, Mapping[str, float]] = {"qwen-image": {"true_cfg_scale": 1.0}}
# Of a usual length; those that are timed are new, so the engine has not encoded them yet.
WORDS = "a fox in the snow at night beside a small red boat on the sea under the moon and a house in a meadow by day"


class Measurement:
    """The figures of all models, sizes and ways, and the time that is left.

    `settings`: of the engine's images, beside those of each model; the plain loop keeps its own defaults.
    """

    def __init__(
        self, device: str, dtype: str, steps: int, minutes: float, settings: Mapping[str, float | None]
    ) -> None:
        self.device = torch.device(device)
        self.tiny = self.device.type == "cpu"
        self.dtype = "float32" if self.tiny else dtype
        self.steps = steps
        self.settings = settings
        self.end = time.perf_counter() + 60 * minutes
        self.figures: dict[str, float] = {}

    def measure(self, model: str, ways: list[str]) -> Iterator[str]:
        """Measure the ways of a model at each size; yield a line for each."""
        from benchmarks import random_models

        pipeline = random_models.make(model, self.device, getattr(torch, self.dtype), tiny=self.tiny)
        for way in ways:
            if time.perf_counter() > self.end:
                yield f"{model:14} {way:20} not measured: the time is up"
                continue
            try:
                yield from self._measure(model, way, pipeline)
            except ConfigError as error:
                yield f"{model:14} {way:20} not possible: {error}"
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                yield f"{model:14} {way:20} does not fit into the memory"
            release_memory(self.device)
            if WAYS[way]:
                torch.compiler.reset()  # which kept the weights of a compiled denoiser on the device
                random_models.renew_denoiser(pipeline, self.device, getattr(torch, self.dtype))
        del pipeline
        release_memory(self.device)

    def _measure(self, model: str, way: str, pipeline: Any) -> Iterator[str]:
        tf32 = WAYS[way].get("tf32", False)
        check_tf32(tf32, str(self.device), self.dtype)
        set_tf32(tf32)
        call = _plain(pipeline) if way == "plain" else self._engine(pipeline, WAYS[way])
        for side in TINY_SIZES if self.tiny else SIZES:
            settings = {"height": side, "width": side, **self.settings, **SETTINGS.get(model, {})}
            call(self._specs("to warm up", steps=2, **settings))
            if self.device.type == "cuda":
                torch.cuda.reset_peak_memory_stats(self.device)
            with _busy(self.device) as busy:
                started = time.perf_counter()
                call(self._specs("to time", steps=self.steps, **settings))
                seconds = time.perf_counter() - started
            name = f"{model}.{side}.{way}"
            speed = self.figures[f"{name}.images_a_second"] = BATCH_SIZE / seconds
            line = f"{model:14} {way:20} {side:5} {speed:8.3f} images/s"
            if plain := self.figures.get(f"{model}.{side}.plain.images_a_second"):
                self.figures[f"{name}.ratio"] = speed / plain
                line += f"  {speed / plain:5.2f}x plain"
            if self.device.type == "cuda":
                peak = self.figures[f"{name}.peak_gigabytes"] = torch.cuda.max_memory_allocated(self.device) / 1e9
                line += f"  {peak:5.1f} GB"
            if busy:
                share = self.figures[f"{name}.busy"] = sum(busy) / len(busy) / 100
                line += f"  {share:4.0%} busy"
            yield line

    def _engine(self, pipeline: Any, options: Mapping[str, Any]) -> Any:
        """Return a function that generates a batch by this engine, with `options` of a `LoadConfig`."""
        from t2i_core.engine.load import generator_of

        model = generator_of(
            pipeline, self.device, LoadConfig("", self.dtype, str(self.device), text_encoder="resident", **options)
        )

        def call(specs: list[ImageSpec]) -> None:
            (images,) = model.generate([specs], len(specs), lambda: False, Timings())
            for image in images:
                if isinstance(image, Exception):
                    raise image
                image.pixels()

        return call

    def _specs(self, words: str, **settings: Any) -> list[ImageSpec]:
        settings |= {"model": "random", "dtype": self.dtype}
        return [ImageSpec(prompt=f"{i} {words} {WORDS}", seed=i, **settings) for i in range(BATCH_SIZE)]


def _plain(pipeline: Any) -> Any:
    """Return a function that generates a batch as a loop over diffusers does."""

    def call(specs: list[ImageSpec]) -> None:
        guidance = {} if specs[0].true_cfg_scale is None else {"true_cfg_scale": specs[0].true_cfg_scale}
        pipeline(
            [spec.prompt for spec in specs],
            height=specs[0].height,
            width=specs[0].width,
            num_inference_steps=specs[0].steps,
            generator=[torch.Generator("cpu").manual_seed(spec.seed) for spec in specs],
            **guidance,
        )

    return call


@contextmanager
def _busy(device: torch.device) -> Iterator[list[float]]:
    """Yield a list that holds, at the end, how busy the card was at each tenth of a second, in percent."""
    shares: list[float] = []
    if device.type != "cuda":
        yield shares
        return
    command = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "-lms", "100"]
    command += ["-i", f"GPU-{torch.cuda.get_device_properties(device).uuid}"]
    try:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    except FileNotFoundError:
        yield shares
        return
    try:
        yield shares
    finally:
        process.terminate()
        output, _ = process.communicate()
        shares += [float(line) for line in output.split() if line.strip().isdigit()]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    models = ["flux-dev", "flux-schnell", "qwen-image", "z-image", "sdxl"]
    choices = [*models, "flux-quarter"]
    parser.add_argument(
        "--models", nargs="+", choices=choices, default=models, metavar="MODEL", help=", ".join(choices)
    )
    parser.add_argument("--ways", nargs="+", choices=WAYS, metavar="WAY", help=", ".join(WAYS))
    parser.add_argument("--steps", type=int, default=8, help="denoising steps (default: 8)")
    parser.add_argument(
        "--max-sequence-length", type=int, metavar="N", help="tokens of the engine's prompts (default: the model's)"
    )
    parser.add_argument("--minutes", type=float, default=9, help="begin nothing new after so many (default: 9)")
    parser.add_argument("--device", default="cuda")
    parser.add_argument(
        "--dtype", choices=["bfloat16", "float32"], default="bfloat16", help="on a GPU (default: bfloat16)"
    )
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args()
    silence_libraries()
    from t2i_core.engine.quiet import silence_diffusers

    silence_diffusers()
    try:
        device, settings = resolve_device(options.device), {"max_sequence_length": options.max_sequence_length}
        measurement = Measurement(device, options.dtype, options.steps, options.minutes, settings)
    except ConfigError as error:
        print(f"nothing to measure: {error}", file=sys.stderr)
        return 2
    for model in options.models:
        ways = [way for way in WAYS if way not in ON_REQUEST and (model not in WITHOUT_OPTIONS or not WAYS[way])]
        for line in measurement.measure(model, options.ways or ways):
            print(line, flush=True)
    report(measurement.figures, options.json)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
