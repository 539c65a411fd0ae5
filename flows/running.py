"""Running a flow from a command line: Prefect's settings and server, then the flow, then the exit code."""

import atexit
import importlib
import logging
import os
import signal
import sys
import warnings
from collections.abc import Callable, Mapping
from typing import Any

from flows.command import ExitCode
from flows.system_errors import as_users
from t2i_core.errors import UserError
from t2i_core.printable import printable


def run_flow(name: str, values: Mapping[str, Any], *, verbose: bool, before: Callable[[bool], None]) -> int:
    """Run the flow `name` (module:flow) with `values`; return the exit code.

    Prefect and the flow are imported here, so that --help and a wrong flag are answered at once. `before(own)` is
    called before the flow starts; `own`: a server is started for it.
    """
    try:
        return _leave(_run(name, values, verbose=verbose, before=before))
    except SystemExit as signalled:
        return _leave(int(signalled.code or 0))


def refuse(message: str) -> int:
    """Say what is wrong with the use; return the exit code for it."""
    print(printable(f"error: {message.strip()}"), file=sys.stderr)
    return ExitCode.WRONG_USE


def _run(name: str, values: Mapping[str, Any], *, verbose: bool, before: Callable[[bool], None]) -> int:
    # Prefect says so while it is imported, as the run does where it matters.
    warnings.filterwarnings("ignore", "Failed to create the Prefect home")
    try:
        from tasks.process import THIS_PROCESS
        from tasks.server_wait import WAIT
        from tasks.settings import apply_settings, show_lines_in_terminal

        THIS_PROCESS.started_for_run = True
        apply_settings()
        show_lines_in_terminal(verbose=verbose)
        WAIT.seconds = values.get("server_wait", WAIT.seconds)
        wait_for_server = _prepare_server(before)
        module, _, flow = name.partition(":")
        function = getattr(importlib.import_module(module), flow)
        wait_for_server()
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    except (UserError, OSError) as error:
        return refuse(str(as_users(error, values)))
    return _run_to_its_end(function, values)


def _run_to_its_end(flow: Any, values: Mapping[str, Any]) -> int:
    """Run a flow; return the exit code for its end, whether or not Prefect's server comes to know of that end."""
    from flows.outcomes import exit_code, noting
    from tasks.server_wait import WAIT, is_of_server, reason

    with noting(flow) as noted:
        try:
            state = flow(**values, return_state=True)
        except KeyboardInterrupt:
            WAIT.leave_now()
            if WAIT.why or noted.state is not None:
                _say_unknown("it was not waited for")
            if noted.state is None:
                return ExitCode.INTERRUPTED
            state = noted.state
        except Exception as error:
            if not noted.began:
                if is_of_server(error):
                    wait = (
                        f"; --server-wait {10 * WAIT.seconds:.0f} waits longer for it" if WAIT.was_waited_for() else ""
                    )
                    return refuse(
                        f"Prefect's server cannot run the flow ({reason(error)}); see what it says, or its log{wait}"
                    )
                raise
            _say_unknown(WAIT.why_unknown() or reason(error))
            if noted.interrupted is not None:
                return noted.interrupted
            state = noted.final_state()
    code = exit_code(state)
    if code == ExitCode.WRONG_USE:
        return refuse(state.message or "")
    if code == ExitCode.DAMAGED:
        print(printable(f"exit code {code}: {state.message}"), file=sys.stderr)
    if code == ExitCode.MANY_FAILURES:
        allowed = f"more failures than --max-failures {values.get('max_failures', 0):g} allows"
        print(printable(f"exit code {code}: {allowed}: {state.message}"), file=sys.stderr)
    if code == ExitCode.BUG:
        failed = printable(f"failed: {state.message}")
        print(f"{failed}\nThis is a bug of this tool; run with --verbose to see where.", file=sys.stderr)
    return code


def _say_unknown(why: str) -> None:
    print(f"prefect   does not know how this run ended: {why}", flush=True)


def _prepare_server(before: Callable[[bool], None]) -> Callable[[], None]:
    """Begin to start a server where none is named; return what waits until it answers.

    Raises:
        UserError: the server that is named cannot be used, or none can be started; in one line.
    """
    from tasks.server import OwnServer, check_home, end_orphans, needs_own_server, why_unusable

    if not needs_own_server():
        if why := why_unusable():
            raise UserError(why)
        before(False)
        return lambda: None
    check_home()
    print(
        "server    starting one for this run; to keep one for all: prefect server start, and "
        "prefect config set PREFECT_API_URL=http://127.0.0.1:4200/api",
        flush=True,
    )
    if ended := end_orphans():
        print(f"server    ended {ended} that killed runs had left behind", flush=True)
    # The server ends when Python ends; on SIGTERM Python would end at once.
    signal.signal(signal.SIGTERM, _exit)
    before(True)
    return OwnServer().wait_until_it_answers


def _exit(number: int, frame: object) -> None:
    """End Python in order on a signal."""
    raise SystemExit(128 + number)


def _leave(code: int) -> int:
    """Return the exit code; leave at once where Python would wait for what nobody waits for any more.

    That is the device in the midst of a step, for minutes with a slow model, a model that is half fetched, what Prefect
    still has to send to a server that does not answer, and after a stop a task that waits for its next try.
    """
    from tasks.process import THIS_PROCESS
    from tasks.server_wait import WAIT, everything_sent

    try:
        sent = everything_sent()
    except KeyboardInterrupt:
        sent = False
    if not sent or THIS_PROCESS.is_busy or THIS_PROCESS.stop.is_set():
        if WAIT.given_up:
            atexit.unregister(logging.shutdown)  # it would wait for the last log lines
        atexit._run_exitfuncs()  # Prefect's sends its last log lines; the server of the run ends
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code
