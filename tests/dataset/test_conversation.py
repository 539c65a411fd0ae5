"""Messages of conversations: whose they are, and in which form they come."""

import json

import pytest

from t2i_core.dataset.bad_row import BadRow
from t2i_core.dataset.conversation import conversation_texts, prompt_roles
from tests.dataset.test_parser import user


def read(value: object, *roles: str, is_table: bool = False) -> list[tuple[int, str]]:
    return conversation_texts(value, "c", prompt_roles(roles or ("user",)), is_table)


def said(role: object, text: str = "a") -> dict:
    return {"role": role, "content": text}


@pytest.mark.parametrize("role", ["user", "User", "USER", " user ", "user\n", "human", "Human", "\ufeffuser"])
def test_case_and_blanks_of_a_role_do_not_count(role):
    assert read([said(role)]) == [(0, "a")]
    assert read([{"from": role, "value": "a"}]) == [(0, "a")]
    for wanted in ("user", "User", " user "):
        assert read([said(role), said("assistant", "b")], wanted) == [(0, "a")]


def test_other_roles_are_asked_for_by_name():
    conversation = [said("System", "s"), said("Prompter", "p"), {"from": "GPT", "value": "g"}]
    assert read(conversation, "prompter") == [(1, "p")]
    assert read(conversation, "assistant") == [(2, "g")]
    assert read(conversation, "gpt", "system") == [(0, "s"), (2, "g")]


def test_a_conversation_without_the_role_names_the_flag_that_reads_it():
    for roles, flag in [
        (["system", "prompter"], "use --roles prompter"),
        (["system"], "use --roles system"),
        (["a painter", "system"], "use --roles 'a painter'"),
        (["\n"], "set --roles"),
        (["system", "gpt"], "use --roles gpt"),
    ]:
        with pytest.raises(BadRow) as error:
            read([said(role) for role in roles])
        assert error.value.reason.startswith("has no message of the role user, only of ")
        assert error.value.reason.endswith(f"; add one, or {flag}")


@pytest.mark.parametrize("is_table", [True, False])
def test_messages_that_were_encoded_twice_are_read(is_table):
    conversation = [said("system"), user("a fox"), {"from": "human", "value": "b"}]
    assert read(json.dumps(conversation), is_table=is_table) == [(1, "a fox"), (2, "b")]
    assert read(json.dumps(conversation, indent=1), is_table=is_table) == [(1, "a fox"), (2, "b")]


def test_text_that_only_looks_like_a_list_is_the_prompt():
    for text in ("[surreal] a fox", "[1girl]", "[5]", "[[a]", '["a", "b"]', "[{'role': 'user', 'content': 'a'}]", "[]"):
        assert read(text) == [(0, text)]
    assert read('["a", "b"]', is_table=True) == [(0, "a"), (1, "b")]


def test_blank_messages_are_named():
    for blank in ("", " \n", "\u200b\u2060", "\ufeff"):
        with pytest.raises(BadRow) as error:
            read([user("a"), user(blank)])
        assert (error.value.field, error.value.reason) == ("c[1].content", "is blank; write a prompt")
    with pytest.raises(BadRow, match="is blank"):
        read([user([{"type": "text", "text": "\u200b"}])])
