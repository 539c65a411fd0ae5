"""The command line: mistakes are answered at once, then the flow runs; the exit code says how it ended."""

import atexit
import os
import signal
import sys
import threading
from pathlib import Path

from flows.arguments import parse_arguments
from flows.command import ExitCode
from flows.preflight import check_at_once
from t2i_core.config import Config
from t2i_core.errors import UserError
from t2i_core.models.listing import preset_table


def main(arguments: list[str] | None = None) -> int:
    """Run the flow from the command line; return the exit code."""
    try:
        _let_users_import_their_own()
        asked = parse_arguments(sys.argv[1:] if arguments is None else arguments)
        if asked is None:
            return ExitCode.OK
        if asked.list_models:
            print(preset_table(asked.config.cache_dir))
            return ExitCode.OK
        check_at_once(asked.config)
    except UserError as error:
        return _refuse(str(error))
    try:
        return _leave(_run(asked.config, verbose=asked.verbose))
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
        from tasks.process import THIS_PROCESS
        from tasks.settings import apply_settings, show_lines_in_terminal

        THIS_PROCESS.started_for_run = True
        apply_settings()
        show_lines_in_terminal(verbose=verbose)
        if problem := _prepare_server(config):
            return _refuse(problem)
        state = text2image(**config.model_dump(exclude_unset=True), return_state=True)
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    code = exit_code(state)
    if code == ExitCode.WRONG_USE:
        return _refuse(state.message or "")
    if code == ExitCode.MANY_FAILURES:
        allowed = f"more failures than --max-failures {config.max_failures:g} allows"
        print(f"exit code {code}: {allowed}: {state.message}", file=sys.stderr)
    if code == ExitCode.BUG:
        print(f"failed: {state.message}\nThis is a bug of this tool; run with --verbose to see where.", file=sys.stderr)
    return code


def _let_users_import_their_own() -> None:
    """Let `--prepare` find modules in the current folder, behind everything that is installed.

    `python -m` puts that folder first anyway; the command `text2image` does not, so that it runs in a folder that has a
    `tasks.py` or a `flows` of its own.
    """
    import tasks  # noqa: F401 - an editable install is looked up last: once imported, it cannot be shadowed

    try:
        here = str(Path.cwd())
    except FileNotFoundError:
        raise UserError("the current folder was deleted; change to another one") from None
    if here not in sys.path:
        sys.path.append(here)


def _prepare_server(config: Config) -> str:
    """Return why Prefect's server does not answer; empty if it does, or if all is set for a server of the run's own."""
    from t2i_core.storage.workspace import Workspace
    from tasks.generation import import_engine
    from tasks.server import claim_own_server, end_orphans, give_own_database, needs_own_server, why_silent

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
    if config.part:
        give_own_database()
    # Prefect ends its server when Python ends; on SIGTERM it would let the signal end Python at once.
    signal.signal(signal.SIGTERM, _exit)
    if not (config.dry_run or config.status) and not Workspace(config.output).hidden.exists():
        # There is work for certain, and starting a server is mostly waiting: torch and diffusers come in meanwhile.
        threading.Thread(target=import_engine).start()
    return ""


def _exit(number: int, frame: object) -> None:
    """End Python in order on a signal."""
    raise SystemExit(128 + number)


def _refuse(message: str) -> int:
    """Say what is wrong with the use; return the exit code for it."""
    print(f"error: {message.strip()}", file=sys.stderr)
    return ExitCode.WRONG_USE
