"""A plan's prompts are checked before anything is generated: each prompt once, some of very many."""

import json

import pytest

from t2i_core.bundled import DEMO_MODEL
from t2i_core.dataset.rows import Rejection
from t2i_core.engine import prompt_check
from t2i_core.engine.prompt_check import Found, check_prompts
from t2i_core.engine.tokens import TokenCounter
from t2i_core.storage.workspace import Workspace
from tests.builders import SKIPPED, image_spec, write_plan_files
from tests.tiny_tokenizers import like_clip, like_t5

CHINESE = "一只狐狸在雪地里"
KNOWN = "a fox in the snow"


@pytest.fixture
def check(tmp_path):
    """A function: rows of a plan -> what the check of them with a FLUX of tiny tokenizers finds."""
    workspace, model = Workspace(tmp_path), tmp_path / "model"
    like_clip(model / "tokenizer")
    like_t5(model / "tokenizer_2")
    index = {"_class_name": "FluxPipeline"}
    for number, encoder in (("", "CLIPTextModel"), ("_2", "T5EncoderModel")):
        index |= {f"tokenizer{number}": ["transformers", "X"], f"text_encoder{number}": ["transformers", encoder]}
    (model / "model_index.json").write_text(json.dumps(index))

    def check(*rows):
        plan = write_plan_files(workspace, *rows)
        return check_prompts(plan, workspace.plans, TokenCounter.of_folder(model), lambda: False)

    return check


def spec(prompt, seed=0, **fields):
    return image_spec(seed, prompt=prompt, **{"max_sequence_length": 512, **fields})


def test_a_prompt_that_one_encoder_does_not_know_counts(check):
    found = check(spec(KNOWN), spec(CHINESE), spec(f"{KNOWN}, {KNOWN}, {CHINESE}"))
    assert (found.prompts, found.total) == (3, 3)
    assert found.unread == Found(1, [1], ["T5EncoderModel"])  # CLIP reads it as bytes
    assert found.cut == Found()


def test_a_prompt_counts_once_however_many_images_it_has(check):
    found = check([spec(CHINESE, seed) for seed in range(4)], spec(KNOWN))
    assert (found.prompts, found.unread) == (2, Found(1, [0], ["T5EncoderModel"]))


def test_each_row_has_its_own_limit(check):
    found = check(spec(KNOWN, max_sequence_length=3), spec(KNOWN), spec(KNOWN, max_sequence_length=4))
    assert found.cut == Found(2, [0, 2], ["T5EncoderModel"])


def test_a_prompt_that_several_encoders_cut_counts_once(check):
    found = check(spec("a fox " * 300))
    assert found.cut == Found(1, [0], ["CLIPTextModel", "T5EncoderModel"])


def test_rows_without_prompts_keep_their_number(check):
    found = check(SKIPPED, Rejection(1, 2, "prompt", "''", "is empty"), spec(CHINESE))
    assert (found.prompts, found.unread.rows) == (1, [2])


def test_of_many_prompts_some_are_checked_spread_over_all(check, monkeypatch):
    monkeypatch.setattr(prompt_check, "PROMPTS_CHECKED", 10)
    found = check(*(spec(CHINESE if number >= 12 else KNOWN, number) for number in range(25)))
    assert (found.prompts, found.total) == (9, 25)  # every third
    assert found.unread == Found(5, [12, 15, 18, 21, 24], ["T5EncoderModel"])


def test_only_the_first_rows_are_noted(check):
    found = check(*(spec(CHINESE, number) for number in range(9)))
    assert (found.unread.prompts, found.unread.rows) == (9, [0, 1, 2, 3, 4, 5])


def test_a_plan_without_prompts_has_nothing_to_check(check):
    assert check(SKIPPED).prompts == 0
    assert TokenCounter.of_folder(DEMO_MODEL).count([], 24) == []
