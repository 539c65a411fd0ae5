"""What the processes of one run tell each other in its output: that it lives or stops, how far each shard is."""

import json
import os
import shutil
import threading
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from t2i_core.storage.files import entries, is_stale, is_temporary, read_regular, write_text

# Between two signs of life of a flow.
SIGN_SECONDS = 10.0

_STOP = "stop"
_TRIES = 10  # to remove the folder: a process may write into it in that moment
_FLOW = "flow"  # holds the name of the run; its time changes as long as the flow lives


class Told(NamedTuple):
    """How far a shard is: its images that are done, and the steps of its process, which tell of a slow image."""

    images: int = 0
    steps: int = 0


class RunMarks:
    """The marks of a run, in a folder that is there while the run generates.

    They decide whether processes stop, and tell which of them make something; what is made is in the output alone.
    """

    def __init__(self, folder: Path, run: str) -> None:
        """`folder`: `Workspace.running`."""
        self._folder = folder / run

    def begin(self) -> None:
        """Make the folder, without a stop."""
        self._folder.mkdir(parents=True, exist_ok=True)
        (self._folder / _STOP).unlink(missing_ok=True)
        write_text(self._folder / _FLOW, self._folder.name)

    def sign(self) -> None:
        """Give a sign of life of the flow. Where the folder cannot be reached just now, the next one will do."""
        with suppress(OSError):
            os.utime(self._folder / _FLOW)
            os.utime(self._folder)  # so that no other run takes it for that of a killed one

    @contextmanager
    def signing(self) -> Iterator[None]:
        """Give signs of life of the flow during the block: processes stop without them."""
        ended = threading.Event()

        def sign() -> None:
            while not ended.wait(SIGN_SECONDS):
                self.sign()

        threading.Thread(target=sign, name="signs", daemon=True).start()
        try:
            yield
        finally:
            ended.set()

    def last_sign(self) -> int | None:
        """Return the time of the flow's last sign of life, in ns by the file system's clock; None if none is seen."""
        try:
            return (self._folder / _FLOW).stat().st_mtime_ns
        except OSError:
            return None

    def why_unusable(self, process: str) -> str:
        """Return why a process cannot use the output as the flow does; empty if it sees the marks and can write."""
        try:
            seen = (self._folder / _FLOW).read_text(encoding="utf-8") == self._folder.name
            self.note(process, {})
        except OSError as error:
            if (self._folder / _FLOW).is_file():
                return f"cannot write to {self._folder}: {error.strerror}"
            seen = False
        return "" if seen else f"does not see {self._folder}: mount the output there as on the flow's machine"

    def end(self) -> None:
        """Remove the folder: processes that still look into it stop."""
        for _ in range(_TRIES):
            shutil.rmtree(self._folder, ignore_errors=True)
            if not self._folder.exists():
                return

    def ask_to_stop(self) -> None:
        """Tell all processes of the run to stop at their next denoising step."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            (self._folder / _STOP).touch()
        except OSError:  # a full disk, perhaps: that there is no folder says the same
            self.end()

    def says_stop(self) -> bool:
        """Return whether processes of the run should stop: they were told to, or the run is over."""
        return not self._folder.is_dir() or (self._folder / _STOP).exists()

    def note(self, process: str, told: Mapping[str, Told]) -> None:
        """Note for a process how far each shard is that it has in hand."""
        if self._folder.is_dir():
            write_text(self._folder / f"{process}.json", json.dumps(told))

    def told(self) -> dict[str, Told]:
        """Return how far each shard is.

        Where two processes had it in hand, the larger number of images, and the steps of both: those of one that died
        stay as they are, and must not hide those of the other.
        """
        shards: dict[str, Told] = {}
        found: list[os.DirEntry[str]] = []
        with suppress(OSError):  # a network file system: the next look may reach it
            found = entries(self._folder)
        for entry in found:
            if entry.name.endswith(".json") and not is_temporary(entry.name):
                # Or a file of another form.
                with suppress(OSError, ValueError, TypeError, OverflowError, RecursionError):
                    told = json.loads(read_regular(Path(entry.path)))
                    for shard, (images, steps) in dict(told).items():
                        before = shards.get(shard, Told())
                        shards[shard] = Told(max(before.images, int(images)), before.steps + int(steps))
        return shards


def remove_stale_marks(folder: Path, living: Collection[str]) -> None:
    """Remove the marks of runs that were killed, once nothing was noted in them for an hour. `living`: other runs."""
    for entry in entries(folder):
        with suppress(OSError):  # its run ended just now
            if entry.name not in living and is_stale(Path(entry.path)):
                shutil.rmtree(entry.path, ignore_errors=True)
