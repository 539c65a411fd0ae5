"""Values of a row that are not prompts: text that stands for a value, image paths, and ids."""

import re

from t2i_core.dataset.bad_row import ABSENT, BadRow
from t2i_core.json_values import encodable, parse_json

# What pandas, SQL and spreadsheets write as text for a value that is not there, in lower case.
NO_VALUE = frozenset(("", "nan", "none", "null", "<na>", "nat"))
# A list or an object as JSON or Python writes it; "[surreal] a fox" and "{red|blue} fox" are prompts.
_WRITTEN_VALUE = re.compile(r"""\s*(\[\s*[{'"]|\{\s*['"])""")
# Space, controls but NUL, and what Unicode calls default-ignorable; the blank Braille pattern has no dots.
_VISIBLE = re.compile(
    r"[^\s\x01-\x1f\x7f-\x9f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e"
    r"\u2060-\u206f\u2800\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"
    r"\U000e0000-\U000e0fff]"
)


def is_visible(text: str) -> bool:
    """Return whether a text has a character that one can see; zero-width ones alone are as blank as spaces."""
    return _VISIBLE.search(text) is not None


def is_no_value(text: str) -> bool:
    """Return whether a text only says that there is no value: blank, "nan", "null", "None"."""
    return not text or (len(text) < 20 and text.strip().lower() in NO_VALUE)


def is_written_value(text: str) -> bool:
    """Return whether a text begins as a list or an object does in JSON or in Python's own notation."""
    return _WRITTEN_VALUE.match(text) is not None


def json_value(text: str) -> object:
    """Return the list or object that a text holds as JSON; ABSENT where it holds none."""
    if not text.lstrip().startswith(("[", "{")):
        return ABSENT
    try:
        return parse_json(text.strip())
    except ValueError:
        return ABSENT


def cell_list(value: object, field: str) -> object:
    """Return the list that a table's cell holds as JSON text; any other value is returned as it is.

    Raises:
        BadRow: for an object, and for a list as Python prints it.
    """
    if not isinstance(value, str) or not value.lstrip().startswith(("[", "{")):
        return value
    try:
        parsed = parse_json(value.strip())
    except ValueError as error:
        if is_written_value(value):
            raise BadRow(field, value, f"is not JSON: {error}; write lists with json.dumps, not str()") from None
        return value
    if isinstance(parsed, dict):
        raise BadRow(field, value, "is an object; write a list: [...]")
    return parsed


def clean(text: str, field: str) -> str:
    """Return a text that can be stored; refuse NUL and unpaired surrogates."""
    if "\0" in text:
        raise BadRow(field, text, "holds a NUL character; remove it")
    if not encodable(text):
        raise BadRow(field, text, "holds half of a surrogate pair, which is no character; remove or complete it")
    return text


def has_images(value: object, field: str, is_table: bool) -> bool:
    """Return whether the image column of a row names an image: a path or a list of paths that are not blank.

    Text that only says that there is none ("nan", "[]") names no image.
    """
    if isinstance(value, str):
        if is_table:
            value = None if is_no_value(value) else cell_list(value, field)
        elif isinstance(parsed := json_value(value), list):
            value = parsed
    if isinstance(value, list):
        if any(isinstance(item, str) and _is_path(item) for item in value):
            return True
        if all(item is None or isinstance(item, str) for item in value):
            return False
    elif value is None:
        return False
    elif isinstance(value, str):
        return _is_path(value)
    raise BadRow(field, value, "is neither a list of paths nor a path; correct it, or use --image-key new_images")


def _is_path(text: str) -> bool:
    return is_visible(text) and not is_no_value(text.strip("[]{}()'\" "))


def row_id(value: object, field: str) -> str:
    """Return the text of an id; a float without a fraction, as pandas makes of integers, is that integer."""
    if isinstance(value, str) and value.isalnum() and value.isascii():
        return value
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, str | int | None):
        raise BadRow(field, value, "is neither a string nor an integer; write one that names the row's files")
    if value is None or not is_visible(str(value)):
        raise BadRow(field, value, "is missing or blank; every row needs an id where --id-key is given")
    return clean(str(value), field)
