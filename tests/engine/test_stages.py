"""A pipeline is called with what the specs say, each image with its own noise, and nothing that nobody asked for."""

import numpy as np
import pytest
import torch

from t2i_core.engine.batch_isolation import OneByOne
from t2i_core.engine.device import to_host
from t2i_core.engine.stages import ARRAYS, WholeCall, call_arguments, set_vae_tiling
from t2i_core.generation.health import checked_pixels
from t2i_core.spec import ImageSpec
from tests import tiny_array_pipelines, tiny_pipelines

CPU = torch.device("cpu")


def spec(prompt, seed=0, **values):
    return ImageSpec(
        model="m", prompt=prompt, seed=seed, dtype="float32", **{"height": 8, "width": 16, "steps": 2} | values
    )


class Pipeline:
    """Returns for each prompt an image full of a random number, and keeps the arguments of its calls."""

    def __init__(self):
        self.calls = []

    def __call__(self, prompt, height, width, num_inference_steps, generator, output_type, callback_on_step_end=None):
        self.calls.append(prompt)
        for step in range(num_inference_steps):
            callback_on_step_end(self, step, None, {})
        self.images = torch.stack(
            [torch.rand(1, generator=one).expand(3, height, width) for _, one in zip(prompt, generator, strict=True)]
        )
        return self


def test_arguments_of_each_image_are_lists_and_shared_ones_are_single_values():
    specs = [spec("a fox", negative_prompt="blurry"), spec("a cat", negative_prompt="")]
    assert call_arguments(specs, Pipeline()) == {
        "prompt": ["a fox", "a cat"],
        "negative_prompt": ["blurry", ""],
        "height": 8,
        "width": 16,
        "num_inference_steps": 2,
    }


def test_what_would_change_a_request_silently_is_turned_off():
    class Rewriting:
        def __call__(self, prompt, use_resolution_binning=True, skip_text_cleaning=False, max_area=1024**2):
            """Takes some of the switches."""

    arguments = call_arguments([spec("a")], Rewriting())
    assert arguments["use_resolution_binning"] is False
    assert arguments["skip_text_cleaning"] is True
    assert arguments["max_area"] == 8 * 16
    assert "clean_caption" not in arguments


FAMILIES = [
    (tiny_pipelines.flux_kontext, {"height": 48, "width": 80, "guidance_scale": 2.5}),
    (tiny_pipelines.flux_kontext, {"height": 16, "width": 64, "guidance_scale": 2.5}),
    (tiny_array_pipelines.deepfloyd_if, {"height": 16, "width": 24, "guidance_scale": 4.0, "negative_prompt": ""}),
    (tiny_array_pipelines.kandinsky_3, {"height": 64, "width": 128, "guidance_scale": 4.0, "negative_prompt": ""}),
    (tiny_pipelines.pixart_sigma, {"height": 40, "width": 64, "guidance_scale": 4.0, "negative_prompt": ""}),
]


@pytest.mark.parametrize(("build", "settings"), FAMILIES)
def test_images_have_the_size_that_is_asked_for_and_pixels_in_0_to_1(build, settings):
    asked = spec("a fox", **settings)
    stages = WholeCall(build(), CPU)
    with torch.no_grad():
        first, second = stages.denoise([asked, spec("a cat", seed=1, **settings)], lambda *step: None)
    for image in (first, second):
        assert checked_pixels(to_host(image)(), asked).shape == (asked.height, asked.width, 3)
    assert (first != second).any()


@pytest.mark.parametrize("build", [tiny_array_pipelines.deepfloyd_if, tiny_array_pipelines.kandinsky_3])
def test_a_pipeline_whose_tensors_are_wrong_generates_what_its_pictures_show(build):
    pipeline = build()
    one = spec("a fox", seed=3, height=64, width=64, guidance_scale=4.0, negative_prompt="")
    with torch.no_grad():
        (image,) = WholeCall(pipeline, CPU).denoise([one], lambda *step: None)
        generator = torch.Generator().manual_seed(3)
        options = {"clean_caption": False} if "deepfloyd" in build.__name__ else {}
        (shown,) = pipeline(
            "a fox", negative_prompt="", height=64, width=64, num_inference_steps=2, guidance_scale=4.0,
            generator=generator, **options,
        ).images  # fmt: skip
    assert type(pipeline).__name__ in ARRAYS
    assert (checked_pixels(to_host(image)(), one) == np.asarray(shown)).all()


def test_an_image_has_the_noise_of_its_seed_at_any_index():
    stages = WholeCall(Pipeline(), CPU)
    one, two, three = stages.denoise([spec("a", seed=5), spec("b", seed=6), spec("c", seed=5)], lambda *step: None)
    assert (one == three).all()
    assert (one != two).any()
    assert (stages.denoise([spec("d", seed=6)], lambda *step: None)[0] == two).all()


def test_a_whole_call_is_one_call_and_calls_back_after_each_step():
    steps = []
    stages = WholeCall(Pipeline(), CPU)
    stages.denoise([spec("a"), spec("b", seed=1)], lambda *step: steps.append(step))
    assert stages.pipeline.calls == [["a", "b"]]
    assert steps == [(1, 2), (2, 2)]


def test_a_scheduler_that_takes_more_steps_than_asked_for_is_believed():
    steps = []
    stages = WholeCall(Pipeline(), CPU)
    stages.pipeline.num_timesteps = 3
    stages.denoise([spec("a")], lambda *step: steps.append(step))
    assert steps == [(1, 3), (2, 3)]
    assert stages.images_a_call(4) == 4


def test_one_by_one_calls_the_pipeline_once_for_each_image_and_never_for_padding():
    stages = OneByOne(Pipeline(), CPU)
    a, b = spec("a", seed=1), spec("b", seed=2)
    images = stages.denoise([a, b, b, b], lambda *step: None)
    assert stages.pipeline.calls == [["a"], ["b"]]
    assert [image.shape for image in images] == [(3, 8, 16)] * 4
    assert (images[1] == images[3]).all()
    assert (images[0] == WholeCall(Pipeline(), CPU).denoise([a], lambda *step: None)[0]).all()
    assert stages.images_a_call(4) == 1


class Vae:
    """As diffusers' VAEs are: those that cannot tile have the methods, but not the attribute."""

    def __init__(self, tiling=None):
        if tiling is not None:
            self.use_tiling = tiling

    def enable_tiling(self):
        self._set(True)

    def disable_tiling(self):
        self._set(False)

    def _set(self, on):
        if not hasattr(self, "use_tiling"):
            raise NotImplementedError("Tiling doesn't seem to be implemented")
        self.use_tiling = on


@pytest.mark.parametrize("on", [True, False])
def test_tiling_is_switched_where_that_changes_it(on):
    pipeline = Pipeline()
    pipeline.vae = Vae(tiling=not on)
    assert set_vae_tiling(pipeline, on)
    assert pipeline.vae.use_tiling is on
    assert not set_vae_tiling(pipeline, on)
    assert pipeline.vae.use_tiling is on


@pytest.mark.parametrize("on", [True, False])
def test_a_pipeline_that_cannot_tile_says_so(on):
    pipeline = Pipeline()
    assert not set_vae_tiling(pipeline, on)
    pipeline.vae = Vae()
    assert not set_vae_tiling(pipeline, on)
