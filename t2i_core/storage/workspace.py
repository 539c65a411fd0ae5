"""The folders of one output: what a run keeps for the next one, and the images."""

import fcntl
import os
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from t2i_core.storage.checked_files import CheckedFiles, CheckedImages
from t2i_core.storage.files import entries, final_name, remove_if_stale
from t2i_core.storage.image_store import ImageStore
from t2i_core.storage.leases import in_use
from t2i_core.storage.output_lock import OutputLock
from t2i_core.storage.promises import is_lacking
from t2i_core.storage.run_marks import remove_stale_marks


class Workspace:
    """An output folder. `root` is its path as the user gave it; everything that people need not see is in `hidden`."""

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        self.hidden = self.root / ".t2i"
        self.images = ImageStore(self.root)
        self.results = self.hidden / "results"
        self.plans = self.hidden / "plans"
        self.records = self.hidden / "records"
        self.manifests = self.hidden / "manifests"
        self.running = self.hidden / "running"
        self.leases = self.hidden / "in-use"
        self.written = self.hidden / "written"
        self.checked_images = CheckedImages(self.hidden / "checked-images", self.images)
        self.checked_names = CheckedFiles(self.hidden / "checked-names")
        self.scores = self.hidden / "scores"

    def lock(self) -> AbstractContextManager[Any]:
        """Return the lock that is held while names and manifest change, so that two runs do not mix theirs.

        The operating system frees it when its process is killed. Where it knows no locks, nothing is held. Whoever
        waits for it is told after seconds who holds it.
        """
        self.hidden.mkdir(parents=True, exist_ok=True)
        file = self.hidden / "lock"
        return OutputLock(file) if _knows_locks(file) else nullcontext()

    def remove_stale_files(self) -> None:
        """Remove temporary files that a killed process left behind, once they are an hour old.

        Those beside images are removed by `ImageStore.scan`. Where people see them, only those of names that are noted:
        others may be the user's.
        """
        folders = (
            *(self.root, self.hidden, self.written, self.plans, self.records, self.manifests, self.scores),
            self.leases,
        )
        for folder in folders:
            for entry in entries(folder):
                final = final_name(entry.name)
                if final is not None and (folder != self.root or (self.written / final).is_file()):
                    remove_if_stale(Path(entry.path))
        remove_stale_marks(self.running, {run.run for run in in_use(self.leases)})


def _knows_locks(file: Path) -> bool:
    """Return whether a file can be locked on its file system; shares of some systems and FUSE have no locks."""
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:  # held by another run
        return True
    except OSError as error:
        if is_lacking("flock", error):
            return False
        raise
    finally:
        os.close(descriptor)
    return True
