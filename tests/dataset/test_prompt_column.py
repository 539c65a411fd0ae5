"""A prompt under --prompt-key is one text, and never the JSON text of something else."""

import json

import pytest

from t2i_core.dataset.bad_row import BadRow
from t2i_core.dataset.prompt_column import line_text, prompt_text
from tests.dataset.test_parser import user

FLUX = {"scene": "a fox", "style": "photo", "text": "SALE", "objects": [{"description": "a fox"}]}


@pytest.mark.parametrize("is_table", [True, False])
@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("a fox", "a fox"),
        ("[surreal] a fox", "[surreal] a fox"),
        ("['90s style] a fox", "['90s style] a fox"),
        ("{red|white} fox", "{red|white} fox"),
        (json.dumps(FLUX), json.dumps(FLUX)),
        (["a fox"], "a fox"),
        (["", "a fox", "\u200b"], "a fox"),
        ([{"type": "text", "text": "a fox"}, {"type": "image_url", "image_url": {}}, {"text": "b"}], "a fox\nb"),
    ],
)
def test_one_text_is_the_prompt(value, text, is_table):
    assert prompt_text(value, "p", is_table) == text


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (
            ["a", "b"],
            "is a list of 2 prompts; use --conversation-key 'my prompt' in place of --prompt-key, which reads",
        ),
        (["a", "", "b"], "is a list of 2 prompts; remove the blank ones and use --conversation-key"),
        ([user("a")], "holds messages, not a prompt; use --conversation-key 'my prompt' in place of --prompt-key"),
        ([{"from": "human", "value": "a"}], "holds messages, not a prompt"),
        (user("a"), "is not a string; use --prompt-key 'my prompt.content'"),
        ({"messages": [user("a")]}, "use --conversation-key 'my prompt.messages' in place of --prompt-key"),
        ({"caption": "a"}, "is not a string; use --prompt-key 'my prompt.caption'"),
        ({"x": 5}, "is not a string; write the prompt as text"),
        ([], "is blank"),
        (["", " "], "is blank"),
        ("\u200b", "is blank"),
        (5, "is not a string"),
        (None, "is missing"),
        ([5], "is not a part"),
    ],
)
def test_anything_else_is_refused_with_the_flag_that_reads_it(value, reason):
    with pytest.raises(BadRow) as error:
        prompt_text(value, "my prompt", is_table=False)
    assert reason in error.value.reason
    # As JSON text in a table, too; there an object that is no row is a prompt.
    if isinstance(value, list | dict) and value != {"x": 5}:
        with pytest.raises(BadRow) as in_table:
            prompt_text(json.dumps(value), "my prompt", is_table=True)
        assert in_table.value.reason == error.value.reason


def test_a_list_of_a_table_as_python_prints_it_is_refused():
    for text in ("['a fox', 'a cat']", "[{'role': 'user', 'content': 'a'}]"):
        with pytest.raises(BadRow, match=r"json.dumps.*--conversation-key p"):
            prompt_text(text, "p", is_table=True)
        assert prompt_text(text, "p", is_table=False) == text


def test_text_in_json_stays_text_unless_it_holds_messages():
    assert prompt_text('["a", "b"]', "p", is_table=False) == '["a", "b"]'
    with pytest.raises(BadRow, match="holds messages"):
        prompt_text(json.dumps([user("a")]), "p", is_table=False)


def test_a_line_of_a_text_file_is_a_prompt_unless_it_is_a_row_of_json():
    for line in ("a fox", '["狐狸"]', "[surreal]", json.dumps(FLUX), '{"x": 1}', "{torn"):
        assert line_text(line, "prompt") == line
    for line, reason in [
        ('{"prompt": "a fox"}', "rename the file to .jsonl and use --prompt-key prompt"),
        (
            json.dumps({"conversations": [user("a")]}),
            "rename the file to .jsonl and use --conversation-key conversations",
        ),
        ('{"caption": ""}', "rename the file to .jsonl"),
        (json.dumps([user("a")]), 'write {"conversations": [...]} and rename the file to .jsonl'),
    ]:
        with pytest.raises(BadRow) as error:
            line_text(line, "prompt")
        assert error.value.reason.endswith(reason)
