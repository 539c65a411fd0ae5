"""The progress of a run: a bar in a terminal, lines in a log file, an artifact in Prefect's UI."""

import contextvars
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import Any

from prefect.artifacts import create_progress_artifact, update_progress_artifact
from tqdm import tqdm

from tasks.process import THIS_PROCESS
from tasks.reports import data_set_name, not_shown
from tasks.server_wait import WAIT

# Between two looks at what has changed.
LOOK_SECONDS = 0.5
# Between two lines in a log file.
LINE_INTERVAL_SECONDS = 30
# Between two updates of the progress that Prefect shows: each is a request.
ARTIFACT_INTERVAL_SECONDS = 10
# `none for 03:20` is shown after so many seconds without an image, if that is so many times the longest wait before.
QUIET_SECONDS, QUIET_TIMES = 120.0, 5
# How long the last update is waited for, where a silent server holds it up.
LAST_UPDATE_SECONDS = 5


class Progress:
    """How far a run has come: its images, and the denoising steps of the batch in flight.

    The shards of this process tell it in several threads; others show it.
    """

    def __init__(self, total: int | None) -> None:
        """`total`: None as long as it is not known."""
        self.total = total
        self.done = 0
        self.workers = 0  # how many processes generate, where they are others than this one
        self._batch, self._step = 0, (0, 0)
        self._lock = threading.Lock()
        self._started = self._last = time.monotonic()  # `_last`: when images were made
        self._longest = 0.0  # between two images, or before the first

    def add_images(self, count: int) -> None:
        """Count images."""
        with self._lock:
            self._count(self.done + count)

    def reach(self, done: int) -> None:
        """Count up to `done` images: shards elsewhere tell nothing of single ones. A shard here may be ahead of it."""
        with self._lock:
            self._count(max(self.done, done if self.total is None else min(self.total, done)))

    def _count(self, done: int) -> None:
        if done > self.done:
            now = time.monotonic()
            self._longest, self._last = max(self._longest, now - self._last), now
        self.done = done

    def expect(self, total: "Future[Any]") -> None:
        """Take over how many images there will be, of work that is counted by now."""
        if not total.cancelled() and total.exception() is None:
            self.total = total.result().images

    def note_step(self, step: int, steps: int) -> None:
        """Note that a denoising step is done. Called between two steps: it must not take time."""
        if step == 1:
            self._batch += 1
        self._step = step, steps

    def images(self) -> str:
        """Return for example `3 of 40 images`, or `3 images`."""
        return f"{self.done} images" if self.total is None else f"{self.done} of {self.total} images"

    def speed(self) -> str:
        """Return for example `, 0.42/s, 01:28 left` or `, none for 03:20`; nothing before the first and after all."""
        done, seconds = self.done, time.monotonic() - self._started
        if not done or not seconds:
            return ""
        if quiet := self.quiet():
            return f"{self.by()}, {quiet}"
        if self.total is None:
            return f", {done / seconds:.2f}/s{self.by()}"
        if done >= self.total:
            return ""
        left = tqdm.format_interval((self.total - done) * seconds / done)
        return f", {done / seconds:.2f}/s{self.by()}, {left} left"

    def quiet(self) -> str:
        """Return for example `none for 03:20` where images stay away much longer than before; else nothing."""
        silent = time.monotonic() - self._last
        expected = self.done > 0 and (self.total is None or self.done < self.total)
        if expected and silent > max(QUIET_SECONDS, QUIET_TIMES * self._longest):
            return f"none for {tqdm.format_interval(silent)}"
        return ""

    def by(self) -> str:
        """Return for example ` by 8 workers`; nothing where this process generates."""
        return f" by {self.workers} worker{'' if self.workers == 1 else 's'}" if self.workers else ""

    def step(self) -> str:
        """Return for example `batch 1: step 7 of 28`; nothing as long as the model has told of no step."""
        return f"batch {self._batch}: step {self._step[0]} of {self._step[1]}" if self._batch else ""


@contextmanager
def progress(total: int | None, dataset: Sequence[str]) -> Iterator[Progress]:
    """Show for the block how many of `total` images are made, in a terminal or a log file, and in Prefect.

    `total`: None where it is not known yet.
    """
    shown = Progress(total)
    THIS_PROCESS.on_images, THIS_PROCESS.on_step = shown.add_images, shown.note_step
    here = _show_bar if sys.stderr.isatty() else _show_lines
    try:
        with _beside(here, shown), _beside(_show_in_prefect, shown, f"progress-{data_set_name(dataset)}"):
            yield shown
    finally:
        THIS_PROCESS.on_images, THIS_PROCESS.on_step = lambda count: None, lambda step, steps: None


@contextmanager
def _beside(show: Callable[..., None], *arguments: Any) -> Iterator[None]:
    """Run `show(ended, *arguments)` in a thread during the block: no image waits for a terminal or a server."""
    ended = threading.Event()
    follow = contextvars.copy_context().run  # the artifact belongs to this flow run
    thread = threading.Thread(target=follow, args=(show, ended, *arguments), name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(LAST_UPDATE_SECONDS)


class _Bar(tqdm):  # type: ignore[type-arg]
    """A bar that outlives its terminal: that of a killed worker, or of `| head`. No image is lost for it."""

    def display(self, *arguments: Any, **more: Any) -> Any:
        # Not around the bar: tqdm holds its lock meanwhile, and an error that gets out of here leaves it held.
        with suppress(OSError):
            return super().display(*arguments, **more)

    def close(self) -> None:
        with suppress(OSError):
            super().close()


def _show_bar(ended: threading.Event, shown: Progress) -> None:
    """Draw a bar."""
    # A lock of its own: diffusers takes the one that all bars share before each image, in the device's thread.
    _Bar.set_lock(threading.RLock())
    with suppress(OSError), _Bar(total=shown.total, unit="image") as bar:
        last = False
        while not last:
            last = ended.wait(LOOK_SECONDS)
            bar.n, bar.total = shown.done, shown.total
            bar.set_postfix_str("" if last else shown.quiet() or shown.step() or shown.by().strip(), refresh=False)
            bar.refresh()


def _show_lines(ended: threading.Event, shown: Progress) -> None:
    """Write a line at the first image, at the end, and every so often before and between."""
    next_line, begun = time.monotonic() + LINE_INTERVAL_SECONDS, False
    while not ended.wait(LOOK_SECONDS):
        first = shown.done > 0 and not begun
        if first or time.monotonic() >= next_line:
            begun = shown.done > 0
            next_line = time.monotonic() + LINE_INTERVAL_SECONDS
            step = shown.step()
            _write_line(shown.images() + shown.speed() + (f", {step}" if step else ""))
    _write_line(shown.images())


def _write_line(text: str) -> None:
    with suppress(OSError):  # whoever read the log is gone; no image is lost for it
        print(f"{datetime.now():%Y-%m-%d %H:%M:%S} progress  {text}", file=sys.stderr, flush=True)


def _show_in_prefect(ended: threading.Event, shown: Progress, key: str) -> None:
    """Keep a progress artifact up to date."""
    artifact: Any = None
    last = False
    while not last:
        last = ended.wait(ARTIFACT_INTERVAL_SECONDS if artifact else 0)
        text = shown.images()  # the UI's card shows some 40 characters
        if not last:
            text += shown.speed() or (f", {shown.step()}" if shown.step() else "")
        percent = round(100 * shown.done / shown.total, 1) if shown.total else 0.0
        try:
            with WAIT.not_waiting():
                if artifact is None:
                    artifact = create_progress_artifact(percent, key=key, description=text)
                else:
                    update_progress_artifact(artifact, percent, description=text)
        except Exception as error:  # the server may be back for the next update
            not_shown("the progress", error)
            if not last:
                ended.wait(ARTIFACT_INTERVAL_SECONDS)  # where that is the end, the last update is still to come
