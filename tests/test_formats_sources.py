"""Where records come from: files that stream, files that cannot be opened, hub data sets."""

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

from t2i_core import formats
from t2i_core.errors import DatasetError
from t2i_core.formats import open_records, parse_hub_name
from tests.test_formats import read, write


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ms:some/set", "ModelScope.*download"),
        ("https://example.org/rows.jsonl", "download"),
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
    ],
)
def test_what_cannot_be_opened_is_refused_at_once_in_one_line(tmp_path, monkeypatch, name, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.jsonl").mkdir()
    for present in ("rows.xlsx", "rows.parquet.gz", "rows.pkl"):
        (tmp_path / present).write_bytes(b"x")
    with pytest.raises(DatasetError, match=message) as error:
        open_records(name)
    assert "\n" not in str(error.value)


def test_damaged_archives_are_errors(tmp_path):
    whole = gzip.compress(b'{"a":1}\n' * 5000)
    for content in (whole[:-20], whole[:30] + b"\0\0\0" + whole[33:], b"not gzip"):
        path = tmp_path / "rows.jsonl.gz"
        path.write_bytes(content)
        with pytest.raises(DatasetError, match="gzip"):
            read(path)
    for content in (b"PAR1 no parquet", b""):
        path = tmp_path / "rows.parquet"
        path.write_bytes(content)
        with pytest.raises(DatasetError, match="Parquet"):
            read(path)


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "tsv", "txt"])
def test_text_formats_stream(monkeypatch, suffix):
    """From a file without end, the first records come out, and hardly more was read than they are made of."""
    taken = 0

    def endless(path):
        nonlocal taken
        yield 1, b"prompt\n"
        for taken in itertools.count(1):
            yield taken + 1, b'{"a":1}\n' if suffix == "jsonl" else b"a fox\n"

    monkeypatch.setattr(formats, "_lines", endless)
    records = formats.READERS[f".{suffix}"](Path("rows"))
    assert len(list(itertools.islice(records, 1000))) == 1000
    assert taken <= 1001


def test_parquet_streams_in_batches(tmp_path, monkeypatch):
    pq.write_table(pa.table({"a": range(5000)}), tmp_path / "rows.parquet")
    converted = []
    real = formats._batch_values
    monkeypatch.setattr(formats, "_batch_values", lambda batch: converted.append(batch.num_rows) or real(batch))
    assert next(open_records(str(tmp_path / "rows.parquet")).records).value == {"a": 0}
    assert converted == [formats.PARQUET_BATCH]


@given(st.binary(max_size=300) | st.lists(st.sampled_from([b"{", b'"a"', b"\n", b"\xff", b"\0", b"[1]", b"{}", b"\r"])))
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_are_one_record_a_non_blank_line(tmp_path, content):
    data = content if isinstance(content, bytes) else b"".join(content)
    lines = data.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    expected = sum(bool(line.decode(errors="surrogateescape").strip()) for line in lines)
    for suffix in ("jsonl", "txt"):
        path = write(tmp_path / f"rows.{suffix}", data)
        if expected:
            assert [record.index for record in read(path)] == list(range(expected))
        else:
            with pytest.raises(DatasetError):
                read(path)


@given(st.binary(max_size=300), st.sampled_from(["csv", "tsv", "json", "parquet", "jsonl.gz"]))
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_in_any_format_are_records_or_an_error_for_the_user(tmp_path, content, suffix):
    path = tmp_path / f"rows.{suffix}"
    path.write_bytes(content)
    try:
        records = read(path)
    except DatasetError:
        return
    assert [record.index for record in records] == list(range(len(records)))


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
    source = open_records("hf:nateraw/parti-prompts:train")
    assert source.is_table
    assert [(r.index, r.line, r.value) for r in source.records] == [
        (0, None, {"Prompt": "a fox"}),
        (1, None, {"Prompt": "a cat"}),
    ]
    assert fake.asked == ("nateraw/parti-prompts", None, "train", True)
    assert parse_hub_name("hf:a/b:c:d") == ("a/b", "c", "d")


def test_hub_errors_are_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", FakeDatasets([{"a": 1}, RuntimeError("gated\nlong story")]))
    records = open_records("hf:some/set:train").records
    next(records)
    with pytest.raises(
        DatasetError, match=r"^hf:some/set:train: RuntimeError: gated; check name, config, split"
    ) as error:
        next(records)
    assert "\n" not in str(error.value)


def test_without_datasets_the_install_line_is_given(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DatasetError, match=r"pip install 'text2image\[hf\]'"):
        open_records("hf:some/set:train")
