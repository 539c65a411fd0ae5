"""Step caches: faster, other images; never such that an image depends on its batch mates or on an earlier call."""

import pytest
import torch

from t2i_core.bundled import DEMO_MODEL
from t2i_core.config import Config
from t2i_core.engine import step_cache
from t2i_core.engine.batch_generator import BatchGenerator
from t2i_core.engine.batch_isolation import whole_call
from t2i_core.engine.denoiser import denoiser_of, empty_denoiser
from t2i_core.engine.load import load_model
from t2i_core.engine.step_cache import FluxMagCache, add_step_cache, check_step_cache
from t2i_core.errors import ConfigError
from t2i_core.generation.interface import LoadConfig
from t2i_core.spec import ImageSpec
from tests import tiny_pipelines
from tests.engine.float_images import float_images

CPU = torch.device("cpu")
BATCH = 3
FLUX_1 = {"_class_name": "FluxTransformer2DModel", "num_layers": 19, "num_single_layers": 38}


def flux(kind):
    return load_model(LoadConfig(str(DEMO_MODEL), "float32", "cpu", step_cache=kind))


def qwen_image(kind):
    pipeline = tiny_pipelines.qwen_image()
    if kind:
        add_step_cache(kind, pipeline.transformer)
    return BatchGenerator(whole_call(pipeline, CPU), "cpu", {})


@pytest.fixture
def ratios_are_known(monkeypatch):
    """Let the demo model, whose own ratios are not known, use those of FLUX.1."""
    monkeypatch.setattr(step_cache, "FLUX_BLOCKS", {})


def spec(prompt, seed=0, **values):
    size = {"height": 48, "width": 48, "steps": 8, "dtype": "float32", "max_sequence_length": 24}
    return ImageSpec(model="tiny", prompt=prompt, seed=seed, **size | values)


def generate(model, *specs, on_step=lambda step, steps: None):
    return float_images(model, [specs], BATCH, on_step)


GUIDED = {"true_cfg_scale": 3.0, "negative_prompt": "a cat"}


@pytest.mark.parametrize("guidance", [{}, GUIDED], ids=["one pass", "two passes"])
@pytest.mark.parametrize(("build", "kind"), [(flux, "magcache"), (flux, "taylorseer"), (qwen_image, "taylorseer")])
def test_an_image_depends_on_its_spec_alone(ratios_are_known, build, kind, guidance):
    one = spec("a fox in the snow", seed=1, **guidance)
    plain = generate(build(None), one)[0]
    model = build(kind)
    alone = generate(model, one)[0]
    assert (alone != plain).any(), "no step was skipped"
    batch_mates = [spec("a boat", seed=2, **guidance), spec("a house by day", seed=3, **guidance)]
    assert (generate(model, batch_mates[0], one, batch_mates[1])[1] == alone).all()

    def fail(step, steps):
        if step == 5:
            raise ValueError("in the middle of a call")

    with pytest.raises(ValueError):
        generate(model, one, on_step=fail)
    assert (generate(model, one)[0] == alone).all(), "a call that failed left its state behind"
    generate(model, spec("a fox in the snow", seed=1, steps=6, **guidance))
    assert (generate(model, one)[0] == alone).all(), "a call of other steps left its state behind"


def test_magcache_is_told_the_steps_of_each_call(ratios_are_known):
    model = flux("magcache")
    for steps in (4, 9):
        generate(model, spec("a fox", steps=steps))
        config = model._stages.pipeline.transformer._cache_config
        assert config.num_inference_steps == len(config.mag_ratios) == steps


def test_a_cache_of_the_users_own_is_emptied_and_left_as_it_is():
    from diffusers import MagCacheConfig

    model = flux(None)
    transformer = denoiser_of(model._stages.pipeline)
    config = MagCacheConfig(mag_ratios=[1.0] * 8, num_inference_steps=8)
    transformer.enable_cache(config)
    try:
        generate(model, spec("a fox", steps=4))
        assert transformer._cache_config is config
    finally:
        load_model.cache_clear()


def test_magcache_is_refused_for_a_model_whose_ratios_are_not_known():
    with pytest.raises(ConfigError, match="magcache needs ratios that were measured with the model"):
        flux("magcache")
    check_step_cache("magcache", empty_denoiser({"transformer": FLUX_1}))
    with pytest.raises(ConfigError, match="magcache needs ratios"):
        check_step_cache("magcache", empty_denoiser({"transformer": FLUX_1 | {"num_layers": 8}}))


@pytest.mark.parametrize("kind", step_cache.TRIED)
def test_a_cache_is_refused_for_a_model_with_which_it_was_not_tried(kind):
    with pytest.raises(ConfigError, match=f"step_cache: {kind} was tried with Flux.* this is UNet2DConditionModel"):
        check_step_cache(kind, tiny_pipelines.stable_diffusion_xl().unet)


def test_the_ratios_are_those_of_the_steps():
    assert FluxMagCache(28).mag_ratios.tolist() == step_cache.FLUX_MAG_RATIOS.tolist()
    assert len(FluxMagCache(1).mag_ratios) == 1


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"compile": True}, "leave compile out"),
        ({"offload": "group"}, "offload group"),
        ({"scheduler": "EulerDiscreteScheduler"}, "leave scheduler out"),
    ],
)
def test_what_a_cache_does_not_go_with_is_refused(values, reason):
    with pytest.raises(ConfigError, match=reason):
        Config.from_values({"step_cache": "taylorseer"} | values)
    Config.from_values({"step_cache": "taylorseer", "offload": "model"})


def test_the_denoiser_of_a_model_is_known_from_its_configuration():
    assert {p.device.type for p in empty_denoiser({"transformer": FLUX_1}).parameters()} == {"meta"}
    assert empty_denoiser({}) is empty_denoiser({"unet": {"_class_name": "NoSuchModel"}}) is None
    assert empty_denoiser({"unet": {"_class_name": "UNet2DConditionModel", "layers_per_block": "x"}}) is None
