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
        if value is None or value is ABSENT or value == "" or (isinstance(value, str) and is_no_value(value)):
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
        field = self.key
        other = f"; {OTHER_KEY}" if self.is_default else ""
        if self.is_table and isinstance(value, str):
            try:
                value = parse_json(value)
            except ValueError as error:
                reason = f'is not JSON: {error}; write an object such as {{"seed": 7}}'
                raise BadRow(field, value, reason + other) from None
            if value is None:
                return NO_SETTINGS
        if not isinstance(value, dict):
            raise BadRow(field, value, f'is not an object; write one such as {{"seed": 7}}{other}')
        try:
            if any(type(item) is float for item in value.values()):
                value = {name: _whole(name, item) for name, item in value.items()}
            settings = RowSettings.model_validate(value)
        except ValidationError as error:
            known = RowSettings.model_fields
            problem = problems_of(error, known, f"a row may set {joined(known)}")[0]
            reason = problem.reason
            if not problem.field:  # its name cannot be encoded
                reason = f"unknown option; a row may set {joined(known)}"
            elif ";" not in reason:
                reason += "; correct it, or leave it out"
            if problem.field not in known:
                reason += other
            raise BadRow(f"{field}.{problem.field}".rstrip("."), problem.value, reason) from None
        if settings.negative_prompt:
            clean(settings.negative_prompt, f"{field}.negative_prompt")
        return settings


def _is_text(value: object) -> bool:
    """Return whether a value is text that is not meant as an object, or a list of texts."""
    if isinstance(value, str):
        return not value.lstrip().startswith("{")
    return isinstance(value, list) and bool(value) and all(isinstance(item, str) for item in value)


def _whole(name: str, value: object) -> object:
    """Return an integer for a float without a fraction, as pandas makes of a column of integers with gaps."""
    whole = name != "guidance_scale" and isinstance(value, float) and value.is_integer()
    return int(value) if whole else value  # type: ignore[call-overload]
