"""The chunks of thumbnails: what is written is found again, and what is no chunk does no harm."""

import os
import threading
import time

import numpy as np
import pytest

from t2i_core.storage.keys import KEY
from t2i_core.storage.thumbnail_store import CHUNK, ThumbnailStore, ThumbnailWriter
from t2i_core.storage.thumbnails import LOOKS, Look, Thumbnail


def thumbnail(number):
    return Thumbnail(f"{number:064x}", b"jpeg %d" % number, Look(number / 1000, 0.25, 0.5, 0.75))


@pytest.fixture
def store(tmp_path):
    return ThumbnailStore(tmp_path)


def contents(store):
    """Every thumbnail by the hash of its pixels."""
    index = store.index()
    return {
        pixels.decode(): store.read(index.chunks[chunk], slot)
        for pixels, chunk, slot in zip(index.pixels, index.chunk.tolist(), index.slot.tolist(), strict=True)
    }


def test_thumbnails_are_found_by_the_hash_of_their_pixels(store):
    store.write([thumbnail(i) for i in (7, 3)])
    store.write([thumbnail(5)])
    assert contents(store) == {f"{i:064x}": b"jpeg %d" % i for i in (3, 5, 7)}
    index = store.index()
    rows = index.find(np.array([f"{7:064x}", f"{4:064x}", ""], KEY))
    assert rows.tolist() == [2, -1, -1]
    assert index.looks[2].tolist() == pytest.approx([0.007, 0.25, 0.5, 0.75])
    assert index.looks.shape == (3, len(LOOKS))


def test_without_thumbnails_the_index_is_empty(store):
    index = store.index()
    assert (len(index.pixels), index.looks.shape, list(index.chunks)) == (0, (0, len(LOOKS)), [])
    assert index.find(np.array(["a" * 64], KEY)).tolist() == [-1]


def test_the_same_thumbnails_are_one_file_that_is_not_written_again(store):
    store.write([thumbnail(1)])
    (file,) = store.folder.iterdir()
    before = file.stat()
    store.write([thumbnail(1)])
    assert [path.stat() for path in store.folder.iterdir()] == [before]


def test_what_is_no_chunk_is_left_out_and_old_temporary_files_are_removed(store):
    store.write([thumbnail(1)])
    (chunk,) = store.folder.iterdir()
    (store.folder / "0123456789abcdef.js").write_bytes(chunk.read_bytes())  # its name is not its own
    (store.folder / "notes.js").write_bytes(b"\xff\xfe")
    (store.folder / "cut.js").write_text('gallery.thumbnails("cut",/*{"pixels":')
    stale = store.folder / ".x.js.1-2.tmp"
    stale.write_text("")
    os.utime(stale, (time.time() - 7200,) * 2)
    assert list(contents(store)) == [f"{1:064x}"]
    assert not stale.exists()


def test_a_writer_fills_chunks_from_several_threads_and_writes_the_rest_at_the_end(store):
    writer = ThumbnailWriter(store)
    count = 2 * CHUNK + 3
    threads = [
        threading.Thread(target=lambda first=first: [writer.add(thumbnail(i)) for i in range(first, count, 4)])
        for first in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(list(store.folder.iterdir())) == 2
    writer.close()
    writer.close()
    assert len(list(store.folder.iterdir())) == 3
    assert contents(store) == {f"{i:064x}": b"jpeg %d" % i for i in range(count)}


def test_a_chunk_that_cannot_be_written_is_no_error(store, tmp_path):
    (tmp_path / ".t2i").write_text("in the way")
    writer = ThumbnailWriter(store)
    writer.add(thumbnail(1))
    writer.close()


def test_a_link_is_the_chunk_itself(store, tmp_path):
    store.write([thumbnail(1)])
    (chunk,) = store.folder.iterdir()
    target = tmp_path / "gallery/thumbnails/x.js"
    store.link(chunk.stem, target)
    store.link(chunk.stem, target)
    assert target.stat().st_ino == chunk.stat().st_ino
    assert [path.name for path in target.parent.iterdir()] == ["x.js"]


def test_a_chunk_is_copied_where_links_do_not_work(store, tmp_path, monkeypatch):
    def refuse(source, target):
        raise OSError("no links here")

    store.write([thumbnail(1)])
    (chunk,) = store.folder.iterdir()
    monkeypatch.setattr(os, "link", refuse)
    store.link(chunk.stem, tmp_path / "copy.js")
    assert (tmp_path / "copy.js").read_bytes() == chunk.read_bytes()
