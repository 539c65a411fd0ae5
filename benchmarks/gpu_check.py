"""Checks on a GPU what only a GPU can show, in less than ten minutes with a model that is downloaded already.

    python -m benchmarks.gpu_check [CHECK ...] [--model flux-schnell] [--json FILE]

It checks the claims of `docs/unmeasured.md` that name a check, or those named, prints for each whether it holds, and
prints the figures as a table. `max_autotune` takes some minutes more with a large model. A model other than `demo`
comes from the hub's cache, or is downloaded first; `benchmarks.random_models` makes folders of full width without any
download, for which `--steps 8 --size 512` is quick. `--device cpu` tries the script itself.
"""

import argparse
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from benchmarks.processes import report
from t2i_core.config import Config
from t2i_core.engine.batch_generator import BatchGenerator
from t2i_core.engine.device import is_out_of_memory, release_memory, resolve_device
from t2i_core.engine.quiet import silence_libraries
from t2i_core.errors import ConfigError
from t2i_core.generation.interface import LoadConfig, Timings
from t2i_core.models.identity import bundled_identity, resolve_model
from t2i_core.models.preset_choice import find_preset
from t2i_core.models.presets import repository_of
from t2i_core.models.sampling import resolve_sampling
from t2i_core.models.weights import fetch_weights
from t2i_core.spec import ImageSpec

PROMPTS = ("a fox in the snow at night", "a boat on the sea at dusk", "a cat", "a house in a meadow by day")
BATCH_SIZE = 4


class Check:
    """The model and the device of all checks; each check is a method that returns its verdict or raises."""

    def __init__(self, name: str, device: str, **settings: int | None) -> None:
        config = Config.from_values({"dataset": "none", "model": name, **settings})
        model = resolve_model(repository_of(name), revision=None, cache_dir=None, commit=None)
        preset = find_preset(name, model, bundled_identity())
        sampling = resolve_sampling(config, preset)
        path = fetch_weights(model, cache_dir=None, local_dir=None)
        self.device = torch.device(device)
        self.load_config = LoadConfig(str(path), preset.dtype, device)
        fields = {f: getattr(sampling, f) for f in sampling.__dataclass_fields__ if f != "scheduler"}
        self.specs = [
            ImageSpec(model=model.identity, prompt=prompt, seed=i, dtype=preset.dtype, **fields)
            for i, prompt in enumerate(PROMPTS)
        ]
        self.figures: dict[str, float] = {}
        self._plain: list[np.ndarray] = []

    def generate(self, specs: list[ImageSpec], batch_size: int = BATCH_SIZE, **changes: object) -> list[np.ndarray]:
        """Return the bytes of `specs` with the model loaded as `changes` say; keep the time and the peak memory."""
        model = self._load(**changes)
        for _ in ("to warm up", "to time"):
            if self.device.type == "cuda":
                torch.cuda.reset_peak_memory_stats(self.device)
            started = time.perf_counter()
            batches = [specs[i : i + batch_size] for i in range(0, len(specs), batch_size)]
            images = [
                image if isinstance(image, Exception) else image.pixels().values
                for part in model.generate(batches, batch_size, lambda: False, Timings())
                for image in part
            ]
            seconds = time.perf_counter() - started
            for image in images:
                if isinstance(image, Exception):
                    raise image
        if len(specs) < len(self.specs):  # a batch that is padded
            return images
        name = _name(changes)
        self.figures[f"{name}.seconds_an_image"] = seconds / len(specs)
        if self.device.type == "cuda":
            self.figures[f"{name}.peak_gigabytes"] = torch.cuda.max_memory_reserved(self.device) / 1e9
        return images

    def batch_mates(self) -> str:
        """An image is the same bytes whatever its batch mates, at any index, and alone."""
        together = self.generate(self.specs)
        backwards = self.generate(self.specs[::-1])[::-1]
        alone = self.generate(self.specs[:1])
        assert all((a == b).all() for a, b in zip(together, backwards, strict=True)), "the order changes an image"
        assert (alone[0] == together[0]).all(), "an image changes when it is generated alone"
        return "bit-identical"

    def staged(self) -> str:
        """Staged text encoders generate the same bytes."""
        assert all((a == b).all() for a, b in self._beside(text_encoder="staged")), "the image changes"
        return "bit-identical"

    def offload_model(self) -> str:
        """Offloading by the model generates the same image, with less memory."""
        return self._close(0.02, smaller=True, offload="model")

    def offload_group(self) -> str:
        """Offloading by the layer generates the same image, with less memory."""
        return self._close(0.02, smaller=True, offload="group")

    def compiled(self) -> str:
        """Compiled blocks generate the same image, faster."""
        return self._faster(0.02, compile=True)

    def max_autotune(self) -> str:
        """Compiled with --compile-mode max-autotune it generates the same image, faster."""
        return self._faster(0.02, compile=True, compile_mode="max-autotune")

    def cudnn(self) -> str:
        """--attention cudnn generates the same image, whatever its batch mates."""
        return self._attention("cudnn", 0.02)

    def flash2(self) -> str:
        """--attention flash2 generates the same image, whatever its batch mates."""
        return self._attention("flash2", 0.02)

    def flash3(self) -> str:
        """--attention flash3 generates the same image, whatever its batch mates."""
        return self._attention("flash3", 0.02)

    def sage(self) -> str:
        """--attention sage generates an image close to it, whatever its batch mates."""
        return self._attention("sage", 0.1)

    def flash3_compiled(self) -> str:
        """--attention flash3 with --compile generates the same image, faster."""
        self._check_attention("flash3")
        return self._faster(0.02, attention="flash3", compile=True)

    def tf32(self) -> str:
        """float32 in TF32 generates the same image, faster."""
        if self.device.type != "cuda":
            raise ConfigError(["tf32: needs CUDA"])
        plain, self.load_config = self.load_config, replace(self.load_config, dtype="float32")
        try:
            exact, changed = self.generate(self.specs, dtype="float32"), self.generate(self.specs, tf32=True)
        finally:
            self.load_config = plain
        difference = max(float(np.abs(a / 255 - b / 255).mean()) for a, b in zip(exact, changed, strict=True))
        assert difference < 0.02, f"the mean difference is {difference:.3f} of 1"
        faster = self.figures["dtype_float32.seconds_an_image"] / self.figures["tf32_True.seconds_an_image"]
        assert faster > 1, f"{faster:.2f} times as fast"
        return f"mean difference {difference:.5f} of 1, {faster:.2f} times as fast"

    def magcache(self) -> str:
        """--step-cache magcache is faster, and an image does not depend on its batch mates."""
        return self._faster(0.2, alone=True, step_cache="magcache")

    def taylorseer(self) -> str:
        """--step-cache taylorseer is faster, and an image does not depend on its batch mates."""
        return self._faster(0.2, alone=True, step_cache="taylorseer")

    def fp8(self) -> str:
        """fp8 loads, generates, and takes less memory."""
        return self._close(0.1, smaller=True, quantization="fp8")

    def int8(self) -> str:
        """int8 loads, generates, and takes less memory."""
        return self._close(0.1, smaller=True, quantization="int8")

    def nf4(self) -> str:
        """nf4 loads, generates, and takes less memory."""
        return self._close(0.1, smaller=True, quantization="nf4")

    def memory(self) -> str:
        """A batch that does not fit is halved until it does."""
        if self.device.type != "cuda":
            raise ConfigError(["memory: needs CUDA"])
        model = self._load()
        held = torch.cuda.memory_reserved(self.device)
        torch.cuda.reset_peak_memory_stats(self.device)
        list(model.generate([self.specs[:1]], 1, lambda: False, Timings()))
        one = max(1, torch.cuda.max_memory_reserved(self.device) - held)
        total = torch.cuda.get_device_properties(self.device).total_memory
        index = torch.cuda.current_device() if self.device.index is None else self.device.index
        try:
            # Room for a batch of four or so.
            torch.cuda.set_per_process_memory_fraction(min(1.0, (held + 4 * one) / total), index)
            (images,) = model.generate([self.specs[:1] * 64], 64, lambda: False, Timings())
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0, index)
        for image in images:
            if isinstance(image, Exception):
                raise image
        size = min(image.batch_size for image in images)
        assert size < 64, "a batch of 64 did fit"
        return f"batches of {size} in place of 64"

    def _check_attention(self, kind: str) -> None:
        """Refuse a backend that is not here, before a model is loaded."""
        from t2i_core.engine.attention import check_attention

        check_attention(kind, None, self.load_config.device, self.load_config.dtype)

    def _attention(self, kind: str, tolerance: float) -> str:
        self._check_attention(kind)
        self._same_alone(attention=kind)
        verdict = self._close(tolerance, attention=kind)
        return f"{verdict}, {self._times_as_fast(attention=kind):.2f} times as fast"

    def _faster(self, tolerance: float, *, alone: bool = False, **changes: object) -> str:
        """Assert that `changes` change the image little and make it faster; `alone`: nor do batch mates change it."""
        if alone:
            self._same_alone(**changes)
        verdict = self._close(tolerance, **changes)
        faster = self._times_as_fast(**changes)
        assert faster > 1, f"{faster:.2f} times as fast"
        return f"{verdict}, {faster:.2f} times as fast"

    def _times_as_fast(self, **changes: object) -> float:
        return self.figures["plain.seconds_an_image"] / self.figures[f"{_name(changes)}.seconds_an_image"]

    def _same_alone(self, **changes: object) -> None:
        together, alone = self.generate(self.specs, **changes), self.generate(self.specs[:1], **changes)
        assert (alone[0] == together[0]).all(), "an image changes when it is generated alone"

    def _load(self, **changes: object) -> BatchGenerator:
        """Return the model, loaded as `changes` say, after the one before has left the memory."""
        from t2i_core.engine.load import load_model  # imports diffusers, before which `main` silences the libraries

        load_model.cache_clear()
        release_memory(self.device)
        return load_model(replace(self.load_config, **changes))

    def _beside(self, **changes: object) -> list[tuple[np.ndarray, np.ndarray]]:
        self._plain = self._plain or self.generate(self.specs)
        return list(zip(self._plain, self.generate(self.specs, **changes), strict=True))

    def _close(self, tolerance: float, *, smaller: bool = False, **changes: object) -> str:
        difference = max(float(np.abs(a / 255 - b / 255).mean()) for a, b in self._beside(**changes))
        assert difference < tolerance, f"the mean difference is {difference:.3f} of 1"
        if smaller and self.device.type == "cuda":
            ((key, value),) = changes.items()
            changed, plain = (self.figures[f"{name}.peak_gigabytes"] for name in (f"{key}_{value}", "plain"))
            assert changed < plain, f"its peak is {changed:.1f} GB in place of {plain:.1f} GB"
        return f"mean difference {difference:.5f} of 1"


def _name(changes: dict[str, object]) -> str:
    """Return what figures call a model that is loaded with `changes`."""
    return ".".join(f"{key}_{value}" for key, value in changes.items()) or "plain"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checks", nargs="*", metavar="CHECK", help="names of checks (default: all)")
    parser.add_argument("--model", default="demo", help="preset name, hub id or folder (default: demo)")
    parser.add_argument("--steps", type=int, help="denoising steps (default: the model's)")
    parser.add_argument("--size", type=int, help="width and height in pixels (default: the model's)")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args()
    silence_libraries()
    try:
        sizes = {"steps": options.steps, "width": options.size, "height": options.size}
        check = Check(options.model, resolve_device(options.device), **sizes)
    except ConfigError as error:
        print(f"nothing to check: {error}", file=sys.stderr)
        return 2
    checks: list[Callable[[], str]] = [
        *(check.batch_mates, check.staged, check.offload_model, check.offload_group, check.compiled),
        *(check.max_autotune, check.cudnn, check.flash2, check.flash3, check.sage, check.flash3_compiled),
        *(check.tf32, check.magcache, check.taylorseer),
        *(check.fp8, check.int8, check.nf4, check.memory),
    ]
    if unknown := set(options.checks) - {function.__name__ for function in checks}:
        print(f"no such check: {', '.join(sorted(unknown))}", file=sys.stderr)
        return 2
    wrong = 0
    for function in checks:
        if options.checks and function.__name__ not in options.checks:
            continue
        try:
            verdict = f"holds: {function()}"
        except ConfigError as error:
            verdict = f"not tried: {error}"
        except Exception as error:
            wrong += 1
            verdict = f"DOES NOT HOLD: {error if not is_out_of_memory(error) else 'out of memory'}"
            if not isinstance(error, AssertionError):
                traceback.print_exc()
        print(f"{function.__name__:14} {function.__doc__}  {verdict}", flush=True)
    report(check.figures, options.json)
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
