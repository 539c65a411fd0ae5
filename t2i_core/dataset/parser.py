"""The parser: from the rows of a file to `Row` values with prompts, or with the reason why a row is rejected.

A row is used whole or not at all. What is wrong with the data set as a whole (no such file, no such column) is a
`DatasetError` instead.
"""

import logging
from collections.abc import Iterator, Sequence
from itertools import chain, islice
from typing import cast

from t2i_core.config import Config
from t2i_core.dataset.bad_row import ABSENT, BadRow, joined
from t2i_core.dataset.cells import has_images, row_id
from t2i_core.dataset.columns import Values, as_object, find, has_column, near_name
from t2i_core.dataset.conversation import conversation_texts, prompt_roles
from t2i_core.dataset.foreign_syntax import ForeignSyntax, may_carry
from t2i_core.dataset.hints import UNKNOWN, as_flag, flag_hint, header_hint, id_hint, row_hint
from t2i_core.dataset.prompt_column import line_text, prompt_text
from t2i_core.dataset.readers import TEXT_COLUMN, RawRow, Source, open_source
from t2i_core.dataset.row_settings import NO_SETTINGS, SettingsColumn
from t2i_core.dataset.rows import Prompt, Rejection, Row
from t2i_core.dataset.sources import Parts
from t2i_core.errors import DatasetError
from t2i_core.json_values import json_text

log = logging.getLogger(__name__)

FIRST_ROWS = 64  # looked at before the first is parsed, for what the columns hold
HINTS_KEPT = 256
NO_IMAGES: tuple[object, ...] = (None, "", [])  # what most rows have; `has_images` knows the rest


def read_rows(config: Config, found: Parts | None = None) -> Iterator[Row]:
    """Yield one `Row` for every row of the input, in order, up to `config.limit`.

    Args:
        config: the data set, and how its rows are read.
        found: what the data set consists of, if that is known. Parts that are `hashed` are read as they were then.

    Raises:
        DatasetError: at once where the data set cannot be opened; while reading where it is damaged, empty, or a table
            without the column that is needed; at the end where a part has changed since it was hashed.
    """
    source = open_source(config.dataset, found)
    return _of_one_content(source, _rows(source, config))


def _of_one_content(source: Source, rows: Iterator[Row]) -> Iterator[Row]:
    """Yield rows; refuse them at their end, or where they end in an error, if a part changed since it was hashed."""
    try:
        yield from rows
    except DatasetError:
        source.refuse_changed()
        raise
    source.refuse_changed()


def _rows(source: Source, config: Config) -> Iterator[Row]:
    raws = islice(source.rows, config.limit)
    first = list(islice(raws, FIRST_ROWS))
    parser = _Parser(source, config, first)
    syntax = ForeignSyntax()
    for raw in chain(first, raws):
        row = parser.row(raw)
        for prompt in row.prompts:
            if may_carry(prompt.source_text):
                syntax.look_at(row, prompt.source_text)
        yield row
    syntax.tell()


class _Parser:
    """Parses the rows of one data set, of which `first` are the first."""

    def __init__(self, source: Source, config: Config, first: list[RawRow]) -> None:
        self.source, self.config, self.first = source, config, first
        self.is_table, self.is_txt = source.is_table, source.format == "txt"
        # A text file has one column, whatever the flag says.
        self.prompt_key = TEXT_COLUMN if self.is_txt else config.prompt_key
        self.key = self.prompt_key or config.conversation_key
        self.image_key, self.id_key, self.template = config.image_key, config.id_key, config.prompt_template
        self.roles = prompt_roles(config.roles)
        rows = [cast(Values, raw.value) for raw in first if isinstance(raw.value, dict)]
        # Another column may have the default name of the settings: then the rows have none.
        is_other = config.settings_key in (config.prompt_key or config.conversation_key, config.image_key)
        self.settings = None if is_other else SettingsColumn(config.settings_key, rows, self.is_table)
        there = sum(find(row, self.key, self.is_table)[1] not in (ABSENT, None) for row in rows)
        self._rows_have_key = 2 * there > len(rows)
        self._checked: object = ABSENT  # the file whose columns were last checked
        self._other_file = False  # whether an earlier file has the columns
        self._named: set[str] = set()  # near names that the log has told
        self._hints: dict[object, str] = {}
        self._tell_near_images(rows)

    def row(self, raw: RawRow) -> Row:
        """Return the row that `raw` is.

        Raises:
            DatasetError: for a table without the column that is needed.
        """
        if raw.rejection:
            return Row(raw.index, raw.line, None, rejection=raw.rejection, file=raw.file)
        json: str | None = None
        try:
            if not isinstance(raw.value, dict):
                raise BadRow("row", raw.value, row_hint(raw.value))
            values = cast(dict[str, object], raw.value)
            if self.is_table and raw.file != self._checked:
                self._check_columns(raw, values)
            json = json_text(values)
            id = self._id(values, self.id_key) if self.id_key else None
            images = values.get(self.image_key)
            if images not in NO_IMAGES and has_images(images, self.image_key, self.is_table):
                return Row(raw.index, raw.line, json, id, has_images=True, file=raw.file)
            settings = self.settings.read(values) if self.settings else NO_SETTINGS
            prompts = self._prompts(values)
        except BadRow as bad:
            rejection = Rejection(row=raw.index, line=raw.line, field=bad.field, value=bad.value, reason=bad.reason)
            return Row(raw.index, raw.line, json, rejection=rejection, file=raw.file)
        return Row(raw.index, raw.line, json, id, prompts, settings, file=raw.file)

    def _prompts(self, values: dict[str, object]) -> tuple[Prompt, ...]:
        key = self.key
        value = values.get(key, ABSENT)
        if value is ABSENT:
            key, value = self._other_column(values, key)
            if value is ABSENT:
                raise BadRow(key, ABSENT, f"is missing; the row has {joined(values) or 'nothing'}; {self._fix(values)}")
        if self.is_txt:
            texts = [(0, line_text(value, key))]
        elif self.prompt_key:
            texts = [(0, prompt_text(value, key, self.is_table))]
        else:
            texts = self._conversation(value, key)
        template = self.template
        if template is None:
            return tuple([Prompt(condition, text, text) for condition, text in texts])
        return tuple([Prompt(condition, template.replace("{prompt}", text), text) for condition, text in texts])

    def _conversation(self, value: object, key: str) -> list[tuple[int, str]]:
        try:
            return conversation_texts(value, key, self.roles, self.is_table)
        except BadRow:
            inner = as_object(value, self.is_table)
            hint = flag_hint([{key: inner}], self.is_table) if inner else None
            if hint is None:
                raise
            raise BadRow(key, value, f"is neither a list of messages nor a string; {hint}") from None

    def _id(self, values: dict[str, object], key: str) -> str:
        value = values.get(key, ABSENT)
        if value is ABSENT:
            key, value = self._other_column(values, key)
        if value is ABSENT and (hint := id_hint(values)):
            raise BadRow(key, ABSENT, f"is missing or blank; {hint}")
        return row_id(None if value is ABSENT else value, key)

    def _other_column(self, values: Values, key: str) -> tuple[str, object]:
        """Return (name, value) of the column that is meant by `key`, where none has that very name."""
        name, value = find(values, key, self.is_table)
        if name != key and name not in self._named and value is not ABSENT:
            self._named.add(name)
            log.warning("columns   no %r; %r is read in its place", key, name)
        return name, value

    def _check_columns(self, raw: RawRow, values: Values) -> None:
        """Refuse a table without the needed columns. Where earlier files have them, another flag does not help."""
        self._checked = raw.file
        for key in [self.key] if self.id_key is None else [self.key, self.id_key]:
            if not has_column(values, key):
                if self._other_file:
                    fix = "rename the column that is meant, or leave this file out"
                elif key == self.id_key:
                    fix = id_hint(values) or "name one of them with --id-key, or leave it out"
                else:
                    fix = self._table_fix(raw, values)
                where = raw.file or self.source.name
                raise DatasetError(f"{where}: no column {key!r}; the data set has {joined(values)}; {fix}")
        self._other_file = True

    def _table_fix(self, raw: RawRow, values: Values) -> str:
        """Return what to do about a table without the column: what the first rows of its file show."""
        rows = [cast(Values, row.value) for row in self.first if row.file == raw.file and isinstance(row.value, dict)]
        hint = self._flag_hint(rows or [values])
        has_header = raw.line is None or hint.startswith("use --conversation-key")  # formats without lines have one
        return hint if has_header else header_hint(list(values)) or hint

    def _fix(self, values: Values) -> str:
        """Return what to do about a row without the column."""
        if self._rows_have_key:
            return "add it, as other rows have it"
        shape = tuple((name, type(value)) for name, value in values.items())
        if shape not in self._hints:
            if len(self._hints) == HINTS_KEPT:
                self._hints.clear()
            self._hints[shape] = self._flag_hint([values])
        return self._hints[shape]

    def _flag_hint(self, rows: Sequence[Values]) -> str:
        # The columns of images and settings hold no prompts; one that happens to have the settings' default name may.
        taken = (
            [self.image_key, self.settings.key] if self.settings and not self.settings.is_default else [self.image_key]
        )
        return flag_hint(rows, self.is_table, taken, self.prompt_key is not None) or UNKNOWN

    def _tell_near_images(self, rows: list[Values]) -> None:
        """Say that a column is not read as images whose name differs from the image column's only in case or blanks."""
        key = self.image_key
        for values in rows:
            name = None if key in values else near_name(values, key)
            if name is None:
                continue
            try:
                found = has_images(values[name], name, self.is_table)
            except BadRow:
                found = False
            if found:
                log.warning(
                    "columns   %r is not read as images of the rows; %s does", name, as_flag("--image-key", name)
                )
                return
