"""Stages without a model, which run out of memory or fail where a test says so."""

from contextlib import nullcontext

import torch

from t2i_core.engine.batch_generator import BatchGenerator
from t2i_core.generation.interface import Timings
from t2i_core.spec import ImageSpec

CPU = torch.device("cpu")


def spec(number, **values):
    """A spec whose prompt and seed are made of `number`; images of one step and 8x8 unless `values` say otherwise."""
    defaults = {"height": 8, "width": 8, "steps": 1, "dtype": "float32"}
    return ImageSpec(model="m", prompt=f"p{number}", seed=number, **defaults | values)


class FakeStages:
    """Generates an image full of its seed."""

    device = CPU

    def __init__(self, *, apart=True, max_batch=8, encodes=lambda spec: True, decodes=lambda spec, tiled: True):
        self.decodes_apart = apart
        self.max_batch, self.encodes, self.decodes = max_batch, encodes, decodes
        self.tiling = False
        self.calls = []  # the specs of each call of `denoise`

    @property
    def sizes(self):
        return [len(call) for call in self.calls]

    def encoding(self):
        return nullcontext()

    def encode(self, spec):
        if not self.encodes(spec):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB")

    def wants_more_texts(self):
        return False

    def denoise(self, specs, on_step):
        on_step(1, 1)
        self.calls.append(specs)
        if len(specs) > self.max_batch or (not self.decodes_apart and not self.decodes(specs[0], self.tiling)):
            raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory")
        if any(s.seed == 99 for s in specs):
            raise ValueError("unlucky")
        return torch.stack([torch.full((3, s.height, s.width), s.seed / 100) for s in specs])

    def decode(self, denoised, index, spec):
        if self.decodes_apart and not self.decodes(spec, self.tiling):
            raise torch.OutOfMemoryError("CUDA out of memory")
        return denoised[index]

    def images_a_call(self, batch_size):
        return batch_size

    def set_vae_tiling(self, on):
        changed = on != self.tiling
        self.tiling = on
        return changed


def images(stages, specs, batch_size=4, generator=None):
    """The results for `specs`, in batches of `batch_size`."""
    generator = generator or BatchGenerator(stages, "cpu", {})
    batches = [specs[i : i + batch_size] for i in range(0, len(specs), batch_size)]
    return [image for part in generator.generate(batches, batch_size, lambda: False, Timings()) for image in part]


def shown(results):
    """What each image shows: its seed, or the text of its error."""
    return [str(r) if isinstance(r, Exception) else round(float(r.pixels().highest[0]) * 100) for r in results]
