"""The same spec in the same batch shape is the same bytes, whatever its mates, its slot and their order.

FLUX is in test_engine.py. The families here have random weights.
"""

import numpy as np
import pytest
import torch

from t2i_core.drawing import Timings
from t2i_core.engine.draw import Drawer
from t2i_core.engine.fixed_text import whole_call
from t2i_core.engine.stages import WholeCall
from t2i_core.spec import ImageSpec
from tests import tiny_pipelines

CPU = torch.device("cpu")
BATCH = 4
LENGTH = 64
GUIDED = {"guidance_scale": 4.0, "negative_prompt": "a cat", "max_sequence_length": LENGTH}
FAMILIES = {
    tiny_pipelines.stable_diffusion_3: GUIDED,
    tiny_pipelines.stable_diffusion_xl: GUIDED | {"max_sequence_length": None},
    tiny_pipelines.pixart_sigma: GUIDED,
    tiny_pipelines.qwen_image: GUIDED | {"guidance_scale": None, "true_cfg_scale": 4.0},
    tiny_pipelines.z_image: GUIDED,
    tiny_pipelines.cogview4: GUIDED,
    tiny_pipelines.lumina2: GUIDED,
}
WORDS = ["fox", "red", "boat", "on", "the", "sea", "by", "night", "and", "a", "house", "under", "a", "moon"] * 10


class Family:
    """A pipeline and the settings it is called with."""

    def __init__(self, build):
        self.pipeline = build()
        self.settings = FAMILIES[build]
        self.stages = whole_call(self.pipeline, CPU)

    def spec(self, words, seed=0):
        # 48 pixels: with texts of some length, attention on the CPU then works in blocks of several sizes.
        settings = {"height": 48, "width": 48, "steps": 2, "dtype": "float32"} | self.settings
        return ImageSpec(model="tiny", prompt=" ".join(words), seed=seed, **settings)

    def draw(self, *specs):
        (drawn,) = Drawer(self.stages, "cpu", {}).draw([specs], BATCH, lambda: False, Timings())
        return [image.pixels() for image in drawn]


@pytest.fixture(scope="module", params=FAMILIES, ids=lambda build: build.__name__)
def family(request):
    return Family(request.param)


# Of the one image: short, in the middle, and longer than what is cut.
@pytest.mark.parametrize("words", [2, 20, 100])
def test_an_image_is_the_same_bytes_whatever_its_mates_and_slot(family, words):
    one = family.spec(WORDS[:words], seed=11)
    alone = family.draw(one)[0]
    for length in (1, 40, 100):
        mates = [family.spec(WORDS[i : i + length + i], seed=i) for i in range(BATCH - 1)]
        for slot in range(BATCH):
            mates.reverse()
            batch = [*mates[:slot], one, *mates[slot:]]
            assert (family.draw(*batch)[slot] == alone).all(), (length, slot)


def test_the_prompt_and_the_seed_make_the_picture(family):
    fox, boat, other = family.draw(family.spec(["fox"]), family.spec(["boat"]), family.spec(["fox"], seed=1))
    assert (fox != boat).any()
    assert (fox != other).any()


def test_the_picture_is_the_one_that_the_pipeline_draws_of_the_prompt_alone(family):
    spec = family.spec(WORDS[:20])
    with torch.inference_mode():
        expected = WholeCall(family.pipeline, CPU).denoise([spec], lambda: None)[0].permute(1, 2, 0).numpy()
    assert np.abs(family.draw(spec)[0] - expected).max() < 1e-4


def test_what_only_fills_up_a_batch_is_not_drawn_one_by_one():
    family = Family(tiny_pipelines.z_image)
    steps = []
    with torch.inference_mode():
        family.stages.denoise([family.spec(["fox"])] * BATCH, lambda: steps.append(1))
    assert len(steps) == 2
