"""Parquet and Arrow files: what was written is read back, as a stream; binary columns are left out."""

import datetime
import decimal
import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from t2i_core.dataset import arrow_reader as module
from t2i_core.dataset.binary_columns import BinaryColumns
from t2i_core.dataset.readers import open_source
from t2i_core.dataset.reading import Notes
from t2i_core.dataset.sources import find_parts
from t2i_core.errors import DatasetError
from tests.dataset.files import PROMPTS, read, reasons, values

PNG = b"\x89PNG\r\n\x1a\n\0\0"


def write_parquet(table, path):
    pq.write_table(table, path)


def write_stream(table, path):
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as stream:
        stream.write_table(table, max_chunksize=1000)


def write_arrow_file(table, path):
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as stream:
        stream.write_table(table, max_chunksize=1000)


WRITERS = [write_parquet, write_stream, write_arrow_file]


@pytest.fixture(params=WRITERS, ids=lambda writer: writer.__name__)
def written(request, tmp_path):
    """Write a table: `written(pa.table(...))` -> the path."""

    def write(table):
        path = tmp_path / ("rows.parquet" if request.param is write_parquet else "rows.arrow")
        request.param(table, path)
        return path

    return write


def test_rows_are_read_back(written):
    rows = [{"prompt": prompt, "n": n, "c": [{"role": "user", "content": prompt}]} for n, prompt in enumerate(PROMPTS)]
    assert values(written(pa.Table.from_pylist(rows * 100))) == rows * 100


def test_values_that_json_lacks_become_strings_or_null(written):
    row = {
        "day": datetime.date(2026, 11, 22),
        "time": datetime.datetime(2026, 11, 22, 12, 0, 1),
        "price": decimal.Decimal("1.50"),
        "nan": float("nan"),
        "inf": float("inf"),
    }
    assert values(written(pa.Table.from_pylist([row]))) == [
        {"day": "2026-11-22", "time": "2026-11-22T12:00:01", "price": "1.50", "nan": None, "inf": None}
    ]


def test_binary_columns_are_left_out_and_it_is_said_once(written, caplog):
    rows = [
        {
            "prompt": "a fox",
            "raw": PNG,
            "image": {"bytes": PNG, "path": "a.png"},
            "images": [{"bytes": PNG, "path": None}],
            "text": b"bytes that are text",
            "path": {"bytes": None, "path": "a.png"},
            "nul": b"\0\1",
        }
    ] * 600
    kept = {"prompt": "a fox", "text": "bytes that are text", "path": {"bytes": None, "path": "a.png"}}
    path = written(pa.Table.from_pylist(rows))
    assert values(path) == [kept] * 600
    said = [
        f"data set  {path}: column {name!r} holds binary data, and is left out of the manifest"
        for name in ("raw", "image", "images", "nul")
    ]
    assert sorted(caplog.messages) == sorted(said)


def test_a_column_that_turns_out_binary_later_is_left_out_from_there(written, caplog):
    path = written(pa.table({"prompt": ["a", "b", "c"] * 100, "raw": [None, b"text", PNG] * 100}))
    found = values(path)
    assert len(found) == 300
    assert found[-1] == {"prompt": "c"}
    assert caplog.text.count("'raw' holds binary data") == 1


def test_a_table_of_nothing_else_has_rows_all_the_same(written):
    assert values(written(pa.table({"raw": [PNG] * 300}))) == [{}] * 300


def test_pictures_are_not_even_read(tmp_path, monkeypatch):
    path = tmp_path / "rows.parquet"
    write_parquet(pa.table({"prompt": ["a fox"] * 500, "image": [PNG * 1000] * 500}), path)
    asked = []
    real = pq.ParquetFile.iter_batches

    def iter_batches(self, rows, columns=None):
        asked.append((rows, columns))
        return real(self, rows, columns=columns)

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", iter_batches)
    assert len(values(path)) == 500
    assert asked == [(module.PEEKED_ROWS, ["image"]), (module.CHUNK_ROWS, ["prompt"])]


def test_of_pictures_no_more_is_read_than_shows_that_they_are(monkeypatch):
    random, written = np.random.default_rng(0), io.BytesIO()
    table = pa.table({"prompt": ["a fox"] * 400, "image": [random.bytes(5000) for _ in range(400)]})
    pq.write_table(table, written, row_group_size=40)

    class Counted(io.BytesIO):
        count = 0

        def read(self, size=-1):
            found = super().read(size)
            self.count += len(found)
            return found

    file = Counted(written.getvalue())
    chunks = module._parquet_chunks(file, "rows.parquet", BinaryColumns("rows.parquet", Notes()))
    assert sum(len(chunk) for chunk in chunks) == 400
    assert file.count < len(written.getvalue()) / 4


def test_a_row_that_is_not_utf8_costs_only_itself(written):
    good, bad = b"fine", b"\xff\xff"
    offsets = pa.py_buffer(b"".join(n.to_bytes(4, "little") for n in (0, 4, 6, 10)))
    data = pa.Array.from_buffers(pa.string(), 3, [None, offsets, pa.py_buffer(good + bad + good)])
    path = written(pa.table({"prompt": data}))
    assert list(reasons(path)) == [1]
    assert [row.value for row in read(path)] == [{"prompt": "fine"}, None, {"prompt": "fine"}]


def test_it_streams_in_chunks(written, monkeypatch):
    path = written(pa.table({"a": range(5000)}))
    converted = []
    real = module._chunk_values
    monkeypatch.setattr(module, "_chunk_values", lambda chunk, b: converted.append(chunk.num_rows) or real(chunk, b))
    assert next(open_source(str(path)).rows).value == {"a": 0}
    assert converted == [module.CHUNK_ROWS]


def test_columns_of_one_name_are_an_error(written):
    table = pa.table([["a"], ["b"]], names=["prompt", "prompt"])
    with pytest.raises(DatasetError, match="column 'prompt' appears twice"):
        read(written(table))


def test_a_table_without_rows_is_empty(written):
    with pytest.raises(DatasetError, match="is empty"):
        read(written(pa.table({"prompt": pa.array([], pa.string())})))


@pytest.mark.parametrize("suffix", ["parquet", "arrow"])
def test_a_file_of_something_else_is_an_error_in_one_line(tmp_path, suffix):
    path = tmp_path / f"rows.{suffix}"
    for content in (b"PAR1 no parquet", b"", b"prompt\na fox\n" * 100):
        path.write_bytes(content)
        with pytest.raises(DatasetError) as error:
            read(path)
        assert str(error.value).startswith(f"{path}: cannot be read as {suffix.capitalize()}: ")
        assert str(error.value).endswith("; write or download it again")
        assert "\n" not in str(error.value)


def test_a_torn_file_is_an_error_in_one_line(written):
    path = written(pa.table({"prompt": [f"a fox {n}" for n in range(2000)]}))
    whole = path.read_bytes()
    for content in (whole[: len(whole) * 2 // 3], whole[: len(whole) // 2]):
        path.write_bytes(content)
        with pytest.raises(DatasetError, match=r"cannot be read as \w+: .+; write or download it again$") as error:
            read(path)
        assert "\n" not in str(error.value)


def test_a_damaged_parquet_file_is_an_error_in_one_line(tmp_path):
    path = tmp_path / "rows.parquet"
    write_parquet(pa.table({"prompt": [f"a fox {n}" for n in range(2000)]}), path)
    whole = path.read_bytes()
    for content in (whole[:-1], whole[:200] + bytes(200) + whole[400:]):
        path.write_bytes(content)
        with pytest.raises(DatasetError, match=r"cannot be read as Parquet: .+; write or download it again$"):
            read(path)


def test_a_data_set_that_the_datasets_library_saved_is_read(tmp_path, caplog):
    datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()
    rows = datasets.Dataset.from_dict(
        {"prompt": [f"a fox {n}" for n in range(50)], "image": [{"bytes": PNG, "path": None}] * 50}
    )
    rows = rows.filter(lambda row: row["prompt"] != "a fox 0").shuffle(seed=1)
    rows.save_to_disk(tmp_path / "set", num_shards=3)
    assert len(find_parts(str(tmp_path / "set")).parts) == 3
    assert values(tmp_path / "set") == [{"prompt": prompt} for prompt in rows["prompt"]]
    assert caplog.text.count("'image' holds binary data") == 1
