"""The data set as raw rows: every format gives back what was written, and rows are counted on over all files."""

import io
import itertools
import logging
from contextlib import contextmanager

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from t2i_core.dataset import text
from t2i_core.dataset.data_file import DataFile
from t2i_core.dataset.readers import READERS, open_source
from t2i_core.dataset.reading import NOT_UTF8, Notes
from t2i_core.dataset.sources import FORMATS
from t2i_core.errors import DatasetError
from t2i_core.json_values import json_text, parse_json, plain
from tests.dataset.files import WRITTEN, read, rows_of_prompts, values, write


@pytest.mark.parametrize("suffix", WRITTEN)
@pytest.mark.parametrize("packed", ["", ".gz"])
@pytest.mark.parametrize("bom", ["", "\ufeff"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_every_text_format_gives_back_what_was_written(tmp_path, suffix, packed, bom, end):
    rows = rows_of_prompts()
    path = write(tmp_path / f"rows.{suffix.upper()}{packed}", bom + WRITTEN[suffix](rows).replace("\n", end))
    expected = [{"prompt": row["prompt"]} for row in rows] if suffix == "txt" else rows
    assert values(path) == expected
    assert [row.index for row in read(path)] == list(range(len(rows)))


def test_every_format_has_a_reader():
    assert set(FORMATS.values()) | {"hub"} == set(READERS)


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv", ".tsv", ".txt", ".jsonl.gz", ".txt.zst"])
@pytest.mark.parametrize("content", ["", "\n \r\n", "\ufeff"])
def test_an_input_without_rows_is_an_error(tmp_path, suffix, content):
    with pytest.raises(DatasetError, match="is empty"):
        read(write(tmp_path / f"rows{suffix}", content))


def folder(tmp_path, **files):
    path = tmp_path / "set"
    path.mkdir()
    for name, content in files.items():
        write(path / name.replace("_", "."), content)
    return path


def test_rows_are_counted_on_over_the_files_and_lines_are_those_of_each(tmp_path, caplog):
    caplog.set_level(logging.INFO, "t2i_core")
    path = folder(tmp_path, a_jsonl='{"n": 0}\n\n{"n": 1}\n', b_jsonl_gz='bad\n{"n": 3}\n', notes_md="x")
    a, b = str(path / "a.jsonl"), str(path / "b.jsonl.gz")
    rows = read(path)
    assert [(row.index, row.file, row.line) for row in rows] == [(0, a, 1), (1, a, 3), (2, b, 1), (3, b, 2)]
    assert (rows[2].rejection.row, rows[2].rejection.line) == (2, 1)
    assert caplog.messages == [
        f"data set  2 files, from {a} to {b}",
        f"data set  not read, for their format is not known: {path / 'notes.md'}",
    ]


def test_the_rows_of_a_folder_of_one_file_name_it(tmp_path, caplog):
    caplog.set_level(logging.INFO, "t2i_core")
    path = folder(tmp_path, a_txt="a fox\n")
    assert [row.file for row in read(path)] == [str(path / "a.txt")]
    assert [row.file for row in read(path / "a.txt")] == [None]
    assert caplog.messages == []


def test_each_table_has_a_header_of_its_own(tmp_path):
    path = folder(tmp_path, a_csv="prompt,n\na fox,1\n", b_csv="n,prompt\n2,a cat\n", c_csv="prompt\n")
    assert values(path) == [{"prompt": "a fox", "n": "1"}, {"n": "2", "prompt": "a cat"}]


def test_an_empty_file_among_others_is_no_error(tmp_path):
    assert len(values(folder(tmp_path, a_jsonl="", b_jsonl='{"n": 1}\n'))) == 1
    for path in (tmp_path / "set").iterdir():
        path.write_text("")
    with pytest.raises(DatasetError, match="set: is empty"):
        read(tmp_path / "set")


def test_a_note_is_said_once_for_all_files_with_the_first_place(tmp_path, caplog):
    path = folder(tmp_path, a_txt="a fox\nb\n", b_txt="a\rb\nc\n", c_txt="c\rd\ne\rf\n\n")
    assert len(values(path)) == 6
    kept = "lines hold a carriage return, which is kept as part of the prompt (lines: 3)"
    assert caplog.messages == [f"data set  {path / 'b.txt'}, line 1: {kept}"]


def test_notes_are_said_where_reading_ends_early_or_badly(tmp_path, caplog):
    path = folder(tmp_path, a_txt="a\rb\nc\n", b_txt="PAR1")
    rows = open_source(str(path)).rows
    next(rows)
    rows.close()
    assert len(caplog.messages) == 1
    with pytest.raises(DatasetError, match="is a Parquet file"):
        read(path)
    assert len(caplog.messages) == 2


def test_one_file_in_another_encoding_among_good_ones_is_refused(tmp_path):
    path = folder(tmp_path, a_txt="a fox\n" * 100, b_txt="nuit étoilée\nune forêt enneigée\n".encode("cp1252"))
    with pytest.raises(DatasetError, match=r"b\.txt: is not UTF-8, but most likely CP125"):
        read(path)
    (path / "b.txt").write_bytes("nuit étoilée\na cat\n".encode("cp1252"))
    assert [row.rejection.reason for row in read(path) if row.rejection] == [NOT_UTF8]


@pytest.mark.parametrize("suffix", ["parquet", "jsonl", "csv.gz"])
@pytest.mark.parametrize("name", ["run-10:00", "s3:rows", "file:rows", "~"])
@pytest.mark.parametrize("folder", [".", "data:2", "file:"])
def test_a_path_with_a_colon_or_a_tilde_is_no_url(tmp_path, monkeypatch, folder, name, suffix):
    monkeypatch.chdir(tmp_path)
    path = tmp_path.__class__(folder) / f"{name}.{suffix}"
    path.parent.mkdir(exist_ok=True)
    if suffix == "parquet":
        with path.open("wb") as file:
            pq.write_table(pa.table({"prompt": ["a fox"]}), file)
    else:
        write(path, "prompt\na fox\n" if suffix == "csv.gz" else '{"prompt": "a fox"}\n')
    for dataset in (str(path), str(path.resolve())):
        assert [row.value for row in open_source(dataset).rows] == [{"prompt": "a fox"}]


class Endless(io.RawIOBase):
    """A file without end, of one line again and again; it counts the bytes that were taken."""

    def __init__(self, head, line):
        self.parts, self.taken = itertools.chain([head], itertools.repeat(line * 100)), 0

    def readable(self):
        return True

    def readinto(self, buffer):
        part = next(self.parts)[: len(buffer)]
        buffer[: len(part)] = part
        self.taken += len(part)
        return len(part)


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "tsv", "txt"])
@pytest.mark.parametrize("mark", [b"", b"\xff\xfe"])
def test_text_readers_stream(monkeypatch, suffix, mark):
    """From a file without end, the first rows come out, and hardly more was read than they are made of."""
    encoding = "utf-16-le" if mark else "utf-8"
    line = ('{"a":1}\n' if suffix == "jsonl" else "a fox\n").encode(encoding)
    endless = Endless(mark + "prompt\n".encode(encoding), line)

    @contextmanager
    def opened(self):
        yield io.BufferedReader(endless, 1000)

    monkeypatch.setattr(DataFile, "open", opened)
    monkeypatch.setattr(text, "SAMPLE", 1000)
    rows = READERS[suffix](DataFile("rows", "rows", suffix), Notes())
    assert len(list(itertools.islice(rows, 1000))) == 1000
    # A table looks at its first 10,000 lines before it says what separates its cells.
    assert endless.taken <= (12_000 if suffix in ("csv", "tsv") else 1500) * len(line)


@given(st.binary(max_size=300), st.sampled_from(["csv", "tsv", "json", "parquet", "arrow", "jsonl.gz", "txt.zst"]))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_in_any_format_are_rows_or_an_error_for_the_user(tmp_path, content, suffix):
    path = tmp_path / f"rows.{suffix}"
    path.write_bytes(content)
    try:
        rows = read(path)
    except DatasetError as error:
        assert "\n" not in str(error)
        return
    assert [row.index for row in rows] == list(range(len(rows)))


def test_numpy_values_become_plain_python():
    import numpy as np

    value = {"a": np.array([1, 2]), "b": np.float32(0.5), "c": np.array([{"role": "user"}], dtype=object), 3: {4}}
    assert plain(value) == {"a": [1, 2], "b": 0.5, "c": [{"role": "user"}], "3": "{4}"}


def test_many_brackets_in_text_are_not_depth():
    assert parse_json('{"prompt": "' + "[" * 1000 + '"}') == {"prompt": "[" * 1000}


def test_half_a_surrogate_pair_survives_as_an_escape():
    value = parse_json('{"a":"\\ud83d","é":1}')
    assert json_text(value) == '{"a": "\\ud83d", "\\u00e9": 1}'
    assert json_text({"é": "狐"}) == '{"é": "狐"}'
