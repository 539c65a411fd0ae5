"""The settings that a row has of its own: validated like the configuration."""

import logging
from collections.abc import Sequence

from pydantic import ValidationError

from t2i_core.config import Config, RowSettings
from t2i_core.config_errors import problems_of
from t2i_core.dataset.bad_row import ABSENT, BadRow, joined
from t2i_core.dataset.cells import clean, is_no_value
from t2i_core.dataset.columns import Values, find
from t2i_core.json_values import parse_json

log = logging.getLogger(__name__)

NO_SETTINGS = RowSettings()
DEFAULT_KEY: str = Config.model_fields["settings_key"].default
OTHER_KEY = "where the column holds no settings, use --settings-key row_settings or any other name"


class SettingsColumn:
    """The column with the settings of rows.

    Nobody asked for a column that happens to have the default name: where it holds text and no object, as distilabel's
    `generation` does, it is left out, and the log says so once. A column that the user named must hold settings.

    Args:
        key: the name of the column, or a path to it.
        first: the first rows of the data set; an object among them shows that the column holds settings.
    """

    def __init__(self, key: str, first: Sequence[Values], is_table: bool) -> None:
        self.key, self.is_table = key, is_table
        self.is_default = key == DEFAULT_KEY
        self._left_out = False
        if not any(key in values for values in first):
            self._use_near_name(key, first)
        self._is_path = "." in self.key
        self._has_objects = any(self._is_object(self._value(values)) for values in first)

    def read(self, values: Values) -> RowSettings:
        """Return the settings of a row; those of the run where it has none.

        Raises:
            BadRow: for settings that cannot be used, and for a column of settings that holds something else.
        """
        value = self._value(values) if self._is_path else values.get(self.key)
        if value is None or value is ABSENT or (isinstance(value, str) and is_no_value(value)):
            return NO_SETTINGS
        if self.is_default and not self._has_objects:
            if _is_text(value):
                self._leave_out()
                return NO_SETTINGS
            self._has_objects = self._is_object(value)
        return self._validated(value)

    def _value(self, values: Values) -> object:
        return find(values, self.key, self.is_table)[1]

    def _use_near_name(self, key: str, first: Sequence[Values]) -> None:
        """Take the column whose name differs only in case or blanks, where it holds settings."""
        for values in first:
            name, value = find(values, key, self.is_table)
            if name != key and self._is_object(value):
                log.warning("columns   no %r; %r is read in its place", key, name)
                self.key = name
                return

    def _is_object(self, value: object) -> bool:
        if self.is_table and isinstance(value, str):
            return value.lstrip().startswith("{")
        return isinstance(value, dict)

    def _leave_out(self) -> None:
        if not self._left_out:
            log.warning(
                "settings  column %r holds text, not settings, and is left out; "
                "--settings-key names the column of settings",
                self.key,
            )
        self._left_out = True

    def _validated(self, value: object) -> RowSettings:
        if self.is_table and isinstance(value, str):
            try:
                value = parse_json(value)
            except ValueError as error:
                raise self._bad(value, f'is not JSON: {error}; write an object such as {{"seed": 7}}') from None
            if value is None:
                return NO_SETTINGS
        if not isinstance(value, dict):
            raise self._bad(value, 'is not an object; write one such as {"seed": 7}')
        try:
            settings = RowSettings.model_validate(value)
        except ValidationError:
            settings = self._with_whole_numbers(value)
        if settings.negative_prompt:
            clean(settings.negative_prompt, f"{self.key}.negative_prompt")
        return settings

    def _with_whole_numbers(self, value: dict[str, object]) -> RowSettings:
        """Return the settings with integers for floats without a fraction: pandas makes floats of integers with gaps.

        Raises:
            BadRow: for the first field that is wrong all the same.
        """
        whole = {
            name: int(item) if isinstance(item, float) and item.is_integer() else item for name, item in value.items()
        }
        try:
            return RowSettings.model_validate(whole)
        except ValidationError as error:
            known = RowSettings.model_fields
            problem = problems_of(error, known, f"a row may set {joined(known)}")[0]
        if not problem.field:  # its name cannot be encoded
            raise self._bad(problem.value, f"unknown option; a row may set {joined(known)}")
        if problem.field not in known:
            raise self._bad(problem.value, problem.reason, f".{problem.field}")
        reason = problem.reason + ("" if ";" in problem.reason else "; correct it, or leave it out")
        raise BadRow(f"{self.key}.{problem.field}", problem.value, reason)

    def _bad(self, value: object, reason: str, field: str = "") -> BadRow:
        """Return the error for a value that may be no settings at all."""
        return BadRow(self.key + field, value, reason + (f"; {OTHER_KEY}" if self.is_default else ""))


def _is_text(value: object) -> bool:
    """Return whether a value is text that is not meant as an object, or a list of texts."""
    if isinstance(value, str):
        return not value.lstrip().startswith("{")
    return isinstance(value, list) and bool(value) and all(isinstance(item, str) for item in value)
