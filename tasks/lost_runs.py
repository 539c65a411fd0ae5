"""Task runs whose process died: nobody else tells Prefect what became of them, and they would stay `Running`."""

import contextvars
import logging
import threading
import time
from collections import deque
from uuid import UUID

from prefect import get_client
from prefect.exceptions import ObjectNotFound
from prefect.states import Crashed

log = logging.getLogger(__name__)

LOST = "its process died, or nobody waits for it any more; what it was to make is made by another one"
# Prefect stores the start of a task run a little later than it happens: until then there is nothing to change.
_RETRY_SECONDS = 2.0
_TRIES = 30
# How long the end of a run waits for what is still to be told.
_END_SECONDS = 5.0


class LostRuns:
    """Tells Prefect of task runs that crashed with their process, beside whatever else goes on."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[UUID, int]] = deque()  # task runs, and how often each was tried
        self._thread: threading.Thread | None = None
        self._ended = threading.Event()

    def note(self, task_run: UUID) -> None:
        """Tell Prefect of a task run."""
        self._waiting.append((task_run, 0))
        if self._thread is None:
            follow = contextvars.copy_context().run
            self._thread = threading.Thread(target=follow, args=(self._tell,), name="lost runs", daemon=True)
            self._thread.start()

    def end(self) -> None:
        """Wait for what is still to be told, but not for long."""
        if self._thread is not None:
            deadline = time.monotonic() + _END_SECONDS
            while self._waiting and time.monotonic() < deadline:
                time.sleep(0.1)
            self._ended.set()

    def _tell(self) -> None:
        while not self._ended.is_set():
            if not self._waiting:
                self._ended.wait(0.2)
                continue
            task_run, tries = self._waiting[0]
            try:
                with get_client(sync_client=True) as client:
                    client.set_task_run_state(task_run, Crashed(message=LOST), force=True)
            except ObjectNotFound:
                if tries < _TRIES:
                    self._waiting.append((task_run, tries + 1))
            except Exception as error:  # the server is away: the run matters more than what is shown of it
                log.debug("a lost task run is not shown as crashed: %s", error)
            self._waiting.popleft()
            if self._waiting and all(tried for _, tried in list(self._waiting)):
                self._ended.wait(_RETRY_SECONDS)
