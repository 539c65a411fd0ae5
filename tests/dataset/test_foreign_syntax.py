"""Prompts that carry another tool's syntax are generated as they are, and counted."""

import json
import time

import pytest

from t2i_core.config import Config
from t2i_core.dataset.foreign_syntax import ForeignSyntax, may_carry, syntax_in
from t2i_core.dataset.parser import read_rows
from t2i_core.dataset.rows import Prompt, Row

CARRY = {
    "a fox --steps 20 --ar 16:9": "--steps 20",
    "a fox\n--no text": "--steps 20",
    "a (fox:1.3) in snow": "(word:1.3)",
    "(a (red) fox:1.21)": "(word:1.3)",
    "a [fox:cat:0.5]": "(word:1.3)",
    "a (fox:-1)": "(word:1.3)",
    "((masterpiece)), a fox": "((word))",
    "a fox <lora:snow:0.8>": "<lora:...>",
    "<image>\na fox": "<image>",
    "a __colour__ fox": "__wildcard__",
    "a __animals/big-cats__": "__wildcard__",
    "a __*__": "__wildcard__",
    "a {red|white} fox": "{a|b}",
    "{2$$, $$fox|cat|hare}": "{a|b}",
    "a fox BREAK snow": "BREAK",
    "a fox\nNegative prompt: blurry": "Negative prompt:",
    "a fox\nSteps: 20, Sampler: Euler a": "Steps: 20, Sampler: ...",
    "nan": "nan or null",
    " None ": "nan or null",
    '["a fox", "a cat"]': "JSON",
    "['a fox', 'a cat']": "JSON",
    '{"scene": "a fox"}': "JSON",
}
PLAIN = (
    *("a fox -- in snow", "a well-known fox--or a cat", "a clock that shows (10:30)", "John (3:16)", "a map (1:50)"),
    *("a (red) fox", "a fox (16:9)", "a <3 for foxes", "a | b", "a {red} fox", "____", "snake_case__twice"),
    *("TAKE A BREAK NOW", "breakfast: eggs", "style: photo, light: soft", "[surreal] a fox [detailed]", "Nan bread"),
    *("a smile :)", "黄昏时分：狐狸", "in three steps: wake, run, sleep", "a negative prompt", "{prompt} in snow"),
)


@pytest.mark.parametrize(("text", "kind"), CARRY.items())
def test_the_syntax_of_other_tools_is_known(text, kind):
    assert kind in syntax_in(text)
    assert may_carry(text)


@pytest.mark.parametrize("text", PLAIN)
def test_plain_prompts_carry_none(text):
    assert syntax_in(text) == []


def test_the_log_says_once_how_many_prompts_carry_what_and_which_is_the_first(tmp_path, caplog):
    path = tmp_path / "rows.txt"
    prompts = ["a fox", "a (fox:1.3) --ar 1:1", "a (cat:1.2)", *PLAIN[:3]]
    path.write_text("\n".join(prompts))
    rows = list(read_rows(Config(dataset=str(path), prompt_template="{prompt}, (sharp:1.5)")))
    assert [row.prompts[0].source_text for row in rows] == prompts
    (message,) = [record.getMessage() for record in caplog.records]
    assert message == (
        "prompts   2 carry another tool's syntax, or data written as text, and are generated as they are: 2 (word:1.3),"
        " 1 --steps 20; first in line 2: 'a (fox:1.3) --ar 1:1'"
    )


def test_every_prompt_of_a_row_counts(tmp_path, caplog):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"conversations": ["a", *CARRY]}) + "\n" + json.dumps({"conversations": list(CARRY)}))
    list(read_rows(Config(dataset=str(path))))
    (message,) = [record.getMessage() for record in caplog.records]
    assert f"{2 * len(CARRY)} carry" in message
    assert "8 (word:1.3)" in message


def test_a_data_set_of_plain_prompts_says_nothing(tmp_path, caplog):
    path = tmp_path / "rows.txt"
    path.write_text("\n".join(PLAIN))
    assert len(list(read_rows(Config(dataset=str(path))))) == len(PLAIN)
    assert not caplog.records


def test_the_first_prompt_is_found_again_in_a_data_set_without_lines_or_of_several_files(caplog):
    for row, place in [
        (Row(3, None, None, prompts=(Prompt(0, "nan", "nan"),)), "first in row 3: 'nan'"),
        (Row(3, 5, None, prompts=(Prompt(0, "nan", "nan"),), file="b.txt"), "first in b.txt, line 5: 'nan'"),
    ]:
        syntax = ForeignSyntax()
        syntax.look_at(row, "nan")
        syntax.tell()
        assert caplog.records[-1].getMessage().endswith(place)


@pytest.mark.parametrize("text", ["_", "(", "[", "{|", "|{", "((", "<lora:", "--a", "(a:", "BREAK", "( "])
def test_long_texts_are_looked_at_in_no_time(text):
    started = time.process_time()
    syntax_in("x" + text * (100_000 // len(text)))
    syntax_in("__" + "a" * 100_000 + text)
    assert time.process_time() - started < 1
