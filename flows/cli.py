"""The command line: every field of the configuration is a flag."""

import inspect
import logging
import signal
import sys
from pathlib import Path
from typing import Annotated, Any

import yaml
from cyclopts import App, CycloptsError, Group, Parameter

from t2i_core.config import Config, group_of, parameters
from t2i_core.errors import ConfigError

# Exit codes: README, "When something goes wrong".
OK, BUG, WRONG_USE, TOO_MANY_FAILURES = 0, 1, 2, 3
INTERRUPTED = 128 + signal.SIGINT

# Also accepted, from the guide of DataFlow-MM.
ALIASES = {"dataset": "--first-entry-file-name"}


def main(arguments: list[str] | None = None) -> int:
    """Run the flow from the command line; returns the exit code."""
    tokens = [_with_dashes(token) for token in (sys.argv[1:] if arguments is None else arguments)]
    app = App(name="python -m flows.text2image", help=__doc_head(), help_format="plaintext", version_flags=[])
    app.default(_command())
    try:
        command, bound, _ = app.parse_args(tokens, exit_on_error=False, print_error=False)
    except CycloptsError as error:
        return _refuse(str(error).strip())
    if command is not _run:
        command(*bound.args, **bound.kwargs)  # --help
        return OK
    values = dict(bound.arguments)
    verbose = values.pop("verbose", False)
    file = values.pop("config", None)
    try:
        # What the command line says goes before what the file says.
        config = Config.from_values({**_read_yaml(file), **values}, source=str(file) if file and not values else "")
    except ConfigError as error:
        return _refuse(str(error))
    return _run(config, verbose)


def _run(config: Config, verbose: bool) -> int:
    from flows.text2image import REFUSED, TOO_MANY_FAILURES as TOO_MANY, text2image

    if not verbose:
        # The state's message says it in one line; Prefect would add a traceback to it.
        logging.getLogger("prefect").setLevel(logging.CRITICAL)
    try:
        state = text2image(**config.model_dump(exclude_unset=True), return_state=True)
    except KeyboardInterrupt:
        return INTERRUPTED
    if state.name == REFUSED:
        return _refuse(state.message or "")
    if state.name == TOO_MANY:
        return TOO_MANY_FAILURES
    if not state.is_completed():
        print(f"failed: {state.message}\nThis is a bug of this tool; --verbose shows where.", file=sys.stderr)
        return BUG
    return OK
