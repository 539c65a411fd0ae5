"""A process that generates for one flow: it takes calls from it over a connection, and answers each as it ends.

It ends with that connection, however the flow ended.
"""

import os
import pickle
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any
from uuid import UUID

import cloudpickle
import prefect.context
from prefect import Task
from prefect.task_engine import run_task_sync
from prefect.utilities.annotations import quote

from tasks.elsewhere import Introduction, introduce, leave, set_up
from tasks.process import THIS_PROCESS, THREADS
from tasks.server_wait import WAIT

# In place of the number of a call: this process lives; a denoising step is done. Numbers of calls are larger.
ALIVE, STEP = 0, 1
# Between two signs of life.
ALIVE_SECONDS = 10.0


class AnswerUnreadable(Exception):
    """What a call returned or raised cannot be sent to the flow."""


class _Flow:
    """The flow at the other end of the connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._lock = threading.Lock()

    def take_calls(self, tasks: Executor, others: Executor) -> None:
        """Make the calls of the flow until it ends: its tasks, and between them whatever else it asks."""
        with suppress(EOFError, OSError):
            while True:
                number, packed = pickle.loads(self._connection.recv_bytes())  # noqa: S301 - of the flow
                try:
                    function, arguments, named = pickle.loads(packed)  # noqa: S301 - of the flow
                except Exception as error:
                    self._send(number, None, error)
                else:
                    pool = tasks if function is run_task else others
                    pool.submit(self._answer, number, function, arguments, named)

    def show_life(self) -> None:
        """Give signs of life; they stay away where a call of the driver hangs and keeps Python's lock."""
        while True:
            self._send(ALIVE)
            time.sleep(ALIVE_SECONDS)

    def note_step(self, step: int, steps: int) -> None:
        """Tell of a denoising step."""
        self._send(STEP, step, steps)

    def _answer(self, number: int, function: Callable[..., Any], arguments: Any, named: Any) -> None:
        result = error = None
        try:
            result = function(*arguments, **named)
        except Exception as raised:
            error = raised
        self._send(number, result, error)

    def _send(self, *message: Any) -> None:
        try:
            packed = cloudpickle.dumps(message)
        except Exception as error:
            packed = pickle.dumps((message[0], None, AnswerUnreadable(f"{message[1:]!r} ({error})")))
        with self._lock, suppress(OSError):  # the flow has ended
            self._connection.send_bytes(packed)


def run_task(task: Task[..., Any], run: UUID, parameters: dict[str, Any], context: dict[str, Any]) -> Any:
    """Run a task here as the task run `run`; return its final state. `context`: Prefect's, of the flow run."""
    # Prefect would search each prompt of a shard for results of other tasks.
    marked = {name: value if isinstance(value, str) else quote(value) for name, value in parameters.items()}
    return run_task_sync(task, run, parameters=marked, return_type="state", context=context)


def join(
    run: str, output: Path, api_url: str, server_wait: float, device: str, packages: Sequence[str]
) -> Introduction:
    """Get ready for shards of a run; return what the flow must know of this process, as `introduce` does.

    `api_url`: of Prefect's server, of which this process starts none. `server_wait`: seconds, as configured.
    """
    os.environ["PREFECT_API_URL"] = api_url
    prefect.context.refresh_global_settings_context()
    WAIT.begin(server_wait, quiet=True)
    return introduce(run, output, api_url, device, packages)


def forget_server() -> None:
    """Wait no more for a server that has ended and will not come back."""
    WAIT.is_gone = lambda: True


def serve() -> None:
    """Make the calls of the flow that started this process, until it ends. `sys.argv`: the connection's number.

    Ctrl-C in a terminal and the signals of a scheduler reach this process, too: the flow alone decides what they mean.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    flow = _Flow(Connection(int(sys.argv[1])))
    set_up()
    THIS_PROCESS.on_step = flow.note_step
    threading.Thread(target=flow.show_life, name="life", daemon=True).start()
    flow.take_calls(ThreadPoolExecutor(THREADS), ThreadPoolExecutor(1))
    leave(0)
