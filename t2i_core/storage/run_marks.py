"""What the processes of one run tell each other in its output: that it stops, and how many images are done."""

import json
import shutil
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from t2i_core.storage.files import STALE_SECONDS, entries, is_temporary, write_text

_STOP = "stop"


class RunMarks:
    """The marks of a run, in a folder that is there while the run generates. They decide nothing but a stop."""

    def __init__(self, folder: Path, run: str) -> None:
        """`folder`: `Workspace.running`."""
        self._folder = folder / run

    def begin(self) -> None:
        """Make the folder, without a stop."""
        self._folder.mkdir(parents=True, exist_ok=True)
        (self._folder / _STOP).unlink(missing_ok=True)

    def end(self) -> None:
        """Remove the folder: processes that still look into it stop."""
        shutil.rmtree(self._folder, ignore_errors=True)

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

    def note_images(self, process: str, images: Mapping[str, int]) -> None:
        """Note for a process how many images are done of each shard that it has in hand."""
        if self._folder.is_dir():
            write_text(self._folder / f"{process}.json", json.dumps(images))

    def images(self) -> Counter[str]:
        """Return how many images of each shard are done: where two processes had it in hand, the larger number."""
        counts: Counter[str] = Counter()
        for entry in entries(self._folder):
            if entry.name.endswith(".json") and not is_temporary(entry.name):
                counts |= Counter(json.loads(Path(entry.path).read_text(encoding="utf-8")))
        return counts


def remove_stale_marks(folder: Path) -> None:
    """Remove the marks of runs that were killed, once nothing was noted in them for an hour."""
    for entry in entries(folder):
        if time.time() - entry.stat().st_mtime > STALE_SECONDS:
            shutil.rmtree(entry.path, ignore_errors=True)
