"""Running a flow from a command line: Prefect's settings and server, then the flow, then the exit code."""

import atexit
import importlib
import os
import signal
import sys
from collections.abc import Callable, Mapping
from typing import Any

from flows.command import ExitCode


def run_flow(name: str, values: Mapping[str, Any], *, verbose: bool, before: Callable[[bool], None]) -> int:
    """Run the flow `name` (module:flow) with `values`; return the exit code.

    Prefect and the flow are imported here, so that --help and a wrong flag are answered at once. `before(own)` is
    called before the flow starts; `own`: Prefect will start a server for it.
    """
    try:
        return _leave(_run(name, values, verbose=verbose, before=before))
    except SystemExit as signalled:
        return _leave(int(signalled.code or 0))


def refuse(message: str) -> int:
    """Say what is wrong with the use; return the exit code for it."""
    print(f"error: {message.strip()}", file=sys.stderr)
    return ExitCode.WRONG_USE


def _run(name: str, values: Mapping[str, Any], *, verbose: bool, before: Callable[[bool], None]) -> int:
    from flows.outcomes import exit_code

    try:
        module, _, flow = name.partition(":")
        function = getattr(importlib.import_module(module), flow)
        from tasks.process import THIS_PROCESS
        from tasks.settings import apply_settings, show_lines_in_terminal

        THIS_PROCESS.started_for_run = True
        apply_settings()
        show_lines_in_terminal(verbose=verbose)
        if problem := _prepare_server(before):
            return refuse(problem)
        state = function(**values, return_state=True)
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    code = exit_code(state)
    if code == ExitCode.WRONG_USE:
        return refuse(state.message or "")
    if code == ExitCode.MANY_FAILURES:
        allowed = f"more failures than --max-failures {values.get('max_failures', 0):g} allows"
        print(f"exit code {code}: {allowed}: {state.message}", file=sys.stderr)
    if code == ExitCode.BUG:
        print(f"failed: {state.message}\nThis is a bug of this tool; run with --verbose to see where.", file=sys.stderr)
    return code


def _prepare_server(before: Callable[[bool], None]) -> str:
    """Return why Prefect's server does not answer; empty if it does, or if all is set for a server of the run's own."""
    from tasks.server import claim_own_server, end_orphans, needs_own_server, why_silent

    own = needs_own_server()
    if not own and (silent := why_silent()):
        return silent
    if own:
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
    before(own)
    return ""


def _exit(number: int, frame: object) -> None:
    """End Python in order on a signal."""
    raise SystemExit(128 + number)


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
