"""The command line's arguments: every field of the configuration is a flag, and the data set may go without one."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from operator import or_
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import yaml
from cyclopts import App, CycloptsError, Group, Parameter, UnusedCliTokensError

from flows.command import command_name
from flows.signature import group_of, parameters
from t2i_core import __version__
from t2i_core.config import Config
from t2i_core.config_errors import HINTS, OTHER_NAMES
from t2i_core.errors import ConfigError, shorten
from t2i_core.local_paths import is_file, local_path, similar_name

GROUPS = {title: Group(title, sort_key=i) for i, title in enumerate(dict.fromkeys(map(group_of, Config.model_fields)))}
COMMAND = Group("Command", sort_key=len(GROUPS))

# One line a paragraph: the help is wrapped to the width of the terminal.
HELP = """\
Turn a file of prompts into images and a manifest.

Without flags: the bundled example with the bundled demo model (64x64, any machine). Run the same command again after \
a crash, or after adding prompts: only what is missing is made.

Exit codes: 0 done, 3 done with more failures than --max-failures, 2 wrong use, 130 or 143 stopped, 1 a bug of this \
tool.

What diffusers and DataFlow-MM call an option is understood, too: --num-inference-steps, --num-images-per-prompt, \
--hf-model-name-or-path, --hf-cache-dir, --hf-local-dir, --first-entry-file-name.
"""


@dataclass(frozen=True, slots=True)
class Arguments:
    """What a command line asks for: a run with this configuration, or the table of models."""

    config: Config
    verbose: bool
    list_models: bool


def parse_arguments(arguments: list[str]) -> Arguments | None:
    """Return what the arguments ask for; None where `--help` or `--version` was asked for and has been printed.

    Raises:
        ConfigError: for arguments that are wrong, in one line for each.
    """
    usage = f"Usage: {command_name()} [FILE] [OPTIONS]"
    app = App(name=command_name(), usage=usage, help=HELP, help_format="plaintext", version=__version__)
    app.version_flags = ["--version"]
    app["--help"].group = app["--version"].group = COMMAND
    app.default(_command)
    try:
        command, bound, _ = app.parse_args(_in_our_words(arguments), exit_on_error=False, print_error=False)
    except UnusedCliTokensError as error:
        unused = " ".join(error.unused_tokens or ())
        raise ConfigError(
            [f"{unused}: to which option? Data files stand together: --dataset a.jsonl b.jsonl"]
        ) from None
    except CycloptsError as error:
        raise ConfigError([str(error)]) from None
    if command is not _command:
        command(*bound.args, **bound.kwargs)
        return None
    values = dict(bound.arguments)
    if len(values.get("dataset", ())) == 1:
        (values["dataset"],) = values["dataset"]  # one file goes by its name, in messages, too
    verbose, list_models = values.pop("verbose", False), values.pop("list_models", False)
    file = values.pop("config", None)
    # The command line overrides the file.
    from_file = _read_yaml(file) if file is not None else {}
    config = Config.from_values({**from_file, **values}, source=file if file and not values else "")
    return Arguments(config, verbose, list_models)


def _in_our_words(arguments: list[str]) -> list[str]:
    """Return the arguments with flags of other tools replaced by those of this one.

    Raises:
        ConfigError: for a flag of another tool that has none here, with what to do instead.
    """
    result = []
    for argument in arguments:
        flag, equals, value = argument.partition("=")
        name = flag.removeprefix("--").replace("-", "_") if flag.startswith("--") else ""
        if name in HINTS:
            raise ConfigError([f"{flag}: unknown option; {HINTS[name]}"])
        known = f"--{OTHER_NAMES[name].replace('_', '-')}" if name in OTHER_NAMES else flag
        result.append(known + equals + value)
    return result


def _command(**values: Any) -> None:
    """Stand for the flow: cyclopts reads the flags from its signature, and it is never called."""


def _flag(parameter: inspect.Parameter) -> inspect.Parameter:
    field = Config.model_fields[parameter.name]
    annotation, default = _bare(parameter.annotation), parameter.default
    if get_origin(annotation) is list and isinstance(default, str):
        default = [default]
    shown = Parameter(
        help=field.description,
        group=GROUPS[group_of(parameter.name)],
        consume_multiple=True,
        negative_iterable=(),
        show_default=_shown(default),
    )
    # The data set comes first, and may be given without its flag.
    kind = parameter.POSITIONAL_OR_KEYWORD if parameter.name == "dataset" else parameter.KEYWORD_ONLY
    return parameter.replace(kind=kind, default=default, annotation=Annotated[annotation, shown])


def _shown(default: Any) -> bool | Callable[[list[str]], str]:
    """Return how the help shows a default: a list as it is typed; nothing where the default is not to do something."""
    if isinstance(default, list) and default:
        return " ".join
    return not (default is None or default is False or default == [])


def _bare(annotation: Any) -> Any:
    """Return a type without its bounds: the configuration checks those, and says it in its own words."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _bare(arguments[0])
    if origin in (Union, UnionType):
        members = [_bare(argument) for argument in arguments]
        # A flag that takes several values is a list, though the configuration takes a single one, too.
        lists = [member for member in members if get_origin(member) is list]
        return lists[0] if lists and str in members else reduce(or_, members)
    if origin is dict:
        return str  # JSON text
    if origin is list:
        return list[_bare(arguments[0])]  # type: ignore[misc]
    return annotation


def _own_flag(name: str, annotation: Any, default: object, text: str) -> inspect.Parameter:
    shown = Parameter(help=text, group=COMMAND, negative="", show_default=False)
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[annotation, shown]
    )


_command.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
    [
        *(_flag(parameter) for parameter in parameters()),
        _own_flag("config", str | None, None, "YAML file with any of these options; a flag overrides the file."),
        _own_flag("list_models", bool, False, "Show the presets: repository, download, steps, size, licence."),
        _own_flag("verbose", bool, False, "Show Prefect's log."),
    ]
)


def _read_yaml(file: str) -> dict[str, Any]:
    """Return the options of a YAML file.

    Raises:
        ConfigError: for a file that cannot be read, or holds something else.
    """
    try:
        path = Path(local_path(file, "name a local file"))
    except ValueError as error:
        raise ConfigError([f"config: {error} (got {shorten(file)})"]) from None
    try:
        exists = is_file(path)
    except ValueError as error:
        raise ConfigError([f"config: {shorten(file)} {error}"]) from None
    if not exists:
        problem = "is a folder; name a file" if path.is_dir() else f"does not exist; check the path{similar_name(path)}"
        raise ConfigError([f"config: {file} {problem}"])
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    # ValueError: text that is not UTF-8; RecursionError: brackets in brackets in brackets
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise ConfigError([f"config: cannot read {file}: {' '.join(str(error).split())}"]) from None
    if values is None:
        return {}
    if not isinstance(values, dict) or not all(isinstance(name, str) for name in values):
        raise ConfigError([f"config: {file} is no mapping of options; write lines such as `steps: 20`"])
    return values
