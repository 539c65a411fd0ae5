"""Compilation: what is compiled and how, what is refused, and where the compiled code is kept."""

import os
import shutil

import numpy as np
import pytest
import torch

from benchmarks import random_models
from t2i_core.config import Config
from t2i_core.engine import compilation, load
from t2i_core.engine.compilation import CACHE, compile_pipeline, keep_compiled
from t2i_core.engine.load import generator_of, load_model, load_pipeline
from t2i_core.errors import ConfigError
from t2i_core.spec import ImageSpec
from tests import tiny_pipelines
from tests.engine.demo import first_image, load_config
from tests.engine.float_images import float_images

CPU = torch.device("cpu")
BLOCKS = {"FluxTransformerBlock", "FluxSingleTransformerBlock"}


@pytest.fixture
def compiled(monkeypatch):
    """What is compiled, by a quick backend: [(class of the module, options of its compilation)]."""
    calls = []
    real = torch.nn.Module.compile

    def compile_with_a_quick_backend(self, fullgraph=False, options=None):
        calls.append((type(self).__name__, fullgraph, options))
        real(self, backend="eager", fullgraph=fullgraph)

    monkeypatch.setattr(torch.nn.Module, "compile", compile_with_a_quick_backend)
    return calls


def test_a_pipeline_without_repeated_blocks_is_not_compiled(stable_diffusion, monkeypatch):
    from diffusers import UNet2DConditionModel

    monkeypatch.setattr(UNet2DConditionModel, "_repeated_blocks", None)
    with pytest.raises(ConfigError, match="compile: StableDiffusionPipeline has no blocks"):
        load_model(load_config(path=stable_diffusion, compile=True))


def test_compiled_blocks_generate_the_same_image(compiled):
    plain = first_image(load_model(load_config()))
    assert np.abs(first_image(load_model(load_config(compile=True))) - plain).max() < 1e-3
    assert {(name, fullgraph, options) for name, fullgraph, options in compiled} == {(n, False, None) for n in BLOCKS}


def test_max_autotune_compiles_blocks_and_decoder_as_a_whole_and_generates_the_same_image(compiled):
    plain = first_image(load_model(load_config()))
    model = load_model(load_config(compile=True, compile_mode="max-autotune"))
    assert np.abs(first_image(model) - plain).max() < 1e-3
    assert {name for name, _, _ in compiled} == {*BLOCKS, "Decoder"}
    assert all(fullgraph and options == compilation.MAX_AUTOTUNE for _, fullgraph, options in compiled)


def test_the_options_of_max_autotune_are_options_of_torch():
    from torch._inductor import config

    assert all(hasattr(config, name) for name in compilation.MAX_AUTOTUNE)


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch compiles for the CPU with g++")
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")
def test_torch_itself_compiles_into_the_cache_folder(tmp_path, monkeypatch):
    monkeypatch.setenv(CACHE, str(tmp_path))
    pipeline = random_models.make("flux-dev", CPU, torch.float32, tiny=True)
    spec = ImageSpec(model="tiny", prompt="a fox", seed=1, height=32, width=32, steps=1, dtype="float32")
    plain, compiled = (
        float_images(generator_of(pipeline, CPU, wanted), [[spec]], 1)[0]
        for wanted in (load_config(), load_config(compile=True))
    )
    assert np.abs(compiled - plain).max() < 1e-3
    assert any(tmp_path.rglob("*.cpp")) or any(tmp_path.rglob("*.so"))


@pytest.mark.parametrize("fuse", [True, False])
def test_max_autotune_fuses_query_key_and_value_unless_that_would_lose_an_adapter(compiled, fuse):
    pipeline = load_pipeline(load_config())
    compile_pipeline(pipeline, "max-autotune", fuse=fuse)
    assert pipeline.transformer.transformer_blocks[0].attn.fused_projections is fuse
    assert pipeline.vae.decoder.conv_in.weight.is_contiguous(memory_format=torch.channels_last)


def test_the_vae_of_a_video_model_keeps_its_memory_format(compiled):
    pipeline = tiny_pipelines.qwen_image()
    compile_pipeline(pipeline, "max-autotune", fuse=True)
    assert {name for name, _, _ in compiled} == {"QwenImageTransformerBlock", "QwenImageDecoder3d"}


@pytest.mark.parametrize("adapters", [(), (("a.safetensors", 1.0),)])
def test_projections_with_adapters_are_not_fused(monkeypatch, adapters):
    asked = []
    monkeypatch.setattr(load, "compile_pipeline", lambda pipeline, mode, fuse: asked.append((mode, fuse)))
    load._make_faster(None, CPU, load_config(adapters=adapters, compile=True, compile_mode="max-autotune"))
    assert asked == [("max-autotune", not adapters)]


def test_quantized_projections_are_not_fused(compiled):
    pipeline = load_pipeline(load_config())
    pipeline.transformer.hf_quantizer = object()  # as diffusers marks a quantized model, from a GGUF file too
    compile_pipeline(pipeline, "max-autotune", fuse=True)
    assert not pipeline.transformer.transformer_blocks[0].attn.fused_projections


def test_compiled_code_is_kept_in_the_users_cache_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv(CACHE, raising=False)
    keep_compiled()
    assert os.environ[CACHE] == str(tmp_path / "text2image" / "compiled")
    monkeypatch.setenv(CACHE, "/elsewhere")
    keep_compiled()
    assert os.environ[CACHE] == "/elsewhere"


def test_a_cache_folder_that_cannot_be_made_is_left_to_torch(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.delenv(CACHE, raising=False)
    keep_compiled()
    assert CACHE not in os.environ


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({}, "compile_mode is how to compile; add compile"),
        ({"compile": True, "offload": "group"}, "offload group divides"),
    ],
)
def test_a_mode_that_cannot_work_is_refused(values, reason):
    with pytest.raises(ConfigError, match=reason):
        Config.from_values({"compile_mode": "max-autotune"} | values)
