"""Whatever a data set holds: each row is counted once and in order, or one line says what is wrong with the file."""

import gzip
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from t2i_core.config import Config
from t2i_core.dataset.parser import read_rows
from t2i_core.errors import DatasetError
from tests.fuzz.shapes import JSON, changed, damaged

ROW = {
    "conversations": [{"role": "user", "content": "a fox"}, {"role": "assistant", "content": "yes"}],
    "images": [""],
    "generation": {"seed": 7, "steps": 3, "negative_prompt": "", "height": 64},
    "id": 7,
}
TEXT = "".join(json.dumps(ROW | {"id": i}) + "\n" for i in range(5)).encode()
TABLE = b"prompt,n,images\n" + b"".join(b'"a fox, ""%d""",%d,\n' % (i, i) for i in range(5))


@pytest.fixture
def rows(tmp_path):
    """Read a file of this name and content."""

    def read(name, content):
        path = tmp_path / name
        path.write_bytes(content)
        config = Config.from_values({"dataset": str(path), "model": "demo"})
        try:
            found = list(read_rows(config))
        except DatasetError as error:
            assert str(error).strip()
            assert "\n" not in str(error), error
            return None
        assert [row.index for row in found] == list(range(len(found)))
        for row in found:
            assert row.rejection or row.has_images or row.prompts, row
        return found

    return read


KEPT = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


@KEPT
@given(st.lists(changed(ROW) | JSON, min_size=1, max_size=6))
def test_rows_of_any_shape(rows, values):
    lines = [json.dumps(value) for value in values]
    found = rows("rows.jsonl", ("\n".join(lines) + "\n").encode())
    assert found is None or len(found) == len(lines)


@KEPT
@given(damaged(TEXT) | st.binary(max_size=300))
def test_lines_of_any_bytes(rows, content):
    rows("rows.jsonl", content)
    rows("rows.json", content)


@KEPT
@given(damaged(TABLE) | st.binary(max_size=300))
def test_tables_of_any_bytes(rows, content):
    rows("rows.csv", content)
    rows("rows.tsv", content)
    rows("rows.txt", content)


@KEPT
@given(damaged(gzip.compress(TEXT, mtime=0)))
def test_packed_files_of_any_bytes(rows, content):
    rows("rows.jsonl.gz", content)
