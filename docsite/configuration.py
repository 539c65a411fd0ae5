"""The page of every option of every command, from the classes of the options."""

import pkgutil
import types
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt, MaxLen, MinLen
from pydantic.fields import FieldInfo

from docsite.html import code, plain, table
from flows.arguments import OWN_FLAGS
from flows.cli import command_line
from flows.commands import COMMANDS
from flows.signature import group_of
from t2i_core.config import Config
from t2i_core.config_errors import HINTS, OTHER_NAMES, PATTERN_FIXES
from t2i_core.options.command import Options

INTRODUCTION = """\
# Every option

This page is made from the code that checks the options, whenever this site is built. [Options](options.md) explains
them in groups. An option is a flag (`--batch-size 8`), a parameter of the Prefect flow and of `prefect.yaml`, and a key
of a file for `--config` (`batch_size: 8`).
"""
EVERY_COMMAND = """\
## Flags of every command

These are no options of a run, and no keys of a file for `--config`.

"""
OTHER = """\
## What other tools call them

The flag in the first column is taken for that in the second.

"""
WORDS = {str: "text", int: "whole number", float: "number", Any: "value"}


def configuration_page() -> str:
    """Return the page, in Markdown."""
    commands: list[tuple[str, str, type[Options]]] = [("text2image", "Turn a file of prompts into images.", Config)]
    for name, command in COMMANDS.items():
        commands.append((f"text2image {name}", command.summary, pkgutil.resolve_name(command.options)))
    return "\n".join([INTRODUCTION, *(_command(*command) for command in commands), _of_every_command(), _other_names()])


def _command(name: str, summary: str, options: type[Options]) -> str:
    by_heading: dict[str, list[str]] = {}
    for field in options.model_fields:
        by_heading.setdefault(group_of(options, field), []).append(field)
    parts = [f"## {name}\n\n{summary}\n"]
    # The options that people look for first stand first in the bases, so last in pydantic's order.
    for heading, names in by_heading.items():
        rows = (_row(name, options.model_fields[name], options.positional) for name in names)
        parts.append(f"### {heading}\n\n{table(HEADER, rows)}")
    return "\n".join(parts)


HEADER = ("option", "value", "default", "what it does")


def _of_every_command() -> str:
    """Return the flags that are no options of a run."""
    rows = [(_flag(flag), _type(annotation, ()), text) for flag, annotation, _, text in OWN_FLAGS]
    rows += [(_flag(flag), "yes or no", f"{text} Of text2image alone.") for flag, text in command_line().flags.items()]
    header = ("flag", "value", "what it does")
    return EVERY_COMMAND + table(header, ((code(flag), value, plain(text)) for flag, value, text in rows))


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _row(name: str, field: FieldInfo, positional: Sequence[str]) -> tuple[str, ...]:
    flag = code(_flag(name)) + (", or without the flag" if name in positional else "")
    return flag, _values(name, field), _default(field), plain(field.description or "")


def _values(name: str, field: FieldInfo) -> str:
    shown = _type(field.annotation, field.metadata)
    if name not in PATTERN_FIXES:
        return shown
    form = PATTERN_FIXES[name].removeprefix("write ")
    return f"{shown}: {plain(form)}"


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "has to be given"
    if field.default_factory is not None:
        return "depends"
    value = field.default
    if value is None or value == []:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return code(" ".join(map(str, value)) if isinstance(value, list) else str(value))


def _type(annotation: Any, metadata: Iterable[Any]) -> str:
    """Return a type and its bounds in words, as Markdown."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        inner = [item for one in arguments[1:] for item in (one.metadata if isinstance(one, FieldInfo) else [one])]
        return _type(arguments[0], [*inner, *metadata])
    if origin is Literal:
        return ", ".join(code(str(value)) for value in arguments)
    if origin in (Union, types.UnionType):
        members = [member for member in arguments if member is not type(None)]
        return " or ".join(_type(member, metadata if len(members) == 1 else ()) for member in members)
    if annotation is bool:
        return "yes or no"
    if origin is list:
        several = "one or more of: " if any(isinstance(item, MinLen) for item in metadata) else "any number of: "
        return several + _type(arguments[0], ())
    if origin is dict or annotation is dict:
        return "JSON object"
    return WORDS[annotation] + _bounds(metadata)


def _bounds(metadata: Iterable[Any]) -> str:
    low = high = ""
    for item in metadata:
        if isinstance(item, Ge):
            low = f"from {item.ge}"
        elif isinstance(item, Gt):
            low = f"above {item.gt}"
        elif isinstance(item, Le):
            high = f"to {item.le}"
        elif isinstance(item, Lt):
            high = f"below {item.lt}"
        elif isinstance(item, MaxLen):
            high = f"of at most {item.max_length} characters"
    return "".join(f" {bound}" for bound in (low, high) if bound)


def _other_names() -> str:
    names = ((code(_flag(name)), code(_flag(ours))) for name, ours in OTHER_NAMES.items())
    hints = ((code(_flag(name)), plain(fix)) for name, fix in HINTS.items())
    return (
        OTHER
        + table(("there", "here"), names)
        + "\nAnd what this tool has in another form:\n\n"
        + table(("there", "here"), hints)
    )
