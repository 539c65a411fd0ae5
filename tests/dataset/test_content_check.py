"""What is hashed is what is read: a data set that is edited in between is refused, whatever its format."""

import os

import fsspec
import pyarrow as pa
import pytest

from t2i_core.config import Config
from t2i_core.dataset.data_file import DataFile
from t2i_core.dataset.parser import read_rows
from t2i_core.dataset.sources import find_parts, fingerprint, hashed
from t2i_core.errors import DatasetError
from tests.dataset.files import PACK, WRITTEN, write
from tests.dataset.test_arrow_reader import write_arrow_file, write_parquet, write_stream

TABLES = {"parquet": write_parquet, "arrow": write_arrow_file, "stream.arrow": write_stream}
FORMATS = [*WRITTEN, *(f"jsonl.{packing}" for packing in PACK), *TABLES]

# Long enough that a reader comes back for more; of equal length in both versions.
OLD, NEW = ([{"prompt": f"{word} {n:06} " + "x" * 300, "n": str(n)} for n in range(1200)] for word in ("old", "new"))
CHANGED = "changed while it was read; run the same command again"


def content(suffix, rows, tmp_path):
    """The bytes of a file with these rows."""
    path = tmp_path / f"written.{suffix}"
    if suffix in TABLES:
        TABLES[suffix](pa.table({"prompt": [row["prompt"] for row in rows]}), path)
    else:
        write(path, WRITTEN[suffix.partition(".")[0]](rows))
    data = path.read_bytes()
    path.unlink()
    return data


@pytest.fixture(params=FORMATS)
def versions(request, tmp_path):
    """(path, bytes of the old version, bytes of the new one); the old one is there."""
    path = tmp_path / "set" / f"rows.{request.param}"
    path.parent.mkdir()
    old, new = (content(request.param, rows, tmp_path) for rows in (OLD, NEW))
    path.write_bytes(old)
    return path, old, new


def put(path, data, how):
    """Put another version of a file in its place; its time stays."""
    status = path.stat()
    if how == "replaced":
        path.with_name(".new").write_bytes(data)
        path.with_name(".new").replace(path)
    else:
        path.write_bytes(data)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def options(path, **more):
    return Config(dataset=str(path), prompt_key="prompt", **more)


def prompts(config, found):
    return [row.prompts[0].text for row in read_rows(config, found)]


def test_what_did_not_change_is_read(versions):
    path, _, _ = versions
    for name in (path, path.parent, path.parent / "*.*"):
        config = options(name)
        assert prompts(config, hashed(find_parts(config.dataset))) == [row["prompt"] for row in OLD]


@pytest.mark.parametrize("how", ["in place", "replaced"])
def test_a_file_that_changed_after_it_was_hashed_is_refused(versions, how):
    path, _, new = versions
    for name in (path, path.parent):
        found = hashed(find_parts(str(name)))
        put(path, new, how)
        with pytest.raises(DatasetError, match=CHANGED):
            prompts(options(name), found)
        assert fingerprint(found) != fingerprint(hashed(find_parts(str(name))))
        put(path, versions[1], how)


@pytest.mark.parametrize("how", ["in place", "replaced"])
@pytest.mark.parametrize("back", [False, True], ids=["for good", "and put back"])
def test_no_row_of_another_version_is_taken_whenever_it_changes(versions, how, back):
    """Read while it changes, it may be read as it was: from the file that was opened. Then it is what was hashed."""
    path, old, new = versions
    for moment in (1, 1199):
        found = hashed(find_parts(str(path)))
        rows = read_rows(options(path), found)
        taken = []
        try:
            for row in rows:
                taken.append(row.prompts[0].text)
                if len(taken) == moment:
                    put(path, new, how)
            if back:
                put(path, old, how)
        except DatasetError:
            taken = None
        assert taken in (None, [row["prompt"] for row in OLD])
        put(path, old, how)


def test_a_version_that_was_there_only_while_it_was_read_is_refused(versions, monkeypatch):
    """The file is as it was hashed before and after, which no second hash would tell."""
    path, old, new = versions
    found = hashed(find_parts(str(path)))
    original = DataFile._open_as_it_is

    def opened_late(self):
        put(path, new, "in place")
        return original(self)

    monkeypatch.setattr(DataFile, "_open_as_it_is", opened_late)
    with pytest.raises(DatasetError, match=CHANGED):
        rows = read_rows(options(path), found)
        next(rows)
        put(path, old, "in place")
        list(rows)


def test_what_a_limit_leaves_out_counts_too(versions):
    """The plan is stored under the hash of the whole file."""
    path, _, new = versions
    found = hashed(find_parts(str(path)))
    assert prompts(options(path, limit=3), found) == [row["prompt"] for row in OLD[:3]]
    path.write_bytes(new)
    with pytest.raises(DatasetError, match=CHANGED):
        prompts(options(path, limit=3), found)


def test_a_file_that_a_limit_does_not_reach_is_not_read(tmp_path):
    for name in ("a.jsonl", "b.jsonl"):
        write(tmp_path / name, WRITTEN["jsonl"](OLD))
    found = hashed(find_parts(str(tmp_path)))
    (tmp_path / "b.jsonl").unlink()
    assert len(prompts(options(tmp_path, limit=5), found)) == 5


def test_a_file_that_appears_in_a_folder_is_none_of_this_run_s(tmp_path):
    write(tmp_path / "b.jsonl", WRITTEN["jsonl"](OLD))
    found = hashed(find_parts(str(tmp_path)))
    write(tmp_path / "a.jsonl", WRITTEN["jsonl"](NEW))
    assert prompts(options(tmp_path), found) == [row["prompt"] for row in OLD]


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_remote_file_that_changed_is_refused(tmp_path, suffix):
    memory = fsspec.filesystem("memory")
    url = f"memory://bucket/rows.{suffix}"
    try:
        memory.pipe(f"/bucket/rows.{suffix}", content(suffix, OLD, tmp_path))
        found = hashed(find_parts(url))
        assert prompts(options(url), found) == [row["prompt"] for row in OLD]
        memory.pipe(f"/bucket/rows.{suffix}", content(suffix, NEW, tmp_path))
        with pytest.raises(DatasetError, match=CHANGED):
            prompts(options(url), found)
    finally:
        memory.store.clear()


def test_a_file_that_grows_while_it_is_read_is_refused(tmp_path):
    path = write(tmp_path / "rows.jsonl", WRITTEN["jsonl"](OLD))
    found = hashed(find_parts(str(path)))
    with pytest.raises(DatasetError, match=CHANGED):
        for number, _ in enumerate(read_rows(options(path), found)):
            if number == 0:
                with path.open("a") as file:
                    file.write('{"prompt": "more"}\n')
