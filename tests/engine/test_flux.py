"""FLUX in stages generates what the whole pipeline does; texts are encoded once; staged encoders come and go."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import FluxPipeline

from t2i_core.bundled import DEMO_MODEL
from t2i_core.engine import flux as module
from t2i_core.engine.flux import FluxStages
from t2i_core.engine.load import load_model, load_pipeline
from t2i_core.errors import ConfigError
from t2i_core.generation.interface import LoadConfig
from t2i_core.spec import ImageSpec
from tests.engine.float_images import float_images

LOAD_CONFIG = LoadConfig(str(DEMO_MODEL), "float32", "cpu")
CPU = torch.device("cpu")


def spec(prompt, seed=0, **values):
    defaults = {"height": 64, "width": 64, "steps": 2, "dtype": "float32", "true_cfg_scale": 2.5}
    defaults |= {"negative_prompt": "", "max_sequence_length": 24}
    return ImageSpec(model="demo", prompt=prompt, seed=seed, **defaults | values)


@pytest.fixture
def stages():
    return FluxStages(load_pipeline(LOAD_CONFIG), CPU, staged=False)


def generate(model, batches, batch_size=4):
    return float_images(model, batches, batch_size)


@pytest.mark.parametrize("guidance", [{}, {"true_cfg_scale": None, "negative_prompt": None}])
def test_the_stages_generate_what_the_whole_pipeline_generates(guidance):
    specs = [spec(f"a {name} in the snow", seed=i, **guidance) for i, name in enumerate(("fox", "cat", "boat", "moon"))]
    pipeline = FluxPipeline.from_pretrained(DEMO_MODEL, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    arguments = {"true_cfg_scale": 2.5, "negative_prompt": [""] * 4} if not guidance else {}
    expected = pipeline(
        [s.prompt for s in specs],
        height=64,
        width=64,
        num_inference_steps=2,
        max_sequence_length=24,
        generator=[torch.Generator().manual_seed(s.seed) for s in specs],
        output_type="np",
        **arguments,
    ).images
    got = generate(load_model(LOAD_CONFIG), [specs])
    assert np.abs(np.stack(got) - expected).max() < 1e-4


def test_equal_texts_are_encoded_once(stages, monkeypatch):
    asked = []
    real = stages.pipeline.encode_prompt
    monkeypatch.setattr(
        stages.pipeline,
        "encode_prompt",
        lambda prompt, *args, **options: asked.append(prompt) or real(prompt, *args, **options),
    )
    with torch.inference_mode(), stages.encoding():
        for s in (spec("a fox"), spec("a cat", negative_prompt="a fox"), spec("a fox", seed=1)):
            stages.encode(s)
    assert asked == ["a fox", "", "a cat"]


def test_a_negative_prompt_that_guidance_does_not_use_is_not_encoded(stages):
    with torch.inference_mode(), stages.encoding():
        stages.encode(spec("a fox", true_cfg_scale=1.0))
    assert stages._embeddings.get(("a fox", 24)) is not None
    assert stages._embeddings.get(("", 24)) is None


def test_embeddings_are_bounded_in_bytes(stages, monkeypatch):
    with torch.inference_mode(), stages.encoding():
        stages.encode(spec("a fox"))
    one = stages._embeddings.bytes // 2
    monkeypatch.setattr(module, "EMBEDDING_BYTES", 8 * one)
    for window in range(5):
        with torch.inference_mode(), stages.encoding():
            for i in range(4):
                stages.encode(spec(f"a fox {window} {i}"))
        assert 0 < stages._embeddings.bytes <= 8 * one


class Card:
    """A second device, which only notes which modules are on it. `room`: how many fit beside the VAE."""

    def __init__(self, room):
        self.present, self.room = {"FluxTransformer2DModel"}, room

    def host_copy(self, module):
        name = type(module).__name__
        return SimpleNamespace(to_device=lambda device: self.add(name), to_host=lambda: self.present.discard(name))

    def add(self, name):
        if len(self.present | {name}) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory")
        self.present.add(name)


@pytest.mark.parametrize("room", [3, 2])
def test_staged_encoders_are_on_the_device_only_while_they_encode(monkeypatch, room):
    card = Card(room)
    monkeypatch.setattr(module, "HostCopy", card.host_copy)
    monkeypatch.setattr(module, "release_memory", lambda device: None)
    stages = FluxStages(load_pipeline(LOAD_CONFIG), "card", staged=True)
    for _ in range(2):
        with stages.encoding():
            assert {"CLIPTextModel", "T5EncoderModel"} <= card.present
            # Where not all fit, the transformer leaves.
            assert ("FluxTransformer2DModel" in card.present) == (room == 3)
        assert card.present == {"FluxTransformer2DModel"}


def test_staged_encoders_encode_a_window_of_batches_before_the_first_is_denoised(monkeypatch):
    model = load_model(LoadConfig(str(DEMO_MODEL), "float32", "cpu", text_encoder="staged"))
    stages = model._stages
    assert stages.staged
    events = []
    for name in ("encode", "denoise"):
        real = getattr(stages, name)
        monkeypatch.setattr(
            stages, name, lambda *arguments, name=name, real=real: events.append(name) or real(*arguments)
        )
    batches = [[spec(f"a fox {i}", seed=i)] for i in range(3)]
    staged = generate(model, batches, 1)
    assert events == ["encode"] * 3 + ["denoise"] * 3
    resident = generate(load_model(LOAD_CONFIG), batches, 1)
    assert all((a == b).all() for a, b in zip(staged, resident, strict=True))


def test_infinite_pixels_are_not_clamped_into_an_image(stages, monkeypatch):
    def decode(latents, return_dict):
        return (torch.full((1, 3, 64, 64), torch.inf),)

    monkeypatch.setattr(stages.pipeline.vae, "decode", decode)
    image = stages.decode(torch.zeros(1, 64, 32), 0, spec("a fox"))
    assert image.isnan().all()


def test_a_pipeline_without_stages_refuses_staged_encoders(stable_diffusion):
    with pytest.raises(ConfigError, match="text_encoder: StableDiffusionPipeline cannot be taken apart"):
        load_model(LoadConfig(stable_diffusion, "float32", "cpu", text_encoder="staged"))
