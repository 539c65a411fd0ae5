"""What is said of prompts that text encoders would cut or do not know, before anything is generated."""

import pytest

from t2i_core.engine.prompt_check import Found, PromptCheck
from t2i_core.models.presets import PRESETS
from t2i_core.reports.prompt_lines import prompt_lines

NOTHING = Found()


def test_prompts_without_a_fault_need_no_line():
    assert prompt_lines(PromptCheck(5, 5, NOTHING, NOTHING), PRESETS["flux-dev"]) == []


def test_cut_and_unknown_prompts_have_a_line_each():
    check = PromptCheck(1200, 1200, Found(2, [3, 7], ["A", "B"]), Found(1, [4], ["B"]))
    assert prompt_lines(check, PRESETS["flux-dev"]) == [
        "cut       2 of 1,200 prompts are longer than A or B takes (rows 3, 7)",
        "unread    1 of 1,200 prompts is more than a third unknown to B (row 4): "
        "translate them, or choose a model that knows their language",
    ]


def test_of_many_prompts_some_were_checked():
    (line,) = prompt_lines(PromptCheck(100, 250, Found(9, [*range(6)], ["A"]), NOTHING), PRESETS["flux-dev"])
    assert line == ("cut       9 of 100 prompts, spread over all 250, are longer than A takes (rows 0, 1, 2, 3, 4, …)")


@pytest.mark.parametrize(("preset", "told"), [("demo", True), ("flux-dev", False)])
def test_the_demo_model_says_what_it_knows(preset, told):
    (line,) = prompt_lines(PromptCheck(1, 1, NOTHING, Found(1, [0], ["A"])), PRESETS[preset])
    assert line.endswith("the demo model knows fewer than 200 English words; --model names another") is told


def test_encoders_whose_tokenizer_cannot_be_read_are_named():
    check = PromptCheck(5, 5, NOTHING, NOTHING, ["ChatGLMModel"])
    told = "prompts   not counted for ChatGLMModel, whose tokenizer cannot be read without the pipeline"
    assert prompt_lines(check, PRESETS["flux-dev"]) == [told]
