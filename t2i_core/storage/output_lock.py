"""The lock of an output, which says after some seconds for whom it waits."""

import json
import logging
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from filelock import FileLock, Timeout

from t2i_core.storage.files import write_text
from t2i_core.storage.holders import Holder

log = logging.getLogger(__name__)

# So long a lock is waited for without a word; then again a line after each of the later intervals.
SAY_SECONDS = 3.0
SAY_AGAIN_SECONDS = 60.0


class OutputLock(FileLock):
    """A file lock whose holder is noted in a file beside it while a `with` block holds it."""

    def __enter__(self) -> Self:
        """Acquire the lock, however long that takes; say for whom it waits."""
        seconds = SAY_SECONDS
        while not self.is_locked:
            try:
                self.acquire(timeout=seconds)
            except Timeout:
                log.warning("waits     for another run that writes to this output: %s", _holder_of(self._note()))
                seconds = SAY_AGAIN_SECONDS
        with suppress(OSError):  # a full disk: who holds the lock is only for a line to others
            write_text(self._note(), json.dumps(Holder.this_process().to_json()))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Release the lock."""
        with suppress(OSError):
            self._note().unlink()
        super().__exit__(kind, error, trace)

    def _note(self) -> Path:
        return Path(f"{self.lock_file}-holder")


def _holder_of(note: Path) -> Holder | str:
    try:
        return Holder.from_text(note.read_text(encoding="utf-8")) or "it is not known which"
    except (OSError, ValueError):  # it did not write yet, or could not
        return "it is not known which"
