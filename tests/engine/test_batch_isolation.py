"""The same spec in the same batch shape is the same bytes, whatever its batch mates, its index and their order.

FLUX is in test_load.py. The families here have random weights.
"""

import numpy as np
import pytest
import torch

from t2i_core.engine import batch_isolation as module
from t2i_core.engine import stages
from t2i_core.engine.batch_generator import BatchGenerator
from t2i_core.engine.batch_isolation import whole_call
from t2i_core.engine.stages import WholeCall
from t2i_core.spec import ImageSpec
from tests import tiny_array_pipelines, tiny_pipelines
from tests.engine.float_images import float_images

CPU = torch.device("cpu")
BATCH = 4
LENGTH = 64
GUIDED = {"guidance_scale": 4.0, "negative_prompt": "a cat", "max_sequence_length": LENGTH}
FAMILIES = {
    tiny_pipelines.stable_diffusion_3: GUIDED,
    tiny_pipelines.stable_diffusion_xl: GUIDED | {"max_sequence_length": None},
    tiny_pipelines.flux_kontext: GUIDED | {"negative_prompt": None},
    tiny_array_pipelines.deepfloyd_if: GUIDED | {"max_sequence_length": None},
    tiny_pipelines.pixart_sigma: GUIDED,
    tiny_pipelines.qwen_image: GUIDED | {"guidance_scale": None, "true_cfg_scale": 4.0},
    tiny_pipelines.z_image: GUIDED,
    tiny_pipelines.cogview4: GUIDED,
    tiny_pipelines.lumina2: GUIDED,
}
WORDS = ["fox", "red", "boat", "on", "the", "sea", "by", "night", "and", "a", "house", "under", "a", "moon"] * 10


class Family:
    """A pipeline, its stages, and the settings it is called with."""

    def __init__(self, build):
        self.pipeline = build()
        self.settings = FAMILIES[build]
        self.stages = whole_call(self.pipeline, CPU)

    def spec(self, words, seed=0):
        # 48 pixels: with texts of some length, attention on the CPU then works in blocks of several sizes.
        settings = {"height": 48, "width": 48, "steps": 2, "dtype": "float32"} | self.settings
        return ImageSpec(model="tiny", prompt=" ".join(words), seed=seed, **settings)

    def generate(self, *specs):
        return float_images(BatchGenerator(self.stages, "cpu", {}), [specs], BATCH)


@pytest.fixture(scope="module", params=FAMILIES, ids=lambda build: build.__name__)
def family(request):
    return Family(request.param)


# Of the one image: short, middling, and longer than the limit.
@pytest.mark.parametrize("words", [2, 20, 100])
def test_an_image_is_the_same_bytes_whatever_its_batch_mates_and_index(family, words):
    one = family.spec(WORDS[:words], seed=11)
    alone = family.generate(one)[0]
    for length in (1, 40, 100):
        batch_mates = [family.spec(WORDS[i : i + length + i], seed=i) for i in range(BATCH - 1)]
        for index in range(BATCH):
            batch_mates.reverse()
            batch = [*batch_mates[:index], one, *batch_mates[index:]]
            assert (family.generate(*batch)[index] == alone).all(), (length, index)


def test_the_prompt_and_the_seed_decide_the_image(family):
    fox, boat, other = family.generate(family.spec(["fox"]), family.spec(["boat"]), family.spec(["fox"], seed=1))
    assert (fox != boat).any()
    assert (fox != other).any()


def test_the_image_is_the_one_that_the_pipeline_generates_for_the_prompt_alone(family):
    spec = family.spec(WORDS[:20])
    with torch.inference_mode():
        expected = WholeCall(family.pipeline, CPU).denoise([spec], lambda *step: None)[0].permute(1, 2, 0).numpy()
    assert np.abs(family.generate(spec)[0] - expected).max() < 1e-4


@pytest.mark.parametrize("words", [2, 100])
def test_embeddings_of_a_fixed_length_have_a_mask_that_masks_something(monkeypatch, words):
    # The pipeline drops a mask that masks nothing; attention without a mask may round differently.
    family = Family(tiny_pipelines.qwen_image)
    calls = []
    real = stages.run_call
    monkeypatch.setattr(
        stages,
        "run_call",
        lambda pipeline, arguments, *rest, **options: (
            calls.append(arguments) or real(pipeline, arguments, *rest, **options)
        ),
    )
    family.generate(family.spec(WORDS[:words]))
    (arguments,) = calls
    for name in ("prompt_embeds", "negative_prompt_embeds"):
        mask = arguments[f"{name}_mask"]
        assert arguments[name].shape[:2] == mask.shape == (BATCH, LENGTH + module.PADDING)
        assert not mask.all(dim=1).any()
        assert (arguments[name][~mask] == 0).all()


def test_padding_of_a_batch_is_not_generated_one_by_one():
    family = Family(tiny_pipelines.z_image)
    steps = []
    with torch.inference_mode():
        family.stages.denoise([family.spec(["fox"])] * BATCH, lambda *step: steps.append(step))
    assert steps == [(1, 2), (2, 2)]


def test_steps_of_images_that_are_called_one_by_one_are_those_of_the_batch():
    family = Family(tiny_pipelines.z_image)
    steps = []
    with torch.inference_mode():
        specs = [family.spec([word]) for word in WORDS[:2]]
        family.stages.denoise([*specs, specs[1]], lambda *step: steps.append(step))
    assert steps == [(1, 4), (2, 4), (3, 4), (4, 4)]
