"""Readers of JSON: one value a line, or one array; an array with a bad value in it is cut into its values."""

import re

from t2i_core.dataset.data_file import DataFile
from t2i_core.dataset.reading import NOT_UTF8, Notes, Reading, Readings, short
from t2i_core.dataset.text import raw_lines, text_lines
from t2i_core.errors import DatasetError, shorten
from t2i_core.json_values import encodable, parse_json

LIST_KEY = "data"  # of an object that holds the rows beside other things
MESSAGE_KEYS = ("role", "from", "content", "value")
LINES_TRIED = 100

# What tells where a value ends: brackets and commas, and strings, in which they mean nothing. A string ends on its
# line, so that a quotation mark too few costs no other row.
_TOKEN = re.compile(r'"(?:[^"\\\n]|\\[^\n])*+"|[\[\]{},]')
_CLOSING = {"[": "]", "{": "}"}
_BRACKET = re.compile(r"[\[\]{}]")
# The start of an array, alone or under the first key of an object.
_ARRAY = re.compile(r'\s*(\{\s*"[^"\\\n]*"\s*:\s*)?(?=\[)')


def read_jsonl(file: DataFile, notes: Notes) -> Readings:
    """Yield a row for each line that is not blank."""
    for line, text, problem in text_lines(file, notes):
        try:
            value = None if problem else parse_json(text)
        except ValueError as error:
            value, problem = None, f"is not JSON: {short(error)}; write one JSON object a line"
            if text.startswith("["):
                problem += ", or let the file's name end in .json if it is one array"
        yield line, value, problem, text


def read_json(file: DataFile, notes: Notes) -> Readings:
    """Yield the rows of an array; of an object that holds one, alone or as "data"; or of JSON lines.

    Raises:
        DatasetError: for text that is none of them, or is damaged so that its values cannot be told apart.
    """
    text = b"".join(raw_lines(file, notes)).decode(errors="surrogateescape")
    if not text.strip():
        return
    try:
        value, problem = parse_json(text), None if encodable(text) else NOT_UTF8
    except ValueError as error:
        value, problem = None, f"is not JSON: {short(error)}"
    if problem is None:
        for row in _rows_in(file, value):
            yield None, row, None, ""
    elif _is_lines(text):
        yield from read_jsonl(file, notes)
    else:
        yield from _rows_one_by_one(file, text, problem)


def _rows_in(file: DataFile, value: object) -> list[object]:
    """Return the rows that a JSON value holds: the items of a list, or one object."""
    if isinstance(value, dict):
        if _is_table_of_pandas(value):
            fix = 'write it with orient="records"'
            raise DatasetError(f"{file.name}: holds columns, as to_json of pandas writes them by default; {fix}")
        only = next(iter(value.values())) if len(value) == 1 else None
        if isinstance(value.get(LIST_KEY), list):
            value = value[LIST_KEY]
        elif isinstance(only, list) and _are_rows(only):
            value = only
        else:
            value = [value]  # JSON lines, of which there is one
    if not isinstance(value, list):
        raise DatasetError(f"{file.name}: holds {shorten(value)}; a .json data set is an array of objects")
    return value


def _is_table_of_pandas(value: dict[str, object]) -> bool:
    """Return whether an object holds a table by columns: of each a value by row number, or {"columns", "data"}."""
    if value.keys() >= {"columns", "index", "data"}:
        return True
    columns = [column for column in value.values() if isinstance(column, dict)]
    numbers = columns[0].keys() if columns else ()
    by_number = all(column.keys() == numbers for column in columns) and all(map(str.isdecimal, numbers))
    return bool(numbers) and len(columns) == len(value) and by_number


def _are_rows(items: list[object]) -> bool:
    """Return whether a list holds rows, and not the messages of a conversation or the paths of images."""
    return all(isinstance(item, dict) and not any(key in item for key in MESSAGE_KEYS) for item in items)


def _is_lines(text: str) -> bool:
    """Return whether a text is JSON lines: its first line is a whole object, or most of the first ones are."""
    lines = [line for line in text[: 1 << 20].split("\n") if line.strip()][:LINES_TRIED]
    whole = [_is_object(line) for line in lines]
    return not text.lstrip().startswith("[") and (whole[0] or sum(whole) > len(whole) / 2)


def _is_object(line: str) -> bool:
    try:
        return isinstance(parse_json(line), dict)
    except ValueError:
        return False


def _rows_one_by_one(file: DataFile, text: str, problem: str) -> Readings:
    """Yield the rows of an array that as a whole is not JSON, so that a bad value costs its own row.

    Raises:
        DatasetError: where the values cannot be told apart for certain; `problem` says what is wrong.
    """
    fix = "correct it; a .json data set is an array of objects, or has one object a line"
    damaged = DatasetError(f"{file.name}: {problem}; {fix}")
    readings: list[Reading] = []
    line, counted = 1, 0
    for start, end in _values(text, damaged):
        item = text[start:end].strip()
        begin = text.index(item, start)
        line, counted = line + text.count("\n", counted, begin), begin
        value, wrong = None, None if encodable(item) else NOT_UTF8
        try:
            value = parse_json(item)
        except ValueError as error:
            wrong = f"is not JSON: {short(error)}; correct it (line {line} of the file)"
            if _may_be_several(item):
                raise damaged from None
        readings.append((None, value, wrong, item))
    yield from readings


def _values(text: str, damaged: DatasetError) -> list[tuple[int, int]]:
    """Return where each value of the array begins and ends; raise `damaged` where that is not clear."""
    array = _ARRAY.match(text)
    if array is None:
        raise damaged
    values: list[tuple[int, int]] = []
    open_brackets: list[str] = []
    start = array.end() + 1
    for token in _TOKEN.finditer(text, array.end()):
        kind = token[0][0]
        if kind in _CLOSING:
            open_brackets.append(_CLOSING[kind])
        elif kind == "," and len(open_brackets) == 1:
            values.append((start, token.start()))
            start = token.end()
        elif kind in "]}":
            if open_brackets.pop() != kind:
                raise damaged
            if not open_brackets:
                break
    after = text[token.end() :].strip()
    if open_brackets or after != ("}" if array[1] else ""):
        raise damaged
    if text[start : token.start()].strip():  # otherwise the array is empty, or a comma is its end
        values.append((start, token.start()))
    return values


def _may_be_several(item: str) -> bool:
    """Return whether a bad value may be several: a comma may be missing, or pass for text between two stray marks.

    Then the brackets, counted everywhere, are not closed, or before its end.
    """
    depth = 0
    for token in _BRACKET.finditer(item):
        depth += 1 if token[0] in _CLOSING else -1
        if depth <= 0 and token.end() < len(item):
            return True
    return depth != 0
