"""The score of CLIP and SigLIP models with random weights: the cosine that transformers computes, and cut prompts."""

import numpy as np
import pytest
import torch
from transformers import AutoImageProcessor, AutoTokenizer, CLIPModel

from t2i_core.engine.clip_scores import ClipScorer
from t2i_core.errors import ConfigError, ModelError
from t2i_core.scoring.interface import ScoredImage
from tests.tiny_clip import tiny_clip, tiny_siglip

NOISE = np.random.default_rng(0).integers(0, 256, (3, 24, 32, 3), np.uint8)
IMAGES = [ScoredImage(pixels, prompt) for pixels, prompt in zip(NOISE, ("a fox", "a cat", "snow"), strict=True)]


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return tiny_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def siglip(tmp_path_factory):
    return tiny_siglip(tmp_path_factory.mktemp("siglip"))


def scorer(folder, kind="clip", identity="0" * 64, device="cpu"):
    return ClipScorer(folder, kind, identity, device)


def test_the_score_is_the_cosine_of_the_embeddings(clip):
    found = scorer(clip).score(IMAGES)
    model, tokenizer = CLIPModel.from_pretrained(clip), AutoTokenizer.from_pretrained(clip)
    processor = AutoImageProcessor.from_pretrained(clip, backend="pil")
    for image, score in zip(IMAGES, found["score_clip"], strict=True):
        with torch.no_grad():
            pixels = processor(images=[image.pixels], return_tensors="pt")
            output = model(**tokenizer([image.prompt], return_tensors="pt"), **pixels)
            cosine = output.logits_per_image / model.logit_scale.exp()
        assert score == pytest.approx(cosine.item(), abs=1e-5)
        assert -1 <= score <= 1
    assert found["score_clip_cut"] == [0, 0, 0]


@pytest.mark.parametrize(("kind", "limit"), [("clip", 77), ("siglip", 64)])
def test_a_score_says_how_much_of_the_prompt_it_does_not_see(kind, limit, request):
    folder = request.getfixturevalue(kind)
    long = "a fox in the snow " * 100
    tokens = len(AutoTokenizer.from_pretrained(folder)(long).input_ids)
    found = scorer(folder, kind).score([ScoredImage(NOISE[0], "a fox"), ScoredImage(NOISE[0], long)])
    assert found["score_clip_cut"] == [0, tokens - limit]
    same = scorer(folder, kind).score([ScoredImage(NOISE[0], long + " and another one")])
    assert kind != "siglip" or same["score_clip"][0] == pytest.approx(found["score_clip"][1], abs=1e-5)


def test_an_image_scores_the_same_whatever_its_batch_mates(siglip, clip):
    for folder, kind in ((clip, "clip"), (siglip, "siglip")):
        together = scorer(folder, kind).score(IMAGES)["score_clip"]
        alone = [scorer(folder, kind).score([image])["score_clip"][0] for image in IMAGES]
        assert together == pytest.approx(alone, abs=1e-5)


def test_its_version_is_that_of_its_files_and_nothing_is_loaded_for_it(tmp_path):
    one, other = (scorer(tmp_path / "nothing", identity=digit * 64) for digit in "ab")
    assert one.version == scorer(tmp_path, identity="a" * 64).version != other.version


def test_files_that_make_up_no_model_are_refused_in_one_line(clip, tmp_path):
    (tmp_path / "config.json").write_text((clip / "config.json").read_text())
    with pytest.raises(ModelError, match=r"score: .* cannot be loaded as a clip model: ") as refused:
        scorer(tmp_path).score(IMAGES)
    assert "\n" not in str(refused.value)
    with pytest.raises(ConfigError, match="device: torch"):
        scorer(tmp_path, device="xpu:7")
