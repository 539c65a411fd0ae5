"""Equal texts are encoded once, within a bound of bytes, and no bit of an image changes."""

import pytest
import torch

from t2i_core.engine import embeddings as module
from t2i_core.engine.batch_generator import BatchGenerator
from t2i_core.engine.batch_isolation import whole_call
from t2i_core.engine.embeddings import EmbeddingCache, encode_once, nbytes
from t2i_core.engine.stages import WholeCall
from t2i_core.spec import ImageSpec
from tests import tiny_pipelines
from tests.engine.float_images import float_images

CPU = torch.device("cpu")
BATCH = 4
GUIDED = {"guidance_scale": 4.0, "negative_prompt": "a cat"}
FAMILIES = {
    tiny_pipelines.stable_diffusion_3: GUIDED,
    tiny_pipelines.stable_diffusion_xl: GUIDED,
    tiny_pipelines.pixart_sigma: GUIDED,
    tiny_pipelines.qwen_image: {"true_cfg_scale": 4.0, "negative_prompt": "a cat"},
    tiny_pipelines.z_image: GUIDED,
    tiny_pipelines.cogview4: GUIDED,
    tiny_pipelines.lumina2: GUIDED,
}


def spec(prompt, seed=0, **values):
    settings = {"height": 32, "width": 32, "steps": 1, "dtype": "float32"}
    return ImageSpec(model="tiny", prompt=prompt, seed=seed, **settings | values)


def encoder_calls(pipeline):
    """Return a list to which each call of a text encoder adds its name."""
    calls = []
    for name, part in pipeline.components.items():
        if name.startswith("text_encoder"):
            part.register_forward_hook(lambda *_, name=name: calls.append(name))
    return calls


def images(stages, batch):
    return torch.stack(stages.denoise(batch, lambda *step: None))


@pytest.fixture(scope="module", params=FAMILIES, ids=lambda build: build.__name__)
def build(request):
    return request.param


def test_a_hundred_images_of_one_prompt_encode_its_texts_once(build):
    pipeline = build()
    calls = encoder_calls(pipeline)
    specs = [spec("a red fox", seed=i, **FAMILIES[build]) for i in range(100)]
    batches = [specs[i : i + BATCH] for i in range(0, 100, BATCH)]
    assert len(float_images(BatchGenerator(whole_call(pipeline, CPU), "cpu", {}), batches, BATCH)) == 100
    encoders = {name for name in pipeline.components if name.startswith("text_encoder")}
    # The prompt and the negative prompt, each once.
    assert sorted(calls) == sorted([*encoders] * 2)


def test_an_image_of_remembered_texts_is_the_same_to_the_last_bit(build):
    pipeline = build()
    batches = [[spec(p, seed=i, **FAMILIES[build]) for i, p in enumerate(prompts)] for prompts in (["fox"] * 4, "abcd")]
    stages = whole_call(pipeline, CPU)
    plain = type(stages)(build(), CPU)  # without the memory
    with torch.no_grad():
        for _ in range(2):
            for batch in batches:
                assert (images(stages, batch) == images(plain, batch)).all()


@pytest.mark.parametrize(
    "build", [tiny_pipelines.stable_diffusion_3, tiny_pipelines.stable_diffusion_xl, tiny_pipelines.pixart_sigma]
)
def test_a_negative_prompt_is_encoded_once_for_all_prompts(build):
    pipeline = build()
    calls = encoder_calls(pipeline)
    stages, plain = whole_call(pipeline, CPU), WholeCall(build(), CPU)
    encoders = [name for name in pipeline.components if name.startswith("text_encoder")]
    counts = []
    for prompts in ("ab", "cd", "ef", "gh"):
        batch = [spec(prompt, seed=i, **GUIDED) for i, prompt in enumerate(prompts)]
        with torch.no_grad():
            assert (images(stages, batch) == images(plain, batch)).all()
        counts.append(len(calls) / len(encoders))
        calls.clear()
    # Prompt and negative prompt; the trial; from then on prompts alone.
    assert counts == [2, 3, 1, 1]


class Guided:
    """Encodes a negative prompt in the same call. `leaks`: the embedding of the negative prompt is the prompt's."""

    def __init__(self, *, leaks):
        self.leaks, self.negatives = leaks, 0

    def encode_prompt(self, prompt, negative_prompt=None, prompt_embeds=None, negative_prompt_embeds=None):
        prompt_embeds = torch.tensor([float(len(text)) for text in prompt])
        if negative_prompt is not None and negative_prompt_embeds is None:
            self.negatives += 1
            texts = prompt if self.leaks else negative_prompt
            negative_prompt_embeds = torch.tensor([-float(len(text)) for text in texts])
        return prompt_embeds, negative_prompt_embeds


def test_a_negative_prompt_that_depends_on_the_prompt_is_encoded_each_time():
    pipeline, plain = Guided(leaks=True), Guided(leaks=True)
    encode_once(pipeline, split=True)
    for prompt in ("a", "bb", "ccc", "dddd"):
        got, expected = (p.encode_prompt([prompt], ["no"]) for p in (pipeline, plain))
        assert [*got] == [*expected]


@pytest.mark.parametrize(("split", "negatives"), [(True, 2), (False, 4)])
def test_a_negative_prompt_is_remembered_by_itself_only_where_prompts_do_not_change_its_length(split, negatives):
    pipeline = Guided(leaks=False)
    encode_once(pipeline, split=split)
    for prompt in ("a", "bb", "ccc", "dddd"):
        assert [*pipeline.encode_prompt([prompt], ["no"])] == [len(prompt), -2]
    assert pipeline.negatives == negatives
    # Another batch size, another negative prompt, or none, is another call.
    assert pipeline.encode_prompt(["a", "b"], ["no", "no"])[1].tolist() == [-2, -2]
    assert pipeline.encode_prompt(["a"], ["none"])[1].tolist() == [-4]
    assert pipeline.encode_prompt(["a"])[1] is None


class Pipeline:
    """Its embeddings are the number of the call, of as many bytes as it has texts; the caller writes to them."""

    def __init__(self):
        self.calls = 0

    def encode_prompt(self, prompt, device=None, guidance=True, image=None, **more):
        self.calls += 1
        return torch.full((len(prompt),), self.calls, dtype=torch.uint8), [None, torch.zeros(())]


def test_other_arguments_are_other_texts():
    pipeline = Pipeline()
    encode_once(pipeline, split=True)
    asked = [(["a"],), (["a", "a"],), (["a", 1],), (["a", True],), (["a"], CPU), (["a"], None, False), ("a",)]
    for _ in range(2):
        for number, arguments in enumerate(asked, 1):
            assert pipeline.encode_prompt(*arguments)[0][0] == number
    assert pipeline.encode_prompt(["a"], clip_skip=1)[0][0] == len(asked) + 1
    # A default that is given is another key, and equal texts under their name are not.
    assert pipeline.encode_prompt(prompt=["a"])[0][0] == 1


def test_the_pipeline_may_write_to_what_it_is_given():
    pipeline = Pipeline()
    encode_once(pipeline, split=True)
    for _ in range(3):
        embedding, _ = pipeline.encode_prompt(["a"])
        assert embedding == 1
        embedding.zero_()


def test_arguments_that_are_no_plain_values_are_never_remembered():
    pipeline = Pipeline()
    encode_once(pipeline, split=True)
    for number in (1, 2):
        assert pipeline.encode_prompt(["a"], image=torch.zeros(2))[0] == number


def test_what_is_remembered_is_bounded_and_the_newest_stays(monkeypatch):
    monkeypatch.setattr(module, "DEVICE_BYTES", 13)
    pipeline = Pipeline()
    encode_once(pipeline, split=True)
    for texts in ("ab", "cd", "ab", "ef", "ab", "cd"):  # 2 + 4 bytes each: "cd" is dropped for "ef"
        pipeline.encode_prompt([*texts])
    assert pipeline.calls == 4
    for _ in range(2):
        pipeline.encode_prompt(["a"] * 30)
    assert pipeline.calls == 5


def test_a_pipeline_without_an_encoder_of_its_own_is_left_alone():
    pipeline = object()
    encode_once(pipeline, split=True)
    assert not hasattr(pipeline, "encode_prompt")


def test_a_cache_drops_what_was_not_used_for_longest():
    cache = EmbeddingCache()
    for text in "abc":
        cache.add(text, (torch.zeros(2), None))
    assert cache.get("a") is not None
    cache.shrink(16)
    assert cache.bytes == 16
    assert [text for text in "abc" if cache.get(text) is not None] == ["a", "c"]
    assert nbytes([torch.zeros(3), (None, torch.zeros(1))]) == 16
