"""The settings of a process, set in code so that they hold in every folder: Prefect's, logging, torch's threads."""

import functools
import logging
import os
import sys
from typing import Any

import prefect.context
from prefect import Flow
from prefect.exceptions import CancelledRun, FailedRun
from prefect.logging.handlers import APILogHandler, PrefectConsoleHandler
from prefect.settings import get_current_settings

from t2i_core.engine.waiting import limit_spinning
from t2i_core.errors import UserError
from t2i_core.options.server import SERVER_WAIT
from t2i_core.printable import printable
from tasks.server_wait import WAIT, bound_all_requests

DEFAULTS = {
    # On a fresh home or a slow disk the ephemeral server needs longer than Prefect's 20 s.
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "180",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    # Of the server that a run starts for itself.
    "PREFECT_SERVER_LOGGING_LEVEL": "WARNING",
    # Our packages also log outside of a flow run, where there is no run to show it.
    "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
}

# A variable in the environment of the processes that a run starts: where the run's own lines go to a terminal.
TERMINAL = "TEXT2IMAGE_TERMINAL"

# Whose log lines a flow run shows in Prefect's UI.
LOGGERS = ("flows", "tasks", "t2i_core")


class PrintableRecord(logging.LogRecord):
    """A line of a log, of this tool or a library, in which no text of others can give a terminal orders."""

    def getMessage(self) -> str:
        """Return the message."""
        return printable(super().getMessage())


class ConfiguredFlow(Flow[..., Any]):
    """A flow that applies this project's settings before Prefect looks for a server.

    A worker calls the flow's function instead, which applies them, too.
    """

    def __call__(self, *arguments: Any, **values: Any) -> Any:
        """Run the flow."""
        apply_settings()
        WAIT.begin(values.get("server_wait", SERVER_WAIT))
        return super().__call__(*arguments, **values)


@functools.cache
def apply_settings() -> None:
    """Set Prefect's settings, the logging, and how torch's threads wait; once a process."""
    limit_spinning()
    logging.setLogRecordFactory(PrintableRecord)
    _set_defaults()
    bound_all_requests()
    _quiet_prefect()
    _log_to_prefect()
    # Pillow reports every PNG chunk at debug level, the record of an image and all.
    logging.getLogger("PIL").setLevel(logging.INFO)


def _set_defaults() -> None:
    """Set what the user has not set: neither in the environment, a profile, nor a prefect.toml or pyproject.toml.

    The environment carries the settings to the server that Prefect starts as a subprocess.
    """
    chosen = get_current_settings().to_environment_variables(exclude_unset=True)
    for name, value in DEFAULTS.items():
        if name not in chosen:
            os.environ.setdefault(name, value)
    prefect.context.refresh_global_settings_context()


def _quiet_prefect() -> None:
    """Leave out of Prefect's log what the UI shows anyway."""
    # Prefect logs the end of every task: of each shard of a million images. The graph and the list of tasks show them.
    logging.getLogger("prefect.task_runs").setLevel(logging.WARNING)
    for name in ("prefect.flow_runs", "prefect.task_runs", "prefect.engine"):
        logging.getLogger(name).addFilter(_is_news)
    for console in logging.getLogger().handlers:
        if isinstance(console, PrefectConsoleHandler):
            # Where the worker was killed, nobody reads its runs' output any more; rich would end the run for that.
            console.console.on_broken_pipe = _go_on  # type: ignore[method-assign]


def _log_to_prefect() -> None:
    """Show the log lines of this project's packages in Prefect's UI."""
    handler = APILogHandler()
    for name in LOGGERS:
        logger = logging.getLogger(name)
        logger.setLevel(logging.INFO)
        logger.addHandler(handler)


def show_lines_in_terminal(*, verbose: bool) -> None:
    """Show our own log lines as they are, on standard output, in this process and those that it starts."""
    os.environ[TERMINAL] = "verbose" if verbose else "plain"
    show_own_lines()


def show_own_lines() -> None:
    """Show our own log lines as they are, on standard output, if the run shows them so; Prefect's only on request."""
    if TERMINAL not in os.environ:
        return
    if os.environ[TERMINAL] != "verbose":
        # The final state's message says it in one line; Prefect's log would put a traceback above it.
        # The second logger has handlers of its own, and does not ask its level.
        for handler in logging.getLogger().handlers + logging.getLogger("prefect._internal").handlers:
            handler.setLevel(logging.CRITICAL)
    plain = logging.StreamHandler(sys.stdout)
    for name in LOGGERS:
        logging.getLogger(name).addHandler(plain)
        logging.getLogger(name).propagate = False


def _is_news(record: logging.LogRecord) -> bool:
    """Return False for what the run's state says anyway, and for shards that were told to stop.

    The traceback of wrong use is taken off: its message says everything.
    """
    error = record.exc_info[1] if record.exc_info else None
    if isinstance(error, UserError):
        record.exc_info = None
    return not isinstance(error, FailedRun | CancelledRun) and "Finished in state Cancelled" not in record.getMessage()


def _go_on() -> None:
    """Do nothing about a broken pipe."""
