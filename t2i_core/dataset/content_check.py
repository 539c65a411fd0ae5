"""What is hashed is what is read: whether the bytes that were parsed are those by which a run knows its data set.

The plan of a data set is stored under the hash of its content, which is taken before anything is parsed, so that an
unchanged run parses nothing. What changed in between would be stored under the hash of what the file held before.
"""

import hashlib
import io
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import cast

from t2i_core.errors import DatasetError

BUFFER = 1 << 18


class ContentCheck:
    """The SHA-256 that a file of the data set had, and whether that is what was read of it since."""

    def __init__(self, name: str, sha256: str) -> None:
        self.name, self.sha256 = name, sha256
        self._changed = False
        self._streams: list[_Hashing] = []

    @contextmanager
    def in_order(self, raw: io.BufferedReader) -> Iterator[io.BufferedReader]:
        """Open for the block a reader of `raw` that hashes what it returns."""
        stream = _Hashing(raw)
        self._streams.append(stream)
        try:
            yield io.BufferedReader(stream, BUFFER)
        finally:
            self._finish(stream)

    @contextmanager
    def at_random(self, raw: io.BufferedReader) -> Iterator[io.BufferedReader]:
        """Open for the block a file of which any part may be read: `raw`, or a copy of it where it is not local.

        Raises:
            DatasetError: if it has changed by now. What changes within the block, `refuse_changed` tells.
        """
        with ExitStack() as opened:
            local = _descriptor(raw) is not None
            file = raw if local else cast(io.BufferedReader, opened.enter_context(tempfile.TemporaryFile()))
            if not local:
                shutil.copyfileobj(raw, file, BUFFER)
                file.seek(0)
            before = _state(file)
            self._compare(file)
            self.refuse_changed()
            try:
                yield file
            finally:
                # On file systems without a change time of its own, and of a file just written, it says nothing.
                if local and (_state(file) != before or before[0] == before[1]):
                    self._changed |= _state(file) != before
                    self._compare(file)

    def refuse_changed(self) -> None:
        """Refuse a file of which something else was read than was hashed; what was not read is read for that.

        Raises:
            DatasetError: naming the file.
        """
        for stream in self._streams:
            self._finish(stream)
        if self._changed:
            raise DatasetError(f"{self.name}: changed while it was read; run the same command again")

    def _finish(self, stream: "_Hashing") -> None:
        if stream in self._streams:
            self._streams.remove(stream)
            self._changed |= stream.digest_to_end() != self.sha256

    def _compare(self, file: io.BufferedReader) -> None:
        file.seek(0)
        self._changed |= hashlib.file_digest(file, "sha256").hexdigest() != self.sha256
        file.seek(0)


class _Hashing(io.RawIOBase):
    """A file, read in order, and the hash of what was read."""

    def __init__(self, raw: io.BufferedReader) -> None:
        self._raw, self._hash = raw, hashlib.sha256()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        count = self._raw.readinto(buffer)
        self._hash.update(buffer[:count])
        return count

    def digest_to_end(self) -> str:
        """Return the hash of the whole file; empty where its rest cannot be read."""
        try:
            while self.readinto(memoryview(bytearray(BUFFER))):
                pass
        except Exception:  # the libraries of remote files raise anything
            return ""
        return self._hash.hexdigest()


def _descriptor(file: io.BufferedReader) -> int | None:
    try:
        return file.fileno()
    except OSError:  # a file of fsspec
        return None


def _state(file: io.BufferedReader) -> tuple[int, int, int]:
    status = os.fstat(file.fileno())
    return status.st_mtime_ns, status.st_ctime_ns, status.st_size
