"""The page of options: every option of every command, with type, bounds and default."""

import importlib

from docsite.configuration import configuration_page
from flows.commands import COMMANDS
from t2i_core.config import Config


def row(flag):
    page = configuration_page()
    return next(line for line in page.splitlines() if line.startswith(f"| <code>{flag}</code>"))


def test_every_option_of_every_command_is_there():
    page = configuration_page()
    for command in COMMANDS.values():
        module, _, name = command.options.partition(":")
        options = getattr(importlib.import_module(module), name)
        assert all(f"<code>--{field.replace('_', '-')}</code>" in page for field in options.model_fields)
    assert all(f"<code>--{field.replace('_', '-')}</code>" in page for field in Config.model_fields)


def test_a_row_has_type_bounds_and_default():
    assert "| whole number from 1 to 1024 or <code>auto</code> | <code>4</code> |" in row("--batch-size")
    assert "| number from 0 to 100 |  |" in row("--guidance-scale")
    assert "| yes or no | no |" in row("--tf32")
    assert "| <code>auto</code>, <code>always</code>, <code>never</code> | <code>auto</code> |" in row("--gallery")
    assert "| any number of: text |" in row("--lora")
    assert "| has to be given |" in row("--format")
    assert "write" not in row("--sizes")


def test_flags_that_are_no_options_are_there():
    assert "| text | YAML file with any of these options" in row("--config")
    assert "Show the presets" in row("--list-models")


def test_what_other_tools_call_an_option_is_there():
    assert "| <code>--num-inference-steps</code> | <code>--steps</code> |" in configuration_page()
