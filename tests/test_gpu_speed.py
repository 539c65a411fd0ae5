"""`benchmarks/gpu_speed.py` runs on a CPU with tiny models, and its full-size models have the published sizes."""

import json
import sys

import pytest
import torch
from diffusers import TaylorSeerCacheConfig

from benchmarks import gpu_speed, random_models
from t2i_core.engine.denoiser import denoiser_of

CPU = torch.device("cpu")
# Billions of weights of the denoisers, as their model cards or papers say.
BILLIONS = {
    "flux-dev": 11.9,
    "flux-schnell": 11.9,
    "flux-quarter": 2.7,
    "qwen-image": 20.4,
    "z-image": 6.2,
    "sdxl": 2.6,
}


@pytest.mark.parametrize("name", random_models.MODELS)
def test_a_full_size_denoiser_has_the_published_size(name):
    pipeline = random_models.make(name, torch.device("meta"), torch.bfloat16, tiny=False)
    weights = list(denoiser_of(pipeline).parameters())
    assert round(sum(weight.numel() for weight in weights) / 1e9, 1) == BILLIONS[name]
    assert {weight.dtype for weight in weights} == {torch.bfloat16}


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["gpu_speed", "--device", "cpu", "--steps", "5", *arguments])
    return gpu_speed.main()


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of diffusers' Euler scheduler
def test_it_measures_each_model_and_says_what_is_not_possible(monkeypatch, capsys, tmp_path):
    file = tmp_path / "figures.json"
    arguments = ["--ways", "plain", "engine", "taylorseer", "flash3", "--json", str(file)]
    assert run(monkeypatch, *arguments) == 0
    figures = json.loads(file.read_text())
    for name in random_models.MODELS.keys() - {"flux-quarter"}:
        ways = ["engine", "taylorseer"] if name.startswith(("flux", "qwen")) else ["engine"]
        for way in ways:
            assert figures[f"{name}.64.{way}.ratio"] > 0
            assert figures[f"{name}.96.{way}.images_a_second"] > 0
    said = capsys.readouterr().out
    assert said.count("not possible: attention: flash3 needs a CUDA card") == 5
    assert "sdxl           taylorseer           not possible" in said


def test_what_there_is_no_time_for_is_named(monkeypatch, capsys):
    assert run(monkeypatch, "--models", "sdxl", "--minutes", "0", "--ways", "plain", "compile") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines] == [["sdxl", "plain"], ["sdxl", "compile"]]
    assert all(line.endswith("not measured: the time is up") for line in lines)


def test_a_renewed_denoiser_is_the_one_that_was_made():
    pipeline = random_models.make("flux-dev", CPU, torch.float32, tiny=True)
    before = denoiser_of(pipeline)
    before.enable_cache(TaylorSeerCacheConfig())
    random_models.renew_denoiser(pipeline, CPU, torch.float32)
    after = denoiser_of(pipeline)
    assert after is not before
    assert not after.is_cache_enabled
    assert after.config == before.config
    assert pipeline.components["transformer"] is after
