"""The command line: every field of the configuration is a flag."""

import atexit
import inspect
import logging
import os
import signal
import sys
import threading
from functools import reduce
from operator import or_
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import yaml
from cyclopts import App, CycloptsError, Group, Parameter

from flows.command import ExitCode, command_name
from t2i_core import __version__
from t2i_core.config import Config, group_of, parameters
from t2i_core.errors import ConfigError
from t2i_core.local_paths import local_path

GROUPS = {title: Group(title, sort_key=i) for i, title in enumerate(dict.fromkeys(map(group_of, Config.model_fields)))}

# Also accepted: the name that the guide of DataFlow-MM gives the flag.
ALIASES = {"dataset": ["--dataset", "--first-entry-file-name"]}

HELP = """\
Turn a file of prompts into images and a manifest.

Without flags: the bundled example with the bundled demo model (64x64, any machine). Run the same command again after a
crash, or after adding prompts: only what is missing is made. Exit codes: 0 done, 3 done with more failures than
--max-failures, 2 wrong use, 130 or 143 stopped, 1 a bug of this tool.
"""


def main(arguments: list[str] | None = None) -> int:
    """Run the flow from the command line; return the exit code."""
    _let_users_import_their_own()
    app = App(name=command_name(), help=HELP, help_format="plaintext", version=__version__, version_flags=["--version"])
    app.default(_command)
    try:
        command, bound, _ = app.parse_args(arguments, exit_on_error=False, print_error=False)
        if command is not _command:
            command(*bound.args, **bound.kwargs)  # --help or --version
            return ExitCode.OK
        values = dict(bound.arguments)
        verbose, file = values.pop("verbose", False), values.pop("config", None)
        # What the command line says goes before what the file says.
        from_file = _read_yaml(file) if file else {}
        config = Config.from_values({**from_file, **values}, source=file if file and not values else "")
    except (CycloptsError, ConfigError) as error:
        return _refuse(str(error))
    try:
        return _leave(_run(config, verbose=verbose))
    except SystemExit as signalled:
        return _leave(int(signalled.code or 0))


def _leave(code: int) -> int:
    """Return the exit code; leave at once where the device is in the midst of a step that nobody waits for.

    Python would wait for the device's thread, for minutes with a slow model.
    """
    from tasks.process import THIS_PROCESS

    if THIS_PROCESS.device_is_busy:
        atexit._run_exitfuncs()  # Prefect's: it ends its own server, and sends its last log lines
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


def _run(config: Config, *, verbose: bool) -> int:
    """Run the flow; Prefect and the flow are imported here, so that --help and a wrong flag are answered at once."""
    from flows.outcomes import exit_code

    try:
        from flows.text2image import text2image

        _log_to_terminal(verbose)
        if problem := _prepare_server(config):
            return _refuse(problem)
        state = text2image(**config.model_dump(exclude_unset=True), return_state=True)
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    code = exit_code(state)
    if code == ExitCode.WRONG_USE:
        return _refuse(state.message or "")
    if code == ExitCode.BUG:
        print(f"failed: {state.message}\nThis is a bug of this tool; run with --verbose to see where.", file=sys.stderr)
    return code


def _let_users_import_their_own() -> None:
    """Let `--prepare` find modules in the current folder, behind everything that is installed.

    `python -m` puts that folder first anyway; the command `text2image` does not, so that it runs in a folder that has a
    `tasks.py` or a `flows` of its own.
    """
    import tasks  # noqa: F401 - an editable install is looked up last: once imported, it cannot be shadowed

    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)


def _log_to_terminal(verbose: bool) -> None:
    """Show our own log lines as they are, on standard output; Prefect's only on request."""
    from tasks.settings import LOGGERS, apply_settings

    apply_settings()
    if not verbose:
        # The final state's message says it in one line; Prefect's log would put a traceback above it.
        for handler in logging.getLogger().handlers:
            handler.setLevel(logging.CRITICAL)
        logging.getLogger("prefect._internal").setLevel(logging.CRITICAL)  # has a handler of its own
    plain = logging.StreamHandler(sys.stdout)
    for name in LOGGERS:
        logging.getLogger(name).addHandler(plain)
        logging.getLogger(name).propagate = False


def _prepare_server(config: Config) -> str:
    """Return why Prefect's server does not answer; empty if it does, or if all is set for a server of the run's own."""
    from t2i_core.storage.workspace import Workspace
    from tasks.generation import import_engine
    from tasks.server import claim_own_server, end_orphans, needs_own_server, why_silent

    if not needs_own_server():
        return why_silent()
    print(
        "server    starting one for this run; to keep one for all: prefect server start, and "
        "prefect config set PREFECT_API_URL=http://127.0.0.1:4200/api",
        flush=True,
    )
    if ended := end_orphans():
        print(f"server    ended {ended} that killed runs had left behind", flush=True)
    claim_own_server()
    # Prefect ends its server when Python ends; on SIGTERM it would let the signal end Python at once.
    signal.signal(signal.SIGTERM, _exit)
    if not config.dry_run and not Workspace(config.output).hidden.exists():
        # There is work for certain, and starting a server is mostly waiting: torch and diffusers come in meanwhile.
        threading.Thread(target=import_engine).start()
    return ""


def _exit(number: int, frame: object) -> None:
    """End Python in order on a signal."""
    raise SystemExit(128 + number)


def _command(**values: Any) -> None:
    """Stand for the flow: cyclopts reads the flags from its signature, and it is never called."""


def _flag(parameter: inspect.Parameter) -> inspect.Parameter:
    field = Config.model_fields[parameter.name]
    shown = Parameter(
        name=ALIASES.get(parameter.name),
        help=field.description,
        group=GROUPS[group_of(parameter.name)],
        consume_multiple=True,
        negative_iterable=(),
    )
    return parameter.replace(annotation=Annotated[_bare(parameter.annotation), shown])


def _bare(annotation: Any) -> Any:
    """Return a type without its bounds: the configuration checks those, and says it in its own words."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _bare(arguments[0])
    if origin in (Union, UnionType):
        return reduce(or_, map(_bare, arguments))
    if origin is list:
        return list[_bare(arguments[0])]  # type: ignore[misc]
    return annotation


_command.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
    [
        *(_flag(parameter) for parameter in parameters()),
        inspect.Parameter(
            "config",
            inspect.Parameter.KEYWORD_ONLY,
            default=None,
            annotation=Annotated[
                str | None, Parameter(help="YAML file with any of these options; flags go before it.")
            ],
        ),
        inspect.Parameter(
            "verbose",
            inspect.Parameter.KEYWORD_ONLY,
            default=False,
            annotation=Annotated[bool, Parameter(help="Show Prefect's log.", negative="")],
        ),
    ]
)


def _read_yaml(file: str) -> dict[str, Any]:
    """Return the options of a YAML file.

    Raises:
        ConfigError: for a file that cannot be read, or holds something else.
    """
    try:
        text = Path(local_path(file, "name a local file")).read_text(encoding="utf-8")
        values = yaml.safe_load(text)
    except (OSError, ValueError, yaml.YAMLError) as error:  # ValueError: a path that is none, or text that is not UTF-8
        raise ConfigError([f"config: cannot read {file}: {' '.join(str(error).split())}"]) from None
    if values is None:
        return {}
    if not isinstance(values, dict) or not all(isinstance(name, str) for name in values):
        raise ConfigError([f"config: {file} is no mapping of options; write lines such as `steps: 20`"])
    return values


def _refuse(message: str) -> int:
    """Say what is wrong with the use; return the exit code for it."""
    print(f"error: {message.strip()}", file=sys.stderr)
    return ExitCode.WRONG_USE
