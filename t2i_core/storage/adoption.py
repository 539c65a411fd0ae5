"""Images whose records are lost, adopted: decoded in full, by threads of this process or by a process for each core.

A file counts if its pixels are those that its own header names, and its key is the one under which it is stored. The
processes are started by name and talk in plain bytes: nothing is pickled, and none imports what this process runs.
"""

import os
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from queue import SimpleQueue
from types import TracebackType
from typing import IO, Any, Self

import pyarrow as pa

from t2i_core.other_process import command_of
from t2i_core.storage.formats import decode_image
from t2i_core.storage.image_store import ImageStore
from t2i_core.storage.keys import KEY
from t2i_core.storage.records import RECORD_TABLE, file_facts, record_batches
from t2i_core.storage.tables import CHUNK_ROWS

DECODERS = 4  # threads; decoding releases the GIL
# From so many images on, other processes are worth their start.
MANY = 2000
# Images that a process is given at a time.
_PORTION = 128
_LENGTH = struct.Struct("<Q")


def adopt(keys: Sequence[str], images: ImageStore) -> pa.Table:
    """Decode files in threads; return the records of those that count, with the columns of `RECORD_TABLE`."""

    def records() -> Iterator[dict[str, Any]]:
        with ThreadPoolExecutor(DECODERS) as pool:
            for start in range(0, len(keys), CHUNK_ROWS):  # a chunk at a time: `map` takes all it is given at once
                yield from filter(None, pool.map(lambda key: _record(key, images), keys[start : start + CHUNK_ROWS]))

    return pa.Table.from_batches(record_batches(records()), RECORD_TABLE)


def _record(key: str, images: ImageStore) -> dict[str, Any] | None:
    file, data = images.stat(key), images.read(key)
    image = None if data is None else decode_image(data)
    if file is None or image is None or image.record.get("key") != key:
        return None
    return image.record | file_facts(file)


class Adopters:
    """Adopts images, many of them by all cores: a context manager, with which its processes end."""

    def __init__(self, images: ImageStore) -> None:
        self._images = images
        self._open = ExitStack()
        self._idle: SimpleQueue[subprocess.Popen[bytes]] = SimpleQueue()
        self._count = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    def __call__(self, keys: Sequence[str]) -> pa.Table:
        """Return the records of the files that count, in the order of their keys."""
        return pa.concat_tables([RECORD_TABLE.empty_table(), *(table for _, table in self.portions(keys))])

    def portions(self, keys: Sequence[str]) -> Iterator[tuple[Sequence[str], pa.Table]]:
        """Yield some of the keys after the others, with the records of those whose files count."""
        portions = [keys[start : start + _PORTION] for start in range(0, len(keys), _PORTION)]
        if len(keys) < MANY or not self._start():
            for portion in portions:
                yield portion, adopt(portion, self._images)
            return
        with ThreadPoolExecutor(self._count) as pool:
            yield from zip(portions, pool.map(self._adopt_elsewhere, portions), strict=True)

    def _start(self) -> bool:
        """Start a process for each core, once; return whether there is any: the system may allow none."""
        command = command_of(__name__, str(self._images.root.absolute()))
        if self._count or command is None:
            return self._count > 0
        for _ in range(cores()):
            with suppress(OSError):
                process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
                self._open.callback(_end, process)
                self._idle.put(process)
                self._count += 1
        return self._count > 0

    def _adopt_elsewhere(self, keys: Sequence[str]) -> pa.Table:
        process = self._idle.get()
        try:
            assert process.stdin is not None and process.stdout is not None
            _send(process.stdin, "".join(keys).encode())
            answer = _receive(process.stdout)
        except OSError:
            answer = None
        finally:
            self._idle.put(process)
        if answer is None:  # it was killed, for lack of memory perhaps
            return adopt(keys, self._images)
        with pa.ipc.open_stream(answer) as stream:
            return stream.read_all()


def _end(process: subprocess.Popen[bytes]) -> None:
    """Let a process end: it has no further request."""
    assert process.stdin is not None and process.stdout is not None
    with suppress(OSError):  # it was killed
        process.stdin.close()
    process.stdout.close()
    process.wait()


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def serve() -> None:
    """Answer each request, keys one after the other, with their records as an Arrow stream; until there is none."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that asks decides when to end
    images, requests, answers = ImageStore(Path(sys.argv[1])), sys.stdin.buffer, sys.stdout.buffer
    while (keys := _receive(requests)) is not None:
        size = KEY.itemsize
        table = adopt([keys[start : start + size].decode() for start in range(0, len(keys), size)], images)
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, RECORD_TABLE) as writer:
            writer.write_table(table)
        _send(answers, sink.getvalue().to_pybytes())


def _send(stream: IO[bytes], data: bytes) -> None:
    stream.write(_LENGTH.pack(len(data)) + data)
    stream.flush()


def _receive(stream: IO[bytes]) -> bytes | None:
    """Return what `_send` sent; None where the other side has ended."""
    head = stream.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        return None
    (length,) = _LENGTH.unpack(head)
    data = stream.read(length)
    return data if len(data) == length else None
