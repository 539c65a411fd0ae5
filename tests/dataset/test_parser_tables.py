"""Rows from tables, text files and hub data sets, and what names an input."""

import csv
import gzip
import hashlib
import json
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from t2i_core.bundled import EXAMPLE_FILE
from t2i_core.config import Config, RowSettings
from t2i_core.dataset.parser import read_rows
from t2i_core.dataset.sources import find_parts, fingerprint, hashed
from t2i_core.errors import DatasetError, UserError
from tests.dataset.test_hub import FakeDatasets
from tests.dataset.test_parser import rows_of, texts, user


@pytest.mark.parametrize("name", ["rows.csv", "rows.tsv", "rows.parquet", "rows.csv.gz"])
def test_tables_may_hold_json_or_plain_text_in_their_cells(tmp_path, name):
    header = ["conversations", "images", "generation", "id"]
    cells = [
        [json.dumps([user("a fox"), user("狐狸")]), "[]", '{"seed": 7}', "1"],
        ["a plain prompt", "", "", "2"],
        ["[surreal] a fox", '[""]', " ", "3"],
        ["a", '["a.png"]', "", "4"],
        ["a", "a.png", "", "5"],
        ["[{'role': 'user', 'content': 'a'}]", "", "", "6"],
        ['{"role": "user", "content": "a"}', "", "", "7"],
        ["", "", "", "8"],
        ["a", "['']", "", "9"],
        ["a", "", "{seed: 7}", "10"],
        ["a", "", "[7]", "11"],
        ["[1, 2]", "", "", "12"],
    ]
    path = tmp_path / name
    if name == "rows.parquet":
        pq.write_table(pa.Table.from_pylist([dict(zip(header, row, strict=True)) for row in cells]), path)
    elif name == "rows.tsv":
        path.write_text("\n".join("\t".join(row) for row in [header, *cells]), encoding="utf-8")
    else:
        with (gzip.open if name.endswith(".gz") else open)(path, "wt", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([header, *cells])
    rows = rows_of(path, id_key="id")
    assert [texts(row) for row in rows[:3]] == [
        [(0, "a fox"), (1, "狐狸")],
        [(0, "a plain prompt")],
        [(0, "[surreal] a fox")],
    ]
    assert rows[0].settings == RowSettings(seed=7)
    assert json.loads(rows[0].json) == dict(zip(header, cells[0], strict=True))
    assert [row.has_images for row in rows[3:5]] == [True, True]
    fields = [row.rejection.field for row in rows[5:]]
    assert fields == ["conversations"] * 3 + ["images", "generation", "generation", "conversations[0]"]
    assert "json.dumps" in rows[5].rejection.reason


def test_parquet_may_hold_conversations_as_lists(tmp_path):
    values = [
        {
            "conversations": [user("a fox"), {"role": "assistant", "content": "ok"}],
            "images": [],
            "generation": {"seed": 7, "steps": None},
        },
        {"conversations": [{"from": "human", "value": "a cat"}], "images": ["a.png"], "generation": None},
    ]
    pq.write_table(pa.Table.from_pylist(values), tmp_path / "rows.parquet")
    fox, cat = rows_of(tmp_path / "rows.parquet")
    assert texts(fox) == [(0, "a fox")]
    assert fox.settings == RowSettings(seed=7)
    assert cat.has_images


def test_a_table_without_the_column_is_one_error_that_names_the_flag(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("Prompt,Category\na,b\n" * 3)
    with pytest.raises(
        DatasetError, match=r"no column 'conversations'; the data set has Prompt, Category; use --prompt-key Prompt"
    ):
        rows_of(path)
    with pytest.raises(DatasetError, match=r"no column 'caption'; .*; use --prompt-key Prompt"):
        rows_of(path, prompt_key="caption")
    with pytest.raises(DatasetError, match=r"no column 'id'; .*--id-key"):
        rows_of(path, prompt_key="Prompt", id_key="id")
    pq.write_table(pa.table({"x": ["a"]}), tmp_path / "rows.parquet")
    with pytest.raises(DatasetError, match="the data set has x; name the column of prompts with --prompt-key"):
        rows_of(tmp_path / "rows.parquet")


def test_a_text_file_is_a_prompt_a_line(tmp_path):
    path = tmp_path / "rows.txt"
    path.write_bytes('\ufeffa fox\r\n\n["狐狸"]\n'.encode() + b"\xff\n")
    fox, listed, broken = rows_of(path)
    assert texts(fox) == [(0, "a fox")]
    assert texts(listed) == [(0, '["狐狸"]')]
    assert (fox.json, fox.line, listed.line, broken.line) == ('{"prompt": "a fox"}', 1, 3, 4)
    assert "UTF-8" in broken.rejection.reason


def test_what_cannot_be_opened_fails_before_the_first_row():
    for dataset in ("missing.jsonl", "ms:some/set", "rows.pkl", "hf:x"):
        with pytest.raises(UserError):
            read_rows(Config(dataset=dataset))
        with pytest.raises(UserError):
            fingerprint(find_parts(dataset))


def test_the_fingerprint_is_that_of_the_bytes(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"conversations":"a"}\n')
    before = fingerprint(find_parts(str(path)))
    assert before == hashlib.sha256(path.read_bytes()).hexdigest()
    path.write_bytes(b'{"conversations":"b"}\n')
    assert fingerprint(find_parts(str(path))) != before
    assert fingerprint(find_parts("example")) == hashlib.sha256(EXAMPLE_FILE.read_bytes()).hexdigest()


def test_a_hub_data_set_is_read_and_known_by_its_commit(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", FakeDatasets([{"Prompt": "a fox", "n": float("nan")}]))
    config = Config(dataset="hf:some/set:train", prompt_key="Prompt")
    (row,) = read_rows(config)
    assert texts(row) == [(0, "a fox")]
    assert (row.line, row.json) == (None, '{"Prompt": "a fox", "n": null}')

    import huggingface_hub

    def digest(commit: object, dataset: str = config.dataset) -> str:
        def dataset_info(self, name, **_):
            if isinstance(commit, Exception):
                raise commit
            return huggingface_hub.DatasetInfo(id=name, sha=commit)

        monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", dataset_info)
        return fingerprint(hashed(find_parts(dataset)))

    assert digest("one") == digest("one")
    offline = digest(ConnectionError("offline"))
    others = [digest("two"), digest("one", "hf:some/set:test"), digest("one", "hf:some/set:a:train"), offline]
    assert len({digest("one"), *others}) == 5
    assert offline == digest(OSError("offline"))
