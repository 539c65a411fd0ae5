"""Columns that wait on disk until their turn comes: more of them than are to be in memory at a time."""

import os
from contextlib import ExitStack
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import IO, Any, cast

import pyarrow as pa

# So many bytes are no file.
SMALL = 1 << 18
# So many spills may be open at the same time: a process may have some thousand files open, often no more.
SPILLS = 256


class Spill:
    """Rows that are added in portions and read once, as a table.

    Where they are many they are in a file, which has no name and vanishes with the process.
    """

    def __init__(self, schema: pa.Schema, folder: Path, opened: ExitStack) -> None:
        """`folder`: where the file is; where that cannot be written, it is among the temporary files of the system."""
        where = str(folder) if os.access(folder, os.W_OK) else None
        self._file = opened.enter_context(SpooledTemporaryFile(SMALL, dir=where))  # noqa: SIM115
        options = pa.ipc.IpcWriteOptions(compression="lz4")
        self._writer = pa.ipc.new_stream(cast(IO[Any], self._file), schema, options=options)

    def add(self, rows: pa.RecordBatch) -> None:
        """Add rows behind the others."""
        self._writer.write_batch(rows)

    def read(self) -> pa.Table:
        """Return all rows; the file is gone then."""
        self._writer.close()
        self._file.seek(0)
        with pa.ipc.open_stream(cast(IO[Any], self._file)) as stream:
            table = stream.read_all()
        self._file.close()
        return table
