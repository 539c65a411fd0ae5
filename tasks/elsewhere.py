"""A process that makes shards for a flow in another process: its log lines, its signals, and what it and the flow tell
each other by marks in the output."""

import functools
import hashlib
import logging
import os
import platform
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from tqdm import tqdm

from t2i_core import __version__
from t2i_core.generation.interface import LoadConfig
from t2i_core.models.local_files import ModelSource, fetch_and_verify
from t2i_core.storage.run_marks import RunMarks, Told
from t2i_core.storage.workspace import Workspace
from tasks.process import HANG_SECONDS, THIS_PROCESS, import_engine
from tasks.server import why_unreachable
from tasks.server_wait import everything_sent
from tasks.settings import apply_settings, show_own_lines

log = logging.getLogger(__name__)

# Between two looks at the marks: within this time a stop is seen, and images are told.
LOOK_SECONDS = 0.5
# How often steps are told: an image may take hours, and each note is a file.
STEPS_SECONDS = 60.0
# How long the flow may give no sign of life before its shards are stopped: it was killed, or cannot reach the output.
FLOW_SECONDS = 180.0
# How long a process looks for the output: a network file system may show a new folder half a minute later.
SEE_SECONDS = 35.0
# The exit codes of a process that ends itself because its device hangs, or is lost to it.
HANGS, LOST = 75, 76
# How long the end of a process waits for log lines on their way to Prefect's server.
SENT_SECONDS = 2.0


class _Run:
    """A flow run for which this process makes shards."""

    def __init__(self, run: str, root: Path) -> None:
        """`root`: the output."""
        self.marks = RunMarks(Workspace(root).running, run)
        self.stop = threading.Event()
        self._sign, self._seen = self.marks.last_sign(), time.monotonic()
        self._thread = threading.Thread(target=self._follow, name="marks", daemon=True)
        self._thread.start()

    @property
    def is_followed(self) -> bool:
        """Whether the marks are still looked at: not once the run stopped, and its marks were gone."""
        return self._thread.is_alive()

    def _follow(self) -> None:
        """Tell of images and heed a stop, as long as the run lives."""
        told: dict[str, Told] = {}
        steps, counted = 0, float("-inf")
        while not (self.stop.is_set() and self.marks.last_sign() is None and not THIS_PROCESS.silent_seconds()):
            try:
                self._heed()
            except OSError as error:  # the next look may reach the output again
                log.debug("whether the run stops is not known: %s", error)
            if time.monotonic() - counted > STEPS_SECONDS:
                steps, counted = THIS_PROCESS.steps, time.monotonic()
            news = {shard: Told(images, steps) for shard, images in dict(THIS_PROCESS.images).items()}
            if news != told:
                try:
                    self.marks.note(process_name(), news)
                    told = news
                except OSError as error:  # images are made all the same
                    log.debug("how far the shards are cannot be told: %s", error)
            if THIS_PROCESS.hangs():
                log.error("worker    %s hangs for %.0f s in a step; it is ended, others go on", _title(), HANG_SECONDS)
                leave(HANGS)
            time.sleep(LOOK_SECONDS)

    def _heed(self) -> None:
        """Stop the shards of the run when the flow says so or is gone; go on where it was only out of reach.

        Times are compared by this machine's clock alone.
        """
        sign, now = self.marks.last_sign(), time.monotonic()
        if sign is not None and sign != self._sign:
            self._sign, self._seen = sign, now
        if self.marks.says_stop() or now - self._seen > FLOW_SECONDS:
            self.stop.set()
        else:
            self.stop.clear()


# Runs by name: processes of an existing scheduler may serve several at a time.
_RUNS: dict[str, _Run] = {}
_JOINING = threading.Lock()


def dask_setup(worker: object) -> None:
    """Prepare a process that Dask started for shards; Dask calls this by name.

    Ctrl-C in a terminal reaches all processes of a run: the flow alone decides what it means.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    set_up()


@dataclass(frozen=True, slots=True)
class Introduction:
    """What a process tells of itself before it gets its first shard.

    card: those that CUDA_VISIBLE_DEVICES names. card_id: the card's own number; empty for a CPU.
    device: its name in records. versions: of this tool, Python and the packages that decide the pixels.
    problem: why the process cannot take part; empty if it can.
    """

    host: str
    process: int
    card: str
    card_id: str
    device: str
    versions: dict[str, str]
    problem: str

    @property
    def title(self) -> str:
        """What messages call the process."""
        card = f", card {self.card}" if self.card else ""
        return f"{self.host}{card}, process {self.process}"

    def versions_of(self, packages: Sequence[str]) -> dict[str, str]:
        """Return the versions of those of `packages` that it told."""
        return {name: self.versions[name] for name in packages if name in self.versions}


def introduce(run: str, root: Path, api_url: str, device: str, packages: Sequence[str]) -> Introduction:
    """Return what the flow must know of this process before it gives it a shard of `run`; get ready for shards.

    Args:
        root: the output.
        api_url: of Prefect's server; empty on the flow's own machine, which reaches it.
        device: as configured.
        packages: whose versions decide the pixels.

    Raises:
        ConfigError: for a device that is not there.
    """
    set_up()
    import_engine()  # while the flow still plans, and not with the first shard
    from t2i_core.engine.device import card_id, title_of_device

    marks, deadline = RunMarks(Workspace(root).running, run), time.monotonic() + SEE_SECONDS
    while (problem := marks.why_unusable(process_name())) and time.monotonic() < deadline:
        time.sleep(LOOK_SECONDS)
    problem = problem or (why_unreachable(api_url) if api_url else "")
    return Introduction(
        host=socket.gethostname(),
        process=os.getpid(),
        card=os.environ.get("CUDA_VISIBLE_DEVICES", ""),
        card_id=card_id(device),
        device=title_of_device(device),
        versions=versions_here(packages),
        problem=problem,
    )


def versions_here(packages: Sequence[str]) -> dict[str, str]:
    """Return the versions of this tool, of Python and of packages; "none" for one that is not installed.

    That of this tool tells one commit from another.
    """
    found = {
        "text2image": f"{__version__} ({_sources_digest()})",
        "python": ".".join(platform.python_version_tuple()[:2]),
    }
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "none"
    return found


@functools.cache
def _sources_digest() -> str:
    """Return some digits that change with any source file of this project, as it is when the process is set up."""
    root, digest = Path(__file__).parents[1], hashlib.sha256()
    files = [path for room in ("flows", "tasks", "t2i_core") for path in (root / room).rglob("[!.]*.py")]
    for file in sorted(files):
        digest.update(file.relative_to(root).as_posix().encode() + file.read_bytes().replace(b"\r\n", b"\n"))
    return digest.hexdigest()[:8]


def join_run(run: str, root: Path) -> Callable[[], bool]:
    """Connect this process with the flow of `run`, unless it is the flow's own. `root`: the output.

    Where its marks were gone, and the run has shards all the same, they are looked at again: the output was out of
    reach, or a run of the same name was started anew.

    Returns:
        A function that says whether shards of the run should stop.
    """
    if THIS_PROCESS.run == run:
        return lambda: THIS_PROCESS.stop.is_set() or THIS_PROCESS.gave_up
    with _JOINING:
        if run not in _RUNS or not _RUNS[run].is_followed:
            _RUNS[run] = _Run(run, root)
        return _RUNS[run].stop.is_set


def here(load_config: LoadConfig) -> LoadConfig:
    """Return how this process loads the model: from files of its own machine, where the flow runs on another.

    Raises:
        ModelError: for files that cannot be had here, or have another content than on the flow's machine.
        HubUnavailable: where the hub gives no usable answer.
    """
    if load_config.source is None:
        return load_config
    return load_config.on_this_machine(files_here(load_config.source))


@functools.lru_cache(maxsize=4)
def files_here(source: ModelSource) -> dict[str, Any]:
    """Return where this machine has the files of a model, fetched and verified; asked of the disk once a process."""
    return fetch_and_verify(source)


def process_name() -> str:
    """Return the name of this process among those of a run."""
    return f"{socket.gethostname()}-{os.getpid()}"


def _title() -> str:
    return f"{socket.gethostname()}, process {os.getpid()}"


def leave(code: int) -> None:
    """End this process at once, whatever runs in it; what it said goes to Prefect's server first, if that is quick."""
    try:
        sending = threading.Thread(target=everything_sent, daemon=True)
        sending.start()
        sending.join(SENT_SECONDS)
        sys.stdout.flush()
    finally:  # whoever read the output is gone, or the disk is full
        os._exit(code)


@functools.cache
def set_up() -> None:
    """Set Prefect's settings and the logging; once a process."""
    _sources_digest()
    apply_settings()
    show_own_lines()
    # tqdm's own lock holds a semaphore of the system. Python warns of it at the end, where this process was killed.
    tqdm.set_lock(threading.RLock())
