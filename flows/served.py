"""A process beside this one that makes calls: `tasks/serving.py` is what runs there."""

import multiprocessing
import os
import pickle
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from itertools import count
from typing import Any, ParamSpec, TypeVar

import cloudpickle

from t2i_core.other_process import command_of
from tasks.elsewhere import HANGS, LOST
from tasks.process import HANG_SECONDS, THIS_PROCESS
from tasks.serving import ALIVE, CallFailed

P = ParamSpec("P")
T = TypeVar("T")

# What runs in such a process. Another module may take its place that prepares the process first, and calls its `serve`.
MODULE = "tasks.serving"
# How long a process that was told to end may take, before it is killed.
END_SECONDS = 5.0


class ProcessDied(Exception):
    """The process of a call has ended before it answered. The message says how."""


class Served:
    """A process that makes calls, several at a time. It ends with this process, whatever ends that."""

    def __init__(self) -> None:
        ours, theirs = multiprocessing.Pipe()
        command = command_of(MODULE, str(theirs.fileno()))
        assert command is not None, "asked before"
        # In a session of its own it gets no Ctrl-C, which this process gets.
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()], start_new_session=True
        )
        theirs.close()
        self._connection = ours
        self._calls: dict[int, Future[Any]] = {}
        self._numbers = count(ALIVE + 1)
        self._lock = threading.Lock()
        self._died: ProcessDied | None = None
        # A process that is stopped takes nothing: then a thread waits for it, and not the flow.
        self._sending = ThreadPoolExecutor(1, thread_name_prefix="sending")
        self.started = self._heard = time.monotonic()
        self._reading = threading.Thread(target=self._read, name="served", daemon=True)
        try:
            self._reading.start()
            threading.Thread(target=self._await_end, name="end of served", daemon=True).start()
        except RuntimeError:  # no more threads can be started
            self._process.kill()
            raise

    @staticmethod
    def is_possible() -> bool:
        """Return whether this machine can start one: not where Python is part of another program, nor on Windows."""
        return command_of(MODULE) is not None and os.name == "posix"

    @property
    def title(self) -> str:
        """What messages call it."""
        return f"process {self._process.pid}"

    @property
    def died(self) -> ProcessDied | None:
        """How it ended; None as long as it lives."""
        return self._died

    def silent_seconds(self) -> float:
        """Return for how long the process gave no sign of life."""
        return time.monotonic() - self._heard

    def call(self, function: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> "Future[T]":
        """Return the future of what a function returns or raises there; `ProcessDied` if the process ends before."""
        future: Future[T] = Future()
        future.set_running_or_notify_cancel()  # it cannot be cancelled
        number = next(self._numbers)
        packed = pickle.dumps((number, cloudpickle.dumps((function, arguments, named))))
        with self._lock:
            if self._died is not None:
                future.set_exception(self._died)
                return future
            self._calls[number] = future
            self._sending.submit(self._send, packed)
        return future

    def end(self) -> None:
        """End the process, whatever it does."""
        self._hang_up()
        try:
            self._process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill("did not end when it was told to")

    def kill(self, why: str) -> None:
        """Kill the process, and count it as ended, though it stays where its driver hangs, too."""
        self._process.kill()
        self._note_end(why)
        self._sending.shutdown(wait=False, cancel_futures=True)
        self._hang_up()  # or Python would wait at its end for what is being sent

    def _send(self, packed: bytes) -> None:
        with suppress(OSError):  # it has ended; whoever reads its answers notes that
            self._connection.send_bytes(packed)

    def _read(self) -> None:
        """Take answers as long as the process sends any."""
        with suppress(EOFError, OSError):
            while True:
                number, packed = pickle.loads(self._connection.recv_bytes())  # noqa: S301 - of our own process
                self._heard = time.monotonic()
                if number == ALIVE:
                    for step in pickle.loads(packed):  # noqa: S301 - as above
                        THIS_PROCESS.on_step(*step)
                    continue
                with self._lock:
                    future = self._calls.pop(number, None)
                if future is not None:
                    _answer(future, packed)

    def _await_end(self) -> None:
        """Note how the process ended, once it has, and what it sent before is read."""
        code = self._process.wait()
        self._reading.join(END_SECONDS)
        self._note_end(_why(code))
        self._hang_up()
        self._reading.join()
        self._sending.shutdown(cancel_futures=True)
        with self._lock:
            self._connection.close()

    def _note_end(self, why: str) -> None:
        with self._lock:
            self._died = self._died or ProcessDied(why)
            left, self._calls = self._calls, {}
        for future in left.values():
            future.set_exception(self._died)

    def _hang_up(self) -> None:
        with self._lock, suppress(OSError), socket.socket(fileno=os.dup(self._connection.fileno())) as both_ends:
            both_ends.shutdown(socket.SHUT_RDWR)  # to close it is not enough, while a thread reads from it


def _answer(future: "Future[Any]", packed: bytes) -> None:
    try:
        result, error = pickle.loads(packed)  # noqa: S301 - of our own process
    except Exception as unreadable:  # an error that cannot be made again from what it was pickled to
        result, error = None, CallFailed(f"its answer cannot be read ({type(unreadable).__name__}: {unreadable})")
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)


def _why(code: int) -> str:
    """Return how a process ended, by its exit code."""
    if code == -signal.SIGKILL:
        return "was killed (SIGKILL; perhaps memory was short)"
    if code < 0:
        with suppress(ValueError):
            return f"was ended by {signal.Signals(-code).name}"
    return {
        HANGS: f"ended itself: its device made no step for {HANG_SECONDS:.0f} s",
        LOST: "ended itself: its device is lost to it",
    }.get(code, f"ended with exit code {code}")
