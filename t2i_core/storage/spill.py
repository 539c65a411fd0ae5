"""Columns that wait on disk until their turn comes: more of them than are to be in memory at a time."""

import os
from contextlib import ExitStack, suppress
from pathlib import Path
from tempfile import SpooledTemporaryFile, gettempdir
from typing import IO, Any, cast

import pyarrow as pa

from t2i_core.storage.files import naming

# So many bytes are no file.
SMALL = 1 << 18
# So many spills may be open at the same time: on macOS a process may have 256 files open, elsewhere some thousand.
SPILLS = 128


class Spill:
    """Rows that are added in portions and read once, as a table.

    Where they are many they are in a file, which has no name and vanishes with the process.
    """

    def __init__(self, schema: pa.Schema, folder: Path, opened: ExitStack) -> None:
        """`folder`: where the file is; where it must not be written, it is among the temporary files of the system."""
        self._folder = folder if os.access(folder, os.W_OK) else Path(gettempdir())
        self._file = SpooledTemporaryFile(SMALL, dir=str(self._folder))  # noqa: SIM115
        opened.callback(self._close)
        options = pa.ipc.IpcWriteOptions(compression="lz4")
        self._writer = pa.ipc.new_stream(cast(IO[Any], self._file), schema, options=options)

    def add(self, rows: pa.RecordBatch) -> None:
        """Add rows behind the others.

        Raises:
            OSError: with the name of the folder; its disk is full.
        """
        with naming(self._folder):
            self._writer.write_batch(rows)

    def read(self) -> pa.Table:
        """Return all rows; the file is gone then.

        Raises:
            OSError: as `add`.
        """
        with naming(self._folder):
            self._writer.close()
            self._file.seek(0)
            with pa.ipc.open_stream(cast(IO[Any], self._file)) as stream:
                table = stream.read_all()
        self._file.close()
        return table

    def _close(self) -> None:
        """Let the file go: what it still had to write nobody reads, and a full disk has been told of."""
        with suppress(OSError):
            self._file.close()
