"""A prompt under `--prompt-key`: one text, and never the JSON text of something else."""

from t2i_core.dataset.bad_row import ABSENT, BadRow
from t2i_core.dataset.cells import is_visible, is_written_value, json_value
from t2i_core.dataset.conversation import is_message, text_of
from t2i_core.dataset.hints import CONVERSATION_NAMES, as_flag, flag_hint

# Keys that make an object a row, not a prompt: FLUX.2 and others take prompts that are JSON objects.
ROW_KEYS = frozenset((*CONVERSATION_NAMES, "prompt", "prompts", "caption", "captions"))


def prompt_text(value: object, key: str, is_table: bool) -> str:
    """Return the prompt under `--prompt-key`: a string, a list with one string, or OpenAI content parts.

    Raises:
        BadRow: for several prompts, messages and rows in a row; the reason names the flag that reads them.
    """
    if isinstance(value, str) and value.lstrip().startswith(("[", "{")):
        value = _written_value(value, key, is_table)
    if isinstance(value, dict):
        hint = flag_hint([{key: value}], is_table, instead_of_prompt_key=True)
        raise BadRow(key, value, f"is not a string; {hint or 'write the prompt as text'}")
    if isinstance(value, list):
        instead = f"use {as_flag('--conversation-key', key)} in place of --prompt-key"
        if any(map(is_message, value)):
            raise BadRow(key, value, f"holds messages, not a prompt; {instead}")
        if all(isinstance(item, str) for item in value):
            visible = [item for item in value if is_visible(item)]
            if len(visible) > 1:
                first = "remove the blank ones and " if len(visible) < len(value) else ""
                raise BadRow(key, value, f"is a list of {len(visible)} prompts; {first}{instead}, which reads each")
            value = visible[0] if visible else ""
    return text_of(value, key)


def line_text(line: object, key: str) -> str:
    """Return the prompt that a line of a text file is; refuse a line of JSON Lines.

    Raises:
        BadRow: as `prompt_text`.
    """
    if isinstance(line, str) and line.lstrip().startswith(("[", "{")):
        value = json_value(line)
        if _is_row(value):
            hint = flag_hint([value], is_table=False) if isinstance(value, dict) else None
            raise BadRow(
                key, line, f"is a row of JSON, not a prompt; rename the file to .jsonl{f' and {hint}' if hint else ''}"
            )
        if _holds_messages(value):
            raise BadRow(
                key, line, 'holds messages, not a prompt; write {"conversations": [...]} and rename the file to .jsonl'
            )
    return text_of(line, key)


def _written_value(text: str, key: str, is_table: bool) -> object:
    """Return the list or row that a text holds as JSON, or the text where it is a prompt."""
    value = json_value(text)
    if _holds_messages(value) or (is_table and (isinstance(value, list) or _is_row(value))):
        return value
    if is_table and value is ABSENT and is_written_value(text) and text.rstrip().endswith(("]", "}")):
        raise BadRow(
            key, text, "is a list or an object as Python prints it; write lists with json.dumps, not str(), and the "
            f"prompts of a row under {as_flag('--conversation-key', key)}"
        )  # fmt: skip
    return text


def _is_row(value: object) -> bool:
    return isinstance(value, dict) and (is_message(value) or not ROW_KEYS.isdisjoint(value))


def _holds_messages(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(map(is_message, value))
