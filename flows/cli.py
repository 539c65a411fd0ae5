"""The command line: every field of the configuration is a flag."""

import inspect
import logging
import signal
import sys
import threading
from functools import reduce
from importlib import import_module
from operator import or_
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import yaml
from cyclopts import App, CycloptsError, Group, Parameter

from t2i_core.config import Config, group_of, parameters
from t2i_core.errors import ConfigError
from t2i_core.store import Store

OK, BUG, WRONG_USE, MANY_FAILURES, INTERRUPTED = 0, 1, 2, 3, 128 + signal.SIGINT

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
    """Run the flow from the command line; returns the exit code."""
    tokens = [_with_dashes(token) for token in (sys.argv[1:] if arguments is None else arguments)]
    app = App(name="python -m flows.text2image", help=HELP, help_format="plaintext", version_flags=[])
    app.default(_command)
    try:
        command, bound, _ = app.parse_args(tokens, exit_on_error=False, print_error=False)
        if command is not _command:
            command(*bound.args, **bound.kwargs)  # --help
            return OK
        values = dict(bound.arguments)
        verbose, file = values.pop("verbose", False), values.pop("config", None)
        # What the command line says goes before what the file says.
        from_file = _read_yaml(file) if file else {}
        config = Config.from_values({**from_file, **values}, source=str(file) if file and not values else "")
    except CycloptsError as error:
        return _refuse(str(error))
    except ConfigError as error:
        return _refuse(str(error))
    return _run(config, verbose=verbose)


def _run(config: Config, *, verbose: bool) -> int:
    try:
        from flows.text2image import REFUSED, TOO_MANY_FAILURES, text2image

        _log_to_terminal(verbose)
        if problem := _prepare_server(config):
            return _refuse(problem)
        state = text2image(**config.model_dump(exclude_unset=True), return_state=True)
    except KeyboardInterrupt:
        return INTERRUPTED
    if state.is_cancelled():
        return INTERRUPTED
    if state.name == REFUSED:
        return _refuse(state.message or "")
    if state.name == TOO_MANY_FAILURES:
        return MANY_FAILURES
    if not state.is_completed():
        print(f"failed: {state.message}\nThis is a bug of this tool; run with --verbose to see where.", file=sys.stderr)
        return BUG
    return OK


def _log_to_terminal(verbose: bool) -> None:
    """Our own lines as they are, on standard output; Prefect's only on request."""
    from tasks.prefect_settings import LOGGERS

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
    """What keeps Prefect's server from answering; or nothing, and where no server is named all is set for our own."""
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
    if not config.dry_run and not Store(config.output).hidden.exists():
        # There is work for certain, and starting a server is mostly waiting: torch and diffusers come in meanwhile.
        threading.Thread(target=import_module, args=("t2i_core.engine.load",)).start()
    return ""


def _exit(number: int, frame: object) -> None:
    raise SystemExit(128 + number)


def _command(**values: Any) -> None:
    """Never called: what cyclopts reads the flags from."""


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
    """The type without its bounds: the configuration checks those, and says it in its own words."""
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
                Path | None, Parameter(help="YAML file with any of these options; flags go before it.")
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


def _read_yaml(file: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError([f"config: cannot read {file}: {' '.join(str(error).split())}"]) from None
    if values is None:
        return {}
    if not isinstance(values, dict) or not all(isinstance(name, str) for name in values):
        raise ConfigError([f"config: {file} is no mapping of options; write lines such as `steps: 20`"])
    return values


def _with_dashes(token: str) -> str:
    """`--batch_size=4` -> `--batch-size=4`: the names of the configuration serve as flags as they are."""
    name, equals, value = token.partition("=")
    return name.replace("_", "-") + equals + value if name.startswith("--") else token


def _refuse(message: str) -> int:
    print(f"error: {message.strip()}", file=sys.stderr)
    return WRONG_USE
