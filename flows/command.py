"""The command as a user and a shell know it: its name, and its exit codes."""

import signal
import sys
from enum import IntEnum
from pathlib import Path


class ExitCode(IntEnum):
    """What the command tells the shell. After SIGTERM it is 143."""

    OK = 0
    BUG = 1
    WRONG_USE = 2
    MANY_FAILURES = 3
    DAMAGED = 4
    INTERRUPTED = 128 + signal.SIGINT


def command_name(command: str = "") -> str:
    """Return how a command is called here: `text2image export`, or `python -m flows.export`; for help and hints.

    Without `command`: `text2image`, or `python -m flows.text2image`.
    """
    if Path(sys.argv[0]).name == "text2image":
        return f"text2image {command}".strip()
    return f"python -m flows.{command or 'text2image'}"
