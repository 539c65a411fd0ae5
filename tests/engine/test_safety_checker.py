"""An image that the model's safety checker replaced is a failure of its own kind; its batch mates are as without it."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers.pipelines.deepfloyd_if.safety_checker import IFSafetyChecker

from t2i_core.engine.batch_generator import BatchGenerator
from t2i_core.engine.batch_isolation import OneByOne, whole_call
from t2i_core.engine.calibrate import measure
from t2i_core.engine.load import load_model
from t2i_core.engine.stages import FLAGS, REFUSED_PROMPT, WholeCall
from t2i_core.errors import SafetyFailure
from t2i_core.generation.interface import LoadConfig, Timings
from t2i_core.spec import ImageSpec
from tests import tiny_array_pipelines
from tests.builders import rounded
from tests.engine.float_images import float_images
from tests.safety import add_safety_checker, clip_config, image_processor

CPU = torch.device("cpu")
BAD = {1, 3}  # the seeds of the images that the checker objects to


def spec(seed, **values):
    settings = {"height": 32, "width": 32, "steps": 2, "dtype": "float32", "guidance_scale": 4.0}
    return ImageSpec(model="m", prompt="a fox", seed=seed, **settings | values)


def generate(generator, *seeds, batch_size=4):
    (images,) = generator.generate([[spec(seed) for seed in seeds]], batch_size, lambda: False, Timings())
    return images


def load(folder):
    return load_model(LoadConfig(path=str(folder), dtype="float32", device="cpu"))


@pytest.fixture(scope="module")
def without(stable_diffusion):
    """The float pixels of four images of the model without a checker."""
    return float_images(load(stable_diffusion), [[spec(seed) for seed in range(4)]], 4)


@pytest.fixture(scope="module")
def checked(stable_diffusion, without, tmp_path_factory):
    """The folder of the model with a checker."""
    folder = tmp_path_factory.mktemp("checked")
    good = [without[seed] for seed in range(4) if seed not in BAD]
    add_safety_checker(stable_diffusion, [without[seed] for seed in BAD], good, folder)
    return folder


def test_images_that_the_checker_replaced_are_failures_and_batch_mates_are_as_without_it(checked, without):
    images = generate(load(checked), *range(4))
    for seed, image in enumerate(images):
        if seed in BAD:
            assert isinstance(image, SafetyFailure)
            assert str(image).startswith(SafetyFailure.PREFIX)
        else:
            assert (image.pixels().values == rounded(without[seed]).values).all()


def test_an_image_that_pads_a_batch_and_is_replaced_costs_the_others_nothing(checked, without):
    first, last = generate(load(checked), 0, 1)
    assert (first.pixels().values == rounded(without[0]).values).all()
    assert isinstance(last, SafetyFailure)


class Flagging:
    """A pipeline that returns images full of 0.5 and `flags`, whose class may be given another name."""

    def __init__(self, **flags):
        self.flags = flags

    def __call__(self, prompt, generator, output_type, height, width, num_inference_steps, guidance_scale):
        images = torch.full((len(prompt), 3, height, width), 0.5)
        if output_type == "np":
            images = images.permute(0, 2, 3, 1).numpy()
        return SimpleNamespace(images=images, **self.flags)


def replaced(pipeline, images=3):
    """Whether each of some images of a call was replaced."""
    stages = whole_call(pipeline, CPU)
    denoised = stages.denoise([spec(seed) for seed in range(images)], lambda *step: None)
    assert all(isinstance(image, SafetyFailure) or image.shape == (3, 32, 32) for image in denoised)
    return [isinstance(image, SafetyFailure) for image in denoised]


@pytest.mark.parametrize("flag", FLAGS)
def test_marks_of_replaced_images_are_understood_under_every_name(flag):
    assert replaced(Flagging(**{flag: [False, True, False]})) == [False, True, False]
    assert replaced(Flagging(**{flag: np.array([True, False, False])})) == [True, False, False]
    assert replaced(Flagging(**{flag: None})) == [False, False, False]


def test_an_image_with_either_mark_was_replaced():
    flagging = Flagging(nsfw_detected=[True, False, False], watermark_detected=[False, False, True])
    assert replaced(flagging) == [True, False, True]


def test_the_checker_of_deepfloyd_if_is_asked():
    # It judges pictures and arrays, but no tensors.
    pipeline = tiny_array_pipelines.deepfloyd_if()
    checker = IFSafetyChecker(clip_config()).eval()
    torch.nn.init.zeros_(checker.p_head.weight)
    torch.nn.init.zeros_(checker.w_head.weight)
    pipeline.register_modules(safety_checker=checker, feature_extractor=image_processor())
    for nsfw, watermark, expected in ((0, 0, False), (1, 0, True), (0, 1, True)):
        torch.nn.init.constant_(checker.p_head.bias, nsfw)
        torch.nn.init.constant_(checker.w_head.bias, watermark)
        with torch.no_grad():
            assert replaced(pipeline, images=2) == [expected] * 2


def test_a_pipeline_with_one_mark_for_its_call_is_called_for_each_image():
    safe = type("StableDiffusionPipelineSafe", (Flagging,), {})(nsfw_content_detected=True)
    assert replaced(safe) == [True, True, True]


class Refusing(Flagging):
    """A pipeline that refuses any call with a prompt of the seed 1."""

    def __call__(self, prompt, generator, **rest):
        if any(one.initial_seed() == 1 for one in generator):
            raise self.flags["error"]
        self.flags = {"error": self.flags["error"]}
        return super().__call__(prompt, generator, **rest)


def test_a_refused_prompt_is_a_failure_of_that_kind_and_costs_its_batch_mates_nothing():
    refusing = type("Cosmos2TextToImagePipeline", (Refusing,), {})(error=ValueError(f"Cosmos {REFUSED_PROMPT}: x"))
    assert isinstance(whole_call(refusing, CPU), OneByOne)
    generator = BatchGenerator(whole_call(refusing, CPU), "cpu", {})
    images = generate(generator, 0, 1, 2)
    assert [isinstance(image, SafetyFailure) for image in images] == [False, True, False]


def test_another_error_stays_what_it_is():
    with pytest.raises(ValueError, match="another"):
        WholeCall(Refusing(error=ValueError("another")), CPU).denoise([spec(1)], lambda *step: None)
    one_by_one = OneByOne(Refusing(error=ValueError("another")), CPU)
    first, second = generate(BatchGenerator(one_by_one, "cpu", {}), 0, 1)
    assert first.pixels().values.shape == (32, 32, 3)
    assert type(second) is ValueError


def test_the_speed_of_images_that_are_replaced_is_measured(checked):
    assert measure(load(checked), spec(1), 1, lambda: False, lambda step, steps: None).batch_size == 1


def test_a_run_counts_them_apart_and_says_once_how_to_go_on_without(run, output, prompts, checked, caplog, tmp_path):
    rows = [{"prompt": "a fox", "generation": {"seed": seed}} for seed in range(4)]
    settings = {
        "dataset": prompts(*rows), "prompt_key": "prompt", "settings_key": "generation", "model": str(checked),
        "steps": 2, "guidance_scale": 4.0, "max_failures": 2,
    }  # fmt: skip
    load_model.cache_clear()
    assert run(**settings).is_completed()
    assert output.counts()["images_generated"] == output.counts()["images_unsafe"] == 2
    assert [failure["row"] for failure in output.failures()] == sorted(BAD)
    assert all(failure["reason"].startswith(SafetyFailure.PREFIX) for failure in output.failures())
    assert [bool(row["images"]) for row in output.manifest()] == [True, False, True, False]
    assert caplog.text.count("--prepare with a function that sets pipeline.safety_checker = None") == 1
    assert "2 of 2 failed images" in caplog.text

    # The same images without the checker, as the note says.
    caplog.clear()
    (tmp_path / "own.py").write_text("def unchecked(pipeline):\n    pipeline.safety_checker = None\n")
    assert run(**settings, prepare=f"{tmp_path / 'own.py'}:unchecked").is_completed()
    assert output.counts()["images_generated"] == 4
    assert output.failures() == []
    assert "safety checker" not in caplog.text
