"""Attention backends: which machine and which model can use one, and that it is used by that model alone."""

import pytest
import torch
from diffusers.models import attention_dispatch

from t2i_core.engine import attention
from t2i_core.engine.attention import BACKENDS, attention_version, check_attention, set_attention
from t2i_core.engine.batch_isolation import whole_call
from t2i_core.engine.load import load_model, load_pipeline
from t2i_core.errors import ConfigError
from t2i_core.generation.interface import Timings
from t2i_core.spec import ImageSpec
from tests import tiny_pipelines
from tests.engine.demo import load_config

CPU = torch.device("cpu")
SIZE = {"height": 64, "width": 64, "steps": 1, "dtype": "float32", "max_sequence_length": 24}


@pytest.fixture
def used(monkeypatch):
    """The calls of attention: [(diffusers' name of the backend, whether a mask was given)]."""
    calls = []
    real = attention_dispatch._AttentionBackendRegistry._backends

    def spy(name):
        def call(**values):
            calls.append((name.value, values.get("attn_mask") is not None))
            return real[attention_dispatch.AttentionBackendName.NATIVE](**values)

        return call

    monkeypatch.setattr(attention_dispatch._AttentionBackendRegistry, "_backends", {name: spy(name) for name in real})
    return calls


@pytest.fixture
def everything_is_installed(monkeypatch):
    monkeypatch.setattr(attention_dispatch, "_check_attention_backend_requirements", lambda backend: None)


def test_every_backend_is_one_of_diffusers_that_fetches_no_code():
    hub = {name.value for name in attention_dispatch._HUB_KERNELS_REGISTRY}
    names = {name.value for name in attention_dispatch.AttentionBackendName}
    assert set(BACKENDS.values()) <= names - hub


@pytest.mark.parametrize("kind", BACKENDS)
def test_a_backend_is_used_by_its_model_and_by_no_other(kind, used, everything_is_installed, monkeypatch):
    monkeypatch.setattr("t2i_core.engine.load.check_attention", lambda *arguments: None)
    spec = ImageSpec(model="demo", prompt="a fox", seed=1, **SIZE)
    for loaded, name in ((kind, BACKENDS[kind]), (None, "native")):
        model = load_model(load_config(attention=loaded))
        used.clear()
        list(model.generate([[spec]], 1, lambda: False, Timings()))
        assert set(used) == {(name, False)}


@pytest.mark.parametrize("kind", BACKENDS)
def test_a_backend_is_refused_on_the_cpu(kind):
    with pytest.raises(ConfigError, match=f"attention: {kind} needs a CUDA card, and the device is cpu; leave it out"):
        load_model(load_config(attention=kind))


@pytest.mark.parametrize("kind", BACKENDS)
def test_a_backend_is_refused_for_float32(kind):
    with pytest.raises(ConfigError, match=f"attention: {kind} takes no float32"):
        check_attention(kind, None, "cuda", "float32")


@pytest.mark.parametrize("kind", ["flash2", "flash3", "sage"])
def test_a_package_that_is_not_installed_is_one_line_that_says_how_to_get_it(kind):
    with pytest.raises(ConfigError) as error:
        check_attention(kind, None, "cuda:1", "bfloat16")
    assert str(error.value).startswith(f"attention: {kind} is not installed, or too old (")
    assert str(error.value).endswith(attention.PACKAGES[kind])
    assert len(str(error.value).splitlines()) == 1


def test_a_card_that_cannot_is_found_out_by_a_little_attention(monkeypatch):
    def fail(*arguments):
        raise RuntimeError("FlashAttention only supports Ampere GPUs or newer.\nmore")

    monkeypatch.setattr(attention, "dispatch_attention_fn", fail)
    monkeypatch.setattr(torch, "zeros", lambda shape, **values: None)  # no card here
    transformer = load_pipeline(load_config()).transformer
    with pytest.raises(ConfigError) as error:
        check_attention("cudnn", transformer, "cuda", "bfloat16")
    assert str(error.value).startswith("attention: cudnn does not work on cuda: FlashAttention only supports Ampere")
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize(
    "build", [tiny_pipelines.stable_diffusion_xl, tiny_pipelines.stable_diffusion_3, tiny_pipelines.pixart_sigma]
)
def test_a_model_on_which_a_backend_would_do_nothing_is_refused(build):
    pipeline = build()
    denoiser = pipeline.unet if hasattr(pipeline, "unet") else pipeline.transformer
    for check in (lambda: set_attention("cudnn", denoiser), lambda: check_attention("cudnn", denoiser, "cuda", "bf16")):
        with pytest.raises(ConfigError, match=f"one kind of attention only for {type(denoiser).__name__}"):
            check()


def test_a_model_that_gives_masks_is_refused_but_for_cudnn(used, everything_is_installed):
    pipeline = tiny_pipelines.qwen_image()
    for kind in ("flash2", "flash3", "sage"):
        with pytest.raises(ConfigError, match=f"{kind} takes no mask, and QwenImageTransformer2DModel may give one"):
            set_attention(kind, pipeline.transformer)
    set_attention("cudnn", pipeline.transformer)
    spec = ImageSpec(model="tiny", prompt="a fox", seed=1, **SIZE | {"height": 48, "width": 48})
    whole_call(pipeline, CPU).denoise([spec], lambda step, steps: None)
    assert set(used) == {("_native_cudnn", True)}


def test_the_version_of_a_package_is_known_where_it_is_installed(monkeypatch):
    assert attention_version(None) == attention_version("cudnn") == attention_version("sage") == {}
    monkeypatch.setattr(attention, "version", lambda name: "2.8.3")
    assert attention_version("flash2") == {"flash-attn": "2.8.3"}
