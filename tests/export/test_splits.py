"""Splits by a hash of the prompt."""

import pytest

from t2i_core.errors import ConfigError
from t2i_core.export.splits import Splits

PROMPTS = [f"a fox number {number}" for number in range(4000)]


def test_shares_are_near_what_was_asked_for():
    splits = Splits.parse("train=0.9, val=0.05,test=0.05")
    counts = [0, 0, 0]
    for prompt in PROMPTS:
        counts[splits.of(prompt)] += 1
    assert splits.names == ("train", "val", "test")
    assert 3500 < counts[0] < 3700
    assert all(150 < count < 250 for count in counts[1:])


def test_a_prompt_stays_in_its_split_in_every_version():
    splits = Splits.parse("train=0.5,val=0.5")
    assert [splits.of(f"p{number}") for number in range(8)] == [0, 0, 1, 1, 1, 0, 1, 0]


def test_variants_of_a_prompt_are_together():
    splits = Splits.parse("a=0.5,b=0.5")
    for prompt in PROMPTS[:50]:
        assert splits.of(prompt) == splits.of(f"  {prompt.upper()}\n")


def test_a_larger_share_moves_no_prompt_out_of_it():
    small, large = Splits.parse("train=0.8,val=0.2"), Splits.parse("train=0.9,val=0.1")
    assert all(large.of(prompt) == 0 for prompt in PROMPTS if small.of(prompt) == 0)


def test_thirds_add_up():
    assert Splits.parse("a=0.333333,b=0.333333,c=0.333334").bounds[-1] == 1.0


@pytest.mark.parametrize(
    "text, why",
    [
        ("train", "write NAME=SHARE"),
        ("", "write NAME=SHARE"),
        ("train=0.9,,val=0.1", "write NAME=SHARE"),
        ("../x=1", "write NAME=SHARE"),
        ("train=1.2.3", "write NAME=SHARE"),
        ("train=0.5,train=0.5", "stands twice"),
        ("train=0.9,val=0.2", "add up to 1, and make 1.1"),
        ("train=1,val=0", "above 0"),
    ],
)
def test_other_text_is_refused_in_one_line(text, why):
    with pytest.raises(ConfigError, match=why) as error:
        Splits.parse(text)
    assert "\n" not in str(error.value)
