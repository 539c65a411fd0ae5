"""The arguments of a command line: every option is a flag, and some may go without one."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import reduce
from operator import or_
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Generic, TypeVar, Union, get_args, get_origin

import yaml
from cyclopts import App, CycloptsError, Group, Parameter, UnusedCliTokensError

from flows.signature import group_of, parameters
from t2i_core import __version__
from t2i_core.config_errors import OTHER_NAMES
from t2i_core.errors import ConfigError, shorten
from t2i_core.local_paths import is_file, local_path, similar_name
from t2i_core.options.command import Options

OptionsT = TypeVar("OptionsT", bound=Options)

# Whatever the command.
OWN_FLAGS = (
    ("config", str | None, None, "YAML file with any of these options; a flag overrides the file."),
    ("verbose", bool, False, "Show Prefect's log."),
)


@dataclass(frozen=True, slots=True)
class Arguments(Generic[OptionsT]):
    """What a command line asks for: its options, whether Prefect's log is shown, and the flags that are set."""

    options: OptionsT
    verbose: bool
    flags: frozenset[str]


@dataclass(frozen=True, slots=True)
class CommandLine(Generic[OptionsT]):
    """A command: its name, its options, and what `--help` says of it.

    `help` has a line for each paragraph: it is wrapped to the width of the terminal. `flags` are flags that are no
    options, with their texts: they ask for something else than a run. `hints` say what to do instead of other tools'
    flags.
    """

    name: str
    usage: str
    options: type[OptionsT]
    help: str
    flags: Mapping[str, str] = field(default_factory=dict)
    hints: Mapping[str, str] = field(default_factory=dict)

    def parse(self, arguments: list[str]) -> Arguments[OptionsT] | None:
        """Return what the arguments ask for; None where `--help` or `--version` was asked for and has been printed.

        Raises:
            ConfigError: for arguments that are wrong, in one line for each.
        """
        app = App(
            name=self.name,
            usage=f"Usage: {self.name} {self.usage}",
            help=self.help,
            help_format="plaintext",
            version=__version__,
        )
        titles = list(dict.fromkeys(group_of(self.options, name) for name in self.options.model_fields))
        groups = {title: Group(title, sort_key=i) for i, title in enumerate(titles)}
        command_group = Group("Command", sort_key=len(groups))
        app.version_flags = ["--version"]
        app["--help"].group = app["--version"].group = command_group
        function = self._function(groups, command_group)
        app.default(function)
        try:
            command, bound, _ = app.parse_args(self._in_our_words(arguments), exit_on_error=False, print_error=False)
        except UnusedCliTokensError as error:
            unused = " ".join(error.unused_tokens or ())
            several = " Data files stand together: --dataset a.jsonl b.jsonl" * ("dataset" in self.options.model_fields)
            raise ConfigError([f"{unused}: to which option?{several}"]) from None
        except CycloptsError as error:
            raise ConfigError([str(error)]) from None
        if command is not function:
            command(*bound.args, **bound.kwargs)
            return None
        return self._asked(dict(bound.arguments))

    def _in_our_words(self, arguments: list[str]) -> list[str]:
        """Return the arguments with flags of other tools replaced by those of this one.

        Raises:
            ConfigError: for a flag of another tool that has none here, with what to do instead.
        """
        result = []
        for argument in arguments:
            flag, equals, value = argument.partition("=")
            name = flag.removeprefix("--").replace("-", "_") if flag.startswith("--") else ""
            if name in self.hints:
                raise ConfigError([f"{flag}: unknown option; {self.hints[name]}"])
            ours = OTHER_NAMES.get(name)
            known = f"--{ours.replace('_', '-')}" if ours and ours in self.options.model_fields else flag
            result.append(known + equals + value)
        return result

    def _asked(self, values: dict[str, Any]) -> Arguments[OptionsT]:
        if len(values.get("dataset", ())) == 1:
            (values["dataset"],) = values["dataset"]  # one file goes by its name, in messages, too
        verbose, file = values.pop("verbose", False), values.pop("config", None)
        flags = frozenset(name for name in self.flags if values.pop(name, False))
        # The command line overrides the file.
        from_file = _read_yaml(file) if file is not None else {}
        options = self.options.from_values({**from_file, **values}, source=file if file and not values else "")
        return Arguments(options, verbose, flags)

    def _function(self, groups: Mapping[str, Group], command_group: Group) -> Callable[..., Any]:
        """Return a function with the flags as its signature, from which cyclopts reads them; it is never called."""

        def command(**values: Any) -> None: ...

        flags = [self._flag(parameter, groups) for parameter in parameters(self.options)]
        own = [*OWN_FLAGS, *((name, bool, False, text) for name, text in self.flags.items())]
        # Python wants parameters without their name first.
        flags.sort(key=lambda parameter: parameter.kind)
        command.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
            [*flags, *(_own_flag(*flag, group=command_group) for flag in own)]
        )
        return command

    def _flag(self, parameter: inspect.Parameter, groups: Mapping[str, Group]) -> inspect.Parameter:
        field = self.options.model_fields[parameter.name]
        annotation, default = _bare(parameter.annotation), parameter.default
        if default is parameter.empty:
            # The options say in their own words that one is missing; a --config file may have it.
            annotation, default = annotation | None, None
        if get_origin(annotation) is list and isinstance(default, str):
            default = [default]
        shown = Parameter(
            help=field.description,
            group=groups[group_of(self.options, parameter.name)],
            consume_multiple=True,
            negative_iterable=(),
            show_default=_shown(default),
        )
        positional = parameter.name in self.options.positional
        kind = parameter.POSITIONAL_OR_KEYWORD if positional else parameter.KEYWORD_ONLY
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


def _own_flag(name: str, annotation: Any, default: object, text: str, *, group: Group) -> inspect.Parameter:
    shown = Parameter(help=text, group=group, negative="", show_default=False)
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[annotation, shown]
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
