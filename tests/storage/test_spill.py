"""Rows that wait on disk come back as they were, and leave nothing behind."""

import errno
from contextlib import ExitStack

import pyarrow as pa
import pytest

from t2i_core.storage import spill as module
from t2i_core.storage.spill import Spill

TABLE = pa.table({"a": list(range(100)), "b": pa.array(list("abcd") * 25).dictionary_encode(), "c": [None, "x"] * 50})


@pytest.mark.parametrize("small", [1, 1 << 20])
def test_what_was_added_is_read_once_in_its_order(tmp_path, monkeypatch, small):
    monkeypatch.setattr(module, "SMALL", small)
    with ExitStack() as opened:
        spill = Spill(TABLE.schema, tmp_path, opened)
        for start, count in ((0, 1), (1, 59), (60, 0), (60, 40)):
            for batch in TABLE.slice(start, count).to_batches():
                spill.add(batch)
        assert spill.read().to_pylist() == TABLE.to_pylist()
    assert list(tmp_path.iterdir()) == []


def test_nothing_was_added(tmp_path):
    with ExitStack() as opened:
        assert Spill(TABLE.schema, tmp_path, opened).read().equals(TABLE.slice(0, 0))


def test_a_spill_that_is_not_read_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "SMALL", 1)
    with pytest.raises(KeyboardInterrupt), ExitStack() as opened:
        Spill(TABLE.schema, tmp_path, opened).add(TABLE.to_batches()[0])
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_where_the_folder_cannot_be_written_rows_wait_elsewhere(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "SMALL", 1)
    with ExitStack() as opened:
        spill = Spill(TABLE.schema, tmp_path / "none", opened)
        spill.add(TABLE.to_batches()[0])
        assert spill.read().to_pylist() == TABLE.to_pylist()


def test_a_full_disk_is_told_of_with_its_folder(tmp_path, monkeypatch):
    class Full:
        """A file on a full disk, which cannot even be closed: something is left to write."""

        def __init__(self, *_, **__):
            self.closed = False

        def write(self, data):
            raise OSError(errno.ENOSPC, "No space left on device")

        flush = close = lambda self: self.write(b"")

    monkeypatch.setattr(module, "SpooledTemporaryFile", Full)
    with pytest.raises(OSError, match="No space left") as caught, ExitStack() as opened:
        spill = Spill(TABLE.schema, tmp_path, opened)
        spill.add(TABLE.to_batches()[0])
        spill.read()
    assert caught.value.errno == errno.ENOSPC
    assert caught.value.filename == str(tmp_path)
