"""A process that generates for one flow: it takes calls from it over a connection, and answers each as it ends.

It ends with that connection, however the flow ended.
"""

import faulthandler
import os
import pickle
import signal
import sys
import threading
import time
from collections import deque
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

# In place of the number of a call: this process lives, and these denoising steps are done. Numbers of calls are larger.
ALIVE = 0
# Between two signs of life, and between two looks at whether steps are done.
ALIVE_SECONDS, STEPS_SECONDS = 10.0, 0.5
# Steps that are kept, where the flow does not take them.
STEPS_KEPT = 1000


class CallFailed(Exception):
    """What a call returned or raised cannot be sent to the flow, or would end a process there. The message says it."""


class _Flow:
    """The flow at the other end of the connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._lock = threading.Lock()
        self._steps: deque[tuple[int, int]] = deque(maxlen=STEPS_KEPT)

    def take_calls(self, tasks: Executor, others: Executor) -> None:
        """Make the calls of the flow until it ends: its tasks, and between them whatever else it asks."""
        with suppress(EOFError, OSError):
            while True:
                number, packed = pickle.loads(self._connection.recv_bytes())  # noqa: S301 - of the flow
                try:
                    function, arguments, named = pickle.loads(packed)  # noqa: S301 - of the flow
                except Exception as error:
                    self._send(number, (None, error))
                else:
                    pool = tasks if function is run_task else others
                    pool.submit(self._answer, number, function, arguments, named)

    def show_life(self) -> None:
        """Give signs of life; they stay away where a call of the driver hangs and keeps Python's lock."""
        last = float("-inf")
        while True:
            steps = [self._steps.popleft() for _ in range(len(self._steps))]
            if steps or time.monotonic() - last > ALIVE_SECONDS:
                last = time.monotonic()
                self._send(ALIVE, steps)
            time.sleep(STEPS_SECONDS)

    def note_step(self, step: int, steps: int) -> None:
        """Keep a denoising step, to be told: the device waits for no flow that was stopped and reads nothing."""
        self._steps.append((step, steps))

    def _answer(self, number: int, function: Callable[..., Any], arguments: Any, named: Any) -> None:
        result = error = None
        try:
            result = function(*arguments, **named)
        except Exception as raised:
            error = raised
        except BaseException as raised:  # a panic of a library in Rust, or its wish to end the process
            error = CallFailed(f"{type(raised).__name__}: {raised}")
        try:
            self._send(number, (result, error))
        except BaseException:  # memory is short: the flow is not to wait for this answer
            leave(1)

    def _send(self, number: int, content: Any) -> None:
        try:
            packed = cloudpickle.dumps(content)
        except Exception as error:
            packed = cloudpickle.dumps((None, CallFailed(f"what it returned or raised cannot be sent ({error})")))
        with self._lock, suppress(OSError):  # the flow has ended
            self._connection.send_bytes(pickle.dumps((number, packed)))


def run_task(task: Task[..., Any], run: UUID, parameters: dict[str, Any], context: dict[str, Any]) -> Any:
    """Run a task here as the task run `run`; return its final state. `context`: Prefect's, of the flow run."""
    # Prefect would search each prompt of a shard for results of other tasks.
    marked = {name: value if isinstance(value, str) else quote(value) for name, value in parameters.items()}
    return run_task_sync(task, run, parameters=marked, return_type="state", context=context)


def join(
    run: str, output: Path, device: str, packages: Sequence[str], server: dict[str, str], server_wait: float
) -> Introduction:
    """Get ready for shards of a run; return what the flow must know of this process, as `introduce` does.

    `server`: variables of the environment, by which Prefect's server is reached. `server_wait`: seconds, as configured.
    """
    os.environ |= server
    prefect.context.refresh_global_settings_context()
    WAIT.begin(server_wait, quiet=True)
    return introduce(run, output, "", device, packages)


def forget_server() -> None:
    """Wait no more for a server that has ended and will not come back."""
    WAIT.is_gone = lambda: True


def serve() -> None:
    """Make the calls of the flow that started this process, until it ends. `sys.argv`: the connection's number.

    Ctrl-C in a terminal and the signals of a scheduler reach this process, too: the flow alone decides what they mean.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    faulthandler.enable()  # where a library crashes, the standard error says in which line
    connection = int(sys.argv[1])
    os.set_inheritable(connection, False)  # a process that outlives this one would hold it open
    flow = _Flow(Connection(connection))
    set_up()
    THIS_PROCESS.on_step = flow.note_step
    threading.Thread(target=flow.show_life, name="life", daemon=True).start()
    flow.take_calls(ThreadPoolExecutor(THREADS), ThreadPoolExecutor(1))
    leave(0)
