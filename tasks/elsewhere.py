"""A process that makes shards for a flow in another process: its log lines, its signals, and what it and the flow tell
each other by marks in the output."""

import logging
import os
import signal
import socket
import threading
import time
from pathlib import Path

from t2i_core.storage.run_marks import RunMarks
from t2i_core.storage.workspace import Workspace
from tasks.process import THIS_PROCESS
from tasks.settings import apply_settings, show_own_lines

log = logging.getLogger(__name__)

# Between two looks at the marks: within this time a stop is seen, and images are told.
LOOK_SECONDS = 0.5
# How long the device may work without a step or an image: to load a model from a slow disk takes minutes.
HANG_SECONDS = 1800.0
# The exit code of a process that ends itself because its device hangs.
HANGS = 75

_JOINING = threading.Lock()


def dask_setup(worker: object) -> None:
    """Prepare a process that Dask started for shards; Dask calls this by name.

    Ctrl-C in a terminal reaches all processes of a run: the flow alone decides what it means.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    apply_settings()
    show_own_lines()


def join_run(run: str, root: Path) -> None:
    """Connect this process with the flow of `run`, once; do nothing in the flow's own process. `root`: the output."""
    with _JOINING:
        if THIS_PROCESS.run != run:
            THIS_PROCESS.start_run(run)
            marks = RunMarks(Workspace(root).running, run)
            threading.Thread(target=_follow, args=(run, marks), name="marks", daemon=True).start()


def _follow(run: str, marks: RunMarks) -> None:
    """Tell of images and heed a stop, as long as this process makes shards of `run`."""
    name = f"{socket.gethostname()}-{os.getpid()}"
    told: dict[str, int] = {}
    while THIS_PROCESS.run == run:
        if marks.says_stop():
            THIS_PROCESS.stop.set()
        elif (images := dict(THIS_PROCESS.images)) != told:
            try:
                marks.note_images(name, images)
                told = images
            except OSError as error:  # images are made all the same
                log.debug("how many images are done cannot be told: %s", error)
        if THIS_PROCESS.silent_seconds() > HANG_SECONDS:
            log.error("worker    %s hangs for %.0f s in one step; it is ended, others go on", name, HANG_SECONDS)
            os._exit(HANGS)
        time.sleep(LOOK_SECONDS)
