"""A process that generates for one flow: it takes calls from it over a connection, and answers each as it ends.

It ends with that connection, however the flow ended.
"""

import pickle
import signal
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any
from uuid import UUID

import cloudpickle
from prefect import Task
from prefect.task_engine import run_task_sync
from prefect.utilities.annotations import quote

from tasks.elsewhere import leave, set_up
from tasks.process import THIS_PROCESS, THREADS

# In place of the number of a call: a denoising step is done.
STEP = 0


class AnswerUnreadable(Exception):
    """What a call returned or raised cannot be sent to the flow."""


class _Flow:
    """The flow at the other end of the connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._lock = threading.Lock()

    def take(self) -> tuple[int, bytes]:
        """Return the number of the next call, and the call itself, still packed.

        Raises:
            EOFError, OSError: the flow has ended.
        """
        number, packed = pickle.loads(self._connection.recv_bytes())  # noqa: S301 - of the flow that started this one
        return number, packed

    def answer(self, number: int, packed: bytes) -> None:
        """Make a call, and send what it returns or raises."""
        result = error = None
        try:
            function, arguments, named = pickle.loads(packed)  # noqa: S301 - as above
            result = function(*arguments, **named)
        except Exception as raised:
            error = raised
        self._send(number, result, error)

    def note_step(self, step: int, steps: int) -> None:
        """Tell of a denoising step."""
        self._send(STEP, step, steps)

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


def serve() -> None:
    """Make the calls of the flow that started this process, until it ends. `sys.argv`: the connection's number.

    Ctrl-C in a terminal and the signals of a scheduler reach this process, too: the flow alone decides what they mean.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    flow = _Flow(Connection(int(sys.argv[1])))
    set_up()
    THIS_PROCESS.on_step = flow.note_step
    calls = ThreadPoolExecutor(THREADS, thread_name_prefix="calls")
    with suppress(EOFError, OSError):
        while True:
            calls.submit(flow.answer, *flow.take())
    leave(0)
