"""Sources of rows: files that stream, files that cannot be opened, hub data sets."""

import gzip
import itertools
import sys
import types
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from t2i_core.dataset import readers
from t2i_core.dataset.hub import HubSplit
from t2i_core.dataset.readers import open_source
from t2i_core.errors import DatasetError
from tests.dataset.test_readers import read, write


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ms:some/set", "ModelScope.*download"),
        ("rows.pkl", "pickle runs code"),
        ("rows.pickle.gz", "pickle runs code"),
        ("weights.PT", "pickle runs code"),
        ("missing.jsonl", "no such file.*check the path"),
        ("some/set", "hf:name:split"),
        ("rows.xlsx", "unknown format .xlsx; give a .jsonl .json .csv .tsv .parquet .txt file"),
        ("rows.parquet.gz", "gunzip"),
        (".", "is a folder"),
        ("folder.jsonl", "is a folder"),
        ("hf:", "write hf:name:split"),
        ("hf:name", "write hf:name:split"),
        ("hf:a:b:c:d", "write hf:name:split"),
        ("hf:name::train", "write hf:name:split"),
        ("hf:name:train[:10]", "--limit"),
        ("hf:folder.jsonl:train", "on this disk"),
        ("hf:~nobody/rows:train", "on this disk"),
        ("x" * 300 + ".jsonl", "cannot be read: File name too long; check the path"),
    ],
)
def test_what_cannot_be_opened_is_refused_at_once_in_one_line(tmp_path, monkeypatch, name, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.jsonl").mkdir()
    for present in ("rows.xlsx", "rows.parquet.gz", "rows.pkl"):
        (tmp_path / present).write_bytes(b"x")
    with pytest.raises(DatasetError, match=message) as error:
        open_source(name)
    assert "\n" not in str(error.value)


def test_damaged_archives_are_errors(tmp_path):
    whole = gzip.compress(b'{"a":1}\n' * 5000)
    for content in (whole[:-20], whole[:30] + b"\0\0\0" + whole[33:], b"not gzip"):
        path = tmp_path / "rows.jsonl.gz"
        path.write_bytes(content)
        with pytest.raises(DatasetError, match="gzip"):
            read(path)


@pytest.fixture
def parquet_file(tmp_path):
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"prompt": [f"a fox {n}" for n in range(2000)]}), path)
    return path


def test_a_file_that_is_not_parquet_is_an_error_in_one_line(tmp_path):
    path = tmp_path / "rows.parquet"
    for content in (b"PAR1 no parquet", b"", b"prompt\na fox\n" * 100):
        path.write_bytes(content)
        with pytest.raises(DatasetError) as error:
            read(path)
        assert str(error.value).startswith(f"{path}: cannot be read as Parquet: ")
        assert str(error.value).endswith("; write or download it again")
        assert "\n" not in str(error.value)


def test_a_torn_parquet_file_is_an_error_in_one_line(parquet_file):
    whole = parquet_file.read_bytes()
    for content in (whole[:-1], whole[: len(whole) // 2], whole[:200] + bytes(200) + whole[400:]):
        parquet_file.write_bytes(content)
        with pytest.raises(DatasetError, match=r"cannot be read as Parquet: .+; write or download it again$") as error:
            read(parquet_file)
        assert "\n" not in str(error.value)


def test_a_file_that_vanishes_before_it_is_read_is_an_error_in_one_line(parquet_file, tmp_path):
    text = write(tmp_path / "rows.jsonl", "{}\n")
    for path in (parquet_file, text):
        rows = open_source(str(path)).rows
        path.unlink()
        with pytest.raises(DatasetError) as error:
            next(rows)
        fix = "check the path and its permissions"
        assert str(error.value) == f"{path}: cannot be read: No such file or directory; {fix}"


@pytest.mark.parametrize("suffix", ["parquet", "jsonl", "csv.gz"])
@pytest.mark.parametrize("name", ["run-10:00", "s3:rows", "file:rows", "~"])
@pytest.mark.parametrize("folder", [".", "data:2", "file:"])
def test_a_path_with_a_colon_or_a_tilde_is_no_url(tmp_path, monkeypatch, folder, name, suffix):
    monkeypatch.chdir(tmp_path)
    path = Path(folder) / f"{name}.{suffix}"
    path.parent.mkdir(exist_ok=True)
    if suffix == "parquet":
        with path.open("wb") as file:
            pq.write_table(pa.table({"prompt": ["a fox"]}), file)
    else:
        write(path, "prompt\na fox\n" if suffix == "csv.gz" else '{"prompt": "a fox"}\n')
    for dataset in (str(path), str(path.resolve())):
        assert [row.value for row in open_source(dataset).rows] == [{"prompt": "a fox"}]


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "tsv", "txt"])
def test_text_readers_stream(monkeypatch, suffix):
    """From a file without end, the first rows come out, and hardly more was read than they are made of."""
    taken = 0

    def endless(path):
        nonlocal taken
        yield 1, b"prompt\n"
        for taken in itertools.count(1):
            yield taken + 1, b'{"a":1}\n' if suffix == "jsonl" else b"a fox\n"

    monkeypatch.setattr(readers, "_lines", endless)
    rows = readers.READERS[f".{suffix}"](Path("rows"))
    assert len(list(itertools.islice(rows, 1000))) == 1000
    assert taken <= 1001


def test_parquet_streams_in_chunks(tmp_path, monkeypatch):
    pq.write_table(pa.table({"a": range(5000)}), tmp_path / "rows.parquet")
    converted = []
    real = readers._chunk_values
    monkeypatch.setattr(readers, "_chunk_values", lambda chunk: converted.append(chunk.num_rows) or real(chunk))
    assert next(open_source(str(tmp_path / "rows.parquet")).rows).value == {"a": 0}
    assert converted == [readers.CHUNK_ROWS]


@given(st.binary(max_size=300) | st.lists(st.sampled_from([b"{", b'"a"', b"\n", b"\xff", b"\0", b"[1]", b"{}", b"\r"])))
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_are_one_row_a_non_blank_line(tmp_path, content):
    data = content if isinstance(content, bytes) else b"".join(content)
    lines = data.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    expected = sum(bool(line.decode(errors="surrogateescape").strip()) for line in lines)
    for suffix in ("jsonl", "txt"):
        path = write(tmp_path / f"rows.{suffix}", data)
        if expected:
            assert [row.index for row in read(path)] == list(range(expected))
        else:
            with pytest.raises(DatasetError):
                read(path)


@given(st.binary(max_size=300), st.sampled_from(["csv", "tsv", "json", "parquet", "jsonl.gz"]))
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_in_any_format_are_rows_or_an_error_for_the_user(tmp_path, content, suffix):
    path = tmp_path / f"rows.{suffix}"
    path.write_bytes(content)
    try:
        rows = read(path)
    except DatasetError:
        return
    assert [row.index for row in rows] == list(range(len(rows)))


class FakeDatasets(types.ModuleType):
    """The part of `datasets` that is used: a stream, or an error on the way."""

    def __init__(self, items):
        super().__init__("datasets")
        self.items, self.asked = items, None

    def disable_progress_bars(self):
        pass

    def load_dataset(self, name, config, *, split, streaming):
        self.asked = (name, config, split, streaming)
        return self

    def decode(self, enable):
        assert enable is False
        for item in self.items:
            if isinstance(item, Exception):
                raise item
            yield item


def test_hub_data_sets_stream_through_datasets(monkeypatch):
    fake = FakeDatasets([{"Prompt": "a fox"}, {"Prompt": "a cat"}])
    monkeypatch.setitem(sys.modules, "datasets", fake)
    source = open_source("hf:nateraw/parti-prompts:train")
    assert source.is_table
    assert [(r.index, r.line, r.value) for r in source.rows] == [
        (0, None, {"Prompt": "a fox"}),
        (1, None, {"Prompt": "a cat"}),
    ]
    assert fake.asked == ("nateraw/parti-prompts", None, "train", True)
    assert HubSplit.parse("hf:a/b:c:d") == HubSplit("hf:a/b:c:d", "a/b", "c", "d")


def test_hub_errors_are_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", FakeDatasets([{"a": 1}, RuntimeError("gated\nlong story")]))
    rows = open_source("hf:some/set:train").rows
    next(rows)
    with pytest.raises(
        DatasetError, match=r"^hf:some/set:train: RuntimeError: gated; check name, config, split"
    ) as error:
        next(rows)
    assert "\n" not in str(error.value)


def test_without_datasets_the_install_line_is_given(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DatasetError, match=r"pip install 'text2image\[hf\]'"):
        open_source("hf:some/set:train")
