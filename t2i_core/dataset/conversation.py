"""Prompts in a conversation: the messages of OpenAI and ShareGPT, and plain strings."""

import shlex
from collections.abc import Iterator, Sequence

from t2i_core.dataset.bad_row import ABSENT, BadRow, joined
from t2i_core.dataset.cells import cell_list, clean, is_visible, json_value
from t2i_core.dataset.columns import fold
from t2i_core.json_values import encodable

ROLE_ALIASES = {"human": "user", "gpt": "assistant"}  # ShareGPT's
NO_PROMPT_ROLES = ("system", "developer", "tool")


def prompt_roles(roles: Sequence[str]) -> frozenset[str]:
    """Return the names of roles whose messages are prompts, ShareGPT's among them, in lower case."""
    wanted = {fold(role) for role in roles}
    return frozenset(wanted | {alias for alias, role in ROLE_ALIASES.items() if role in wanted})


def conversation_texts(value: object, key: str, roles: frozenset[str], is_table: bool) -> list[tuple[int, str]]:
    """Return the prompts of a conversation as (index of the message, text).

    Raises:
        BadRow: where a message cannot be used, or none has one of the `roles`, as `prompt_roles` gives them.
    """
    if isinstance(value, str):
        value = cell_list(value, key) if is_table else _messages_as_text(value)
    if value is None or isinstance(value, str):
        return [(0, text_of(value, key))]
    if not isinstance(value, list):
        raise BadRow(key, value, 'is neither a list of messages nor a string; write [{"role": "user", ...}]')
    if not value:
        raise BadRow(key, value, "has no message; write at least one with the role user")
    texts, found = [], []
    for index, message in enumerate(value):
        role, content, name = _message(message, key, index)
        if role in roles or fold(role) in roles:
            texts.append((index, text_of(content, key, index, name)))
        else:
            found.append(role)
    if not texts:
        raise BadRow(key, ABSENT, _no_prompt(sorted(roles - ROLE_ALIASES.keys()) or sorted(roles), found))
    return texts


def is_message(value: object) -> bool:
    """Return whether a value is a message of OpenAI or ShareGPT."""
    return (
        isinstance(value, dict) and bool({"role", "from"} & value.keys()) and bool({"content", "value"} & value.keys())
    )


def text_of(value: object, field: str, index: int | None = None, name: str = "") -> str:
    """Return the text of a string or of OpenAI content parts; refuse blank text, NUL and unpaired surrogates.

    `index` and `name` complete the field where it is a message of a conversation: `messages[2].content`.
    """
    if isinstance(value, str) and is_visible(value) and "\0" not in value and (value.isascii() or encodable(value)):
        return value
    if index is not None:
        field = f"{field}[{index}]{name}"
    if value is None:
        raise BadRow(field, ABSENT, "is missing; write the prompt")
    if isinstance(value, list):
        value = "\n".join(_part_texts(value, field))
    if not isinstance(value, str):
        raise BadRow(field, value, "is not a string; write the prompt as text")
    if not is_visible(value):
        raise BadRow(field, value, "is blank; write a prompt")
    return clean(value, field)


def _messages_as_text(text: str) -> object:
    """Return the messages that a text holds as JSON, as an exporter leaves them that encodes twice; else the text."""
    parsed = json_value(text) if text.startswith("[") else ABSENT
    return parsed if isinstance(parsed, list) and parsed and all(map(is_message, parsed)) else text


def _message(message: object, key: str, index: int) -> tuple[str, object, str]:
    """Return (role, content, the name of the content) of an OpenAI or ShareGPT message or a plain string."""
    if isinstance(message, str):
        return "user", message, ""
    if not isinstance(message, dict):
        raise BadRow(f"{key}[{index}]", message, 'is not a message; write {"role": "user", "content": "a prompt"}')
    role, content = message.get("role"), message.get("content")
    name = ".role"
    if role is None:
        role, name = message.get("from"), ".from"
    if role is None:
        role = "user"
    if not isinstance(role, str):
        raise BadRow(f"{key}[{index}]{name}", role, "is not a string; write a role such as user")
    if content is None and message.get("value") is not None:
        return role, message["value"], ".value"
    return role, content, ".content"


def _part_texts(parts: list[object], field: str) -> Iterator[str]:
    """Yield the texts among OpenAI content parts; other kinds, such as pictures, are passed over."""
    for index, part in enumerate(parts):
        if isinstance(part, dict) and part.get("type") in (None, "text", "input_text"):
            text = part.get("text")
            if not isinstance(text, str):
                raise BadRow(f"{field}[{index}].text", text, "is not a string; write the prompt as text")
            yield text
        elif isinstance(part, str):
            yield part
        elif not isinstance(part, dict):
            raise BadRow(f"{field}[{index}]", part, 'is not a part; write {"type": "text", "text": "a prompt"}')


def _no_prompt(wanted: list[str], found: list[str]) -> str:
    others = list(dict.fromkeys(found))
    usable = [role for role in others if role.isprintable() and role.strip()]
    likely = [role for role in usable if fold(role) not in NO_PROMPT_ROLES] or usable
    fix = f"use --roles {shlex.quote(likely[0])}" if likely else "set --roles"
    return f"has no message of the role {' or '.join(wanted)}, only of {joined(others)}; add one, or {fix}"
