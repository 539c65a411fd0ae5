"""Runs command lines as an ordinary user, up to the point where a server would be started.

`python -m tests.flows.ordinary_user` reads a JSON list of lists of arguments from standard input, and writes what came
of each. Root may do everything, so a child that root has started gives its rights up.
"""

import json
import os
import signal
import sys
import tempfile
import time
import traceback

from flows import cli

NOBODY = 65534
SECONDS = 20  # until a command line that hangs is ended by SIGALRM


def become_ordinary():
    if os.geteuid() == 0:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)


def answer(arguments):
    """Run one command line in a child: its exit code, what it printed, its seconds, and what it imported."""
    with tempfile.TemporaryFile() as printed:
        started = time.perf_counter()
        child = os.fork()
        if child == 0:
            signal.alarm(SECONDS)
            for stream in (sys.stdout, sys.stderr):
                os.dup2(printed.fileno(), stream.fileno())
            become_ordinary()
            code = 99
            try:
                code = cli.main(arguments)
            except BaseException:
                traceback.print_exc()
            print("IMPORTED", *sorted({"torch", "prefect", "diffusers"} & sys.modules.keys()))
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
        _, status = os.waitpid(child, 0)
        seconds = time.perf_counter() - started
        printed.seek(0)
        text, _, imported = printed.read().decode().rpartition("IMPORTED")
    return {
        "code": os.waitstatus_to_exitcode(status),
        "text": text,
        "seconds": seconds,
        "imported": imported.split(),
    }


if __name__ == "__main__":
    cli.run_flow = lambda flow, values, **how: print("accepted", file=sys.stderr) or 0
    cli.main(["--dataset=example", "--model=demo"])  # what is imported late may not be readable for an ordinary user
    json.dump([answer(arguments) for arguments in json.load(sys.stdin)], sys.stdout)
