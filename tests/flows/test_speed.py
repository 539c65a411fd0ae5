"""The key under which a measured speed is stored: what changes the speed changes it, and no younger option does."""

import pytest

from flows.runners import find_workers
from flows.speed import SpeedCache
from t2i_core.config import Config
from t2i_core.spec import GenerationSettings, Sampling


class Stored(dict):
    """A result cache that holds every key, and notes those it was asked for."""

    def holds(self, task, key, is_valid=None):
        return True

    def read(self, key):
        self[key] = None
        return {"batch_size": 7, "seconds": 1.0, "pixel_steps": 1, "peak_bytes": 1, "memory_share": 0.0}


def key(settings=(), **options):
    """The key of the batch size that an output measured."""
    stored = Stored()
    sampling = Sampling(height=64, width=64, steps=2)
    made = GenerationSettings(model="1" * 64, dtype="float32", sampling=sampling, **dict(settings))
    config = Config.from_values({"batch_size": "auto"} | options)
    cache = SpeedCache(config, made, stored, find_workers(config), "r1")
    assert cache.batch_size() == 7
    return next(iter(stored))


def test_the_batch_size_that_an_earlier_version_measured_is_found():
    assert key() == "speed-v1/c932d4283bb7a01be59abe08b0f89bca1754554d4d6a075c196c3874c71c0701"


@pytest.mark.parametrize(
    ("settings", "options"),
    [
        ({"attention": "cudnn"}, {}),
        ({"tf32": True}, {}),
        ({"step_cache": "magcache"}, {}),
        ({}, {"compile": True}),
        ({}, {"compile": True, "compile_mode": "max-autotune"}),
    ],
)
def test_what_changes_the_speed_is_measured_again(settings, options):
    assert key(settings, **options) not in {key(), key(compile=True) if "compile_mode" in options else ""}
