"""The parser: from the rows of a file to `Row` values with prompts, or with the reason why a row is rejected.

A row is used whole or not at all. What is wrong with the data set as a whole (no such file, no such column) is a
`DatasetError` instead.
"""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import cast

from pydantic import ValidationError

from t2i_core.config import Config, RowSettings
from t2i_core.config_errors import problems_of
from t2i_core.dataset.readers import TEXT_COLUMN, RawRow, Source, open_source
from t2i_core.dataset.rows import Prompt, Rejection, Row
from t2i_core.errors import DatasetError, shorten
from t2i_core.json_values import encodable, json_text, parse_json

SHAREGPT_ROLES = {"human": "user", "gpt": "assistant"}
PROMPT_NAMES = ("prompt", "prompts", "text", "caption", "captions")
CONVERSATION_NAMES = ("conversations", "conversation", "messages")

NO_SETTINGS = RowSettings()
ABSENT = object()  # where there is no value to show


class _BadRow(ValueError):
    """A row cannot be used: which field, the value received, what is wrong and what to do."""

    def __init__(self, field: str, value: object, reason: str) -> None:
        self.field, self.reason = _printable(field), _printable(reason)
        self.value = "" if value is ABSENT else shorten(value[:200] if isinstance(value, str) else value)
        super().__init__(self.reason)


def read_rows(config: Config) -> Iterator[Row]:
    """Yield one `Row` for every row of the input, in order, up to `config.limit`.

    Raises:
        DatasetError: at once where the data set cannot be opened; while reading where it is damaged, empty, or a table
            without the column that is needed.
    """
    return _rows(open_source(config.dataset), config)


def _rows(source: Source, config: Config) -> Iterator[Row]:
    prompt_key = config.prompt_key or (TEXT_COLUMN if source.format == "txt" else None)
    checked: object = ABSENT  # the file whose columns were last checked
    for raw in islice(source.rows, config.limit):
        if source.is_table and raw.file != checked and isinstance(raw.value, dict):
            _check_columns(raw.file or source.name, raw.value, config, prompt_key)
            checked = raw.file
        yield _row(raw, config, prompt_key, source.is_table)


def _check_columns(name: str, values: dict[str, object], config: Config, prompt_key: str | None) -> None:
    for key in (prompt_key or config.conversation_key, config.id_key):
        if key is not None and key not in values:
            fix = _column_hint(values) if key != config.id_key else "name one of them with --id-key, or leave it out"
            raise DatasetError(f"{name}: no column {key!r}; the data set has {_names(values)}; {fix}")


def _column_hint(values: dict[str, object]) -> str:
    for names, flag in ((PROMPT_NAMES, "--prompt-key"), (CONVERSATION_NAMES, "--conversation-key")):
        for column in values:
            if column.strip().lower() in names:
                return f"use {flag} {column}"
    return "name the column of prompts with --prompt-key, or that of conversations with --conversation-key"


def _row(raw: RawRow, config: Config, prompt_key: str | None, is_table: bool) -> Row:
    json: str | None = None
    try:
        if raw.rejection:
            return Row(raw.index, raw.line, None, rejection=raw.rejection, file=raw.file)
        if not isinstance(raw.value, dict):
            raise _BadRow("row", raw.value, "is not an object; write one JSON object for each row")
        json = json_text(raw.value)
        values = cast(dict[str, object], raw.value)
        row_id = _id(values.get(config.id_key), config.id_key) if config.id_key else None
        if _has_images(_cell(values.get(config.image_key), config.image_key, is_table), config.image_key):
            return Row(raw.index, raw.line, json, row_id, has_images=True, file=raw.file)
        settings = _settings(values.get(config.settings_key), config.settings_key, is_table)
        texts = _texts(values, config, prompt_key, is_table)
    except _BadRow as bad:
        rejection = Rejection(row=raw.index, line=raw.line, field=bad.field, value=bad.value, reason=bad.reason)
        return Row(raw.index, raw.line, json, rejection=rejection, file=raw.file)
    template = config.prompt_template or "{prompt}"
    prompts = tuple(Prompt(condition, template.replace("{prompt}", text), text) for condition, text in texts)
    return Row(raw.index, raw.line, json, row_id, prompts, settings, file=raw.file)


def _texts(values: dict[str, object], config: Config, prompt_key: str | None, is_table: bool) -> list[tuple[int, str]]:
    """Return the prompts of a row as (condition, text)."""
    key = prompt_key or config.conversation_key
    value = values.get(key)
    if key not in values:
        raise _BadRow(key, ABSENT, f"is missing; the row has {_names(values) or 'nothing'}; {_column_hint(values)}")
    if prompt_key:
        return [(0, _text(value, prompt_key))]
    conversation = _cell(value, key, is_table)
    if conversation is None or isinstance(conversation, str):
        return [(0, _text(conversation, key))]
    if not isinstance(conversation, list):
        raise _BadRow(key, value, 'is neither a list of messages nor a string; write [{"role": "user", ...}]')
    if not conversation:
        raise _BadRow(key, value, "has no message; write at least one with the role user")
    texts, roles = [], []
    for index, message in enumerate(conversation):
        role, content, field = _message(message, f"{key}[{index}]")
        roles.append(role)
        if role in config.roles or SHAREGPT_ROLES.get(role) in config.roles:
            texts.append((index, _text(content, field)))
    if not texts:
        wanted, found = " or ".join(config.roles), _names(dict.fromkeys(roles))
        raise _BadRow(key, ABSENT, f"has no message of the role {wanted}, only of {found}; add one, or set --roles")
    return texts


def _message(message: object, field: str) -> tuple[str, object, str]:
    """Return (role, content, the path of the content) of an OpenAI or ShareGPT message or a plain string."""
    if isinstance(message, str):
        return "user", message, field
    if not isinstance(message, dict):
        raise _BadRow(field, message, 'is not a message; write {"role": "user", "content": "a prompt"}')
    role_key = "from" if message.get("role") is None else "role"
    role = message.get(role_key)
    if role is None:
        role = "user"
    if not isinstance(role, str):
        raise _BadRow(f"{field}.{role_key}", role, "is not a string; write a role such as user")
    content_key = "value" if message.get("content") is None and message.get("value") is not None else "content"
    return role, message.get(content_key), f"{field}.{content_key}"


def _text(value: object, field: str) -> str:
    """Return the text of a string or of OpenAI content parts; refuse blank text, NUL and unpaired surrogates."""
    if value is None:
        raise _BadRow(field, ABSENT, "is missing; write the prompt")
    if isinstance(value, list):
        value = "\n".join(_part_texts(value, field))
    if not isinstance(value, str):
        raise _BadRow(field, value, "is not a string; write the prompt as text")
    if not value.strip():
        raise _BadRow(field, value, "is blank; write a prompt")
    return _clean(value, field)


def _part_texts(parts: list[object], field: str) -> Iterator[str]:
    """Yield the texts among OpenAI content parts; other kinds, such as pictures, are passed over."""
    for index, part in enumerate(parts):
        if isinstance(part, dict) and part.get("type") in (None, "text", "input_text"):
            text = part.get("text")
            if not isinstance(text, str):
                raise _BadRow(f"{field}[{index}].text", text, "is not a string; write the prompt as text")
            yield text
        elif isinstance(part, str):
            yield part
        elif not isinstance(part, dict):
            raise _BadRow(f"{field}[{index}]", part, 'is not a part; write {"type": "text", "text": "a prompt"}')


def _clean(text: str, field: str) -> str:
    if "\0" in text:
        raise _BadRow(field, text, "holds a NUL character; remove it")
    if not encodable(text):
        raise _BadRow(field, text, "holds half of a surrogate pair, which is no character; remove or complete it")
    return text


def _has_images(value: object, field: str) -> bool:
    if isinstance(value, list):
        if any(isinstance(item, str) and item.strip() for item in value):
            return True
        if all(item is None or isinstance(item, str) for item in value):
            return False
    elif value is None or isinstance(value, str):
        return bool(value and value.strip())
    raise _BadRow(field, value, "is neither a list of paths nor a path; correct it, or name another --image-key")


def _id(value: object, field: str) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | None):
        raise _BadRow(field, value, "is neither a string nor an integer; write one that names the row's files")
    if value is None or not str(value).strip():
        raise _BadRow(field, value, "is missing or blank; every row needs an id where --id-key is given")
    return _clean(str(value), field)


def _settings(value: object, field: str, is_table: bool) -> RowSettings:
    if is_table and isinstance(value, str):
        try:
            value = parse_json(value) if value.strip() else None
        except ValueError as error:
            raise _BadRow(field, value, f'is not JSON: {error}; write an object such as {{"seed": 7}}') from None
    if value is None:
        return NO_SETTINGS
    if not isinstance(value, dict):
        raise _BadRow(field, value, 'is not an object; write one such as {"seed": 7}')
    try:
        settings = RowSettings.model_validate(value)
    except ValidationError as error:
        known = RowSettings.model_fields
        problem = problems_of(error, known, f"a row may set {_names(known)}")[0]
        reason = problem.reason
        if not problem.field:  # its name cannot be encoded
            reason = f"unknown option; a row may set {_names(known)}"
        elif ";" not in reason:
            reason += "; correct it, or leave it out"
        raise _BadRow(f"{field}.{problem.field}".rstrip("."), problem.value, reason) from None
    if settings.negative_prompt:
        _clean(settings.negative_prompt, f"{field}.negative_prompt")
    return settings


def _cell(value: object, field: str, is_table: bool) -> object:
    """Return the list that a table's cell holds as JSON text; any other value is returned as it is."""
    if not is_table or not isinstance(value, str):
        return value
    text = value.strip()
    if not text.startswith(("[", "{")):
        return value
    try:
        parsed = parse_json(text)
    except ValueError as error:
        # "[surreal] a fox" is a prompt; "[{'role': ..." is a list as Python prints it.
        if text.startswith(("[{", "['", '["', '{"', "{'")):
            raise _BadRow(field, value, f"is not JSON: {error}; write lists with json.dumps, not str()") from None
        return value
    if isinstance(parsed, dict):
        raise _BadRow(field, value, "is an object; write a list: [...]")
    return parsed


def _names(names: Iterable[str]) -> str:
    text = _printable(", ".join(names))
    return text if len(text) <= 200 else text[:199] + "…"


def _printable(text: str) -> str:
    """Return a text from the data set in a form for messages: on one line, and encodable."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)
