"""How Python processes of this project are started beside this one: with its packages, and nothing that shadows them.

They are started by name, so whatever runs in this process is not imported there; and a file `random.py` or a folder
`flows` where the user stands is not found in place of the real one.
"""

import json
import sys
from pathlib import Path

_START = """
import importlib, json, sys
sys.path[:] = json.loads(sys.argv.pop(1))
importlib.import_module(sys.argv.pop(1)).serve()
"""


def command_of(module: str, *arguments: str) -> list[str] | None:
    """Return the command of a process that calls `serve()` of a module; None where Python is part of another program.

    `arguments` are in `sys.argv` there, behind its first element.
    """
    if not sys.executable:
        return None
    paths = [str(Path(__file__).parents[1]), *sys.path]
    return [sys.executable, "-I", "-c", _START, json.dumps(paths), module, *arguments]
