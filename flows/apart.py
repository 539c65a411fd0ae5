"""A process that answers a question which only torch can, and ends with it.

A run whose images other processes make imports neither torch nor diffusers itself: they would take 350 MB for as long
as it runs, and a question about the free memory of a card takes some of that memory, too.
"""

import logging
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from t2i_core.errors import UserError
from t2i_core.other_process import command_of

P = ParamSpec("P")
T = TypeVar("T")

log = logging.getLogger(__name__)


def ask_apart(function: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
    """Return what a function returns in a process of its own; in this one, where that process cannot answer.

    It cannot be started, or is killed, for memory may be short; or an error other than a `UserError` is raised there,
    whose traceback is worth having here. The function must be found by its name.

    Raises:
        Exception: what the function raises.
    """
    answer = _answer((function, arguments, named))
    if answer is None:
        log.debug("no process answers %s; this one does", function.__name__)
        return function(*arguments, **named)
    result: T
    result, error = answer
    if error is not None:
        raise error
    return result


def _answer(question: object) -> tuple[Any, UserError | None] | None:
    if (command := command_of(__name__)) is None:
        return None
    try:
        # In a session of its own it gets no Ctrl-C, which this process gets.
        done = subprocess.run(
            command, input=pickle.dumps(question), stdout=subprocess.PIPE, start_new_session=True, check=False
        )
        answer: tuple[Any, UserError | None] = pickle.loads(done.stdout)  # noqa: S301 - of this project's own code
    except MemoryError:
        raise
    except Exception as error:  # whatever pickle makes of half an answer
        log.debug("%s", error)
        return None
    return answer


def serve() -> None:
    """Answer the question on the standard input. What libraries print goes to the standard error."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    function, arguments, named = pickle.load(sys.stdin.buffer)  # noqa: S301 - of the process that asks
    result = error = None
    try:
        result = function(*arguments, **named)
    except UserError as raised:  # raised by the process that asks
        error = raised
    with answers:
        pickle.dump((result, error), answers)
