"""Columns are found by name, by a name that differs in case or blanks, and by a path."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from t2i_core.config import Config, RowSettings
from t2i_core.dataset.bad_row import ABSENT
from t2i_core.dataset.columns import find, has_column, near_name
from t2i_core.dataset.parser import read_rows
from t2i_core.errors import DatasetError
from tests.dataset.test_parser import texts, user

BATCH = {
    "custom_id": "r-1",
    "method": "POST",
    "body": {"model": "m", "messages": [{"role": "system", "content": "x"}, user("a fox")]},
}


def test_a_path_leads_into_objects():
    assert find(BATCH, "body.messages", is_table=False) == ("body.messages", BATCH["body"]["messages"])
    for key in ("body.prompt", "body.messages.0", "method.x", "x.messages", "body.", ".body", ".", ""):
        assert find(BATCH, key, is_table=False) == (key, ABSENT)


def test_a_column_of_that_very_name_comes_first():
    values = {"a.b": 1, "a": {"b": 2, "b.c": 3, "b ": {"d": 4}}, "A.B": 5}
    assert find(values, "a.b", is_table=False) == ("a.b", 1)
    assert find(values, "a.b.c", is_table=False) == ("a.b.c", 3)
    assert find(values, "a.b .d", is_table=False) == ("a.b .d", 4)
    assert find({"a": {"b": 2}, "A.B": 5}, "a.b", is_table=False) == ("a.b", 2)


def test_null_is_a_value():
    assert find({"a": None}, "a", is_table=False) == ("a", None)
    assert find({"a": {"b": None}}, "a.b", is_table=False) == ("a.b", None)
    assert find({"a": None}, "a.b", is_table=False) == ("a.b", ABSENT)


def test_names_that_differ_in_case_blanks_or_a_byte_order_mark_are_found():
    for name in ("Prompt", "PROMPT", " prompt", "prompt\t", "\ufeffprompt", "\ufeff Prompt "):
        assert near_name({"x": 1, name: 2}, "prompt") == name
        assert find({name: 2}, "prompt", is_table=False) == (name, 2)
        assert find({"body": {name: 2}}, "Body.prompt", is_table=False) == (f"body.{name}", 2)
    assert near_name({"Prompt": 1, "PROMPT": 2}, "prompt") is None
    assert near_name({"prompts": 1, "my prompt": 2}, "prompt") is None


def test_only_a_table_holds_objects_as_text():
    cell = json.dumps({"messages": [user("a")]})
    assert find({"body": cell}, "body.messages", is_table=True) == ("body.messages", [user("a")])
    assert find({"body": cell}, "body.messages", is_table=False) == ("body.messages", ABSENT)
    for broken in ("{torn", "[1]", "text", None):
        assert find({"body": broken}, "body.messages", is_table=True)[1] is ABSENT


def test_a_table_has_a_column_that_may_hold_a_path():
    assert has_column({"body": None}, "body.messages")
    assert has_column({"Body ": None}, "body.messages")
    assert not has_column({"bodies": None}, "body.messages")


@pytest.mark.parametrize("suffix", ["jsonl", "json", "csv", "parquet"])
def test_paths_serve_for_conversations_prompts_ids_and_settings(tmp_path, suffix):
    rows = [{"meta": {"id": n, "g": {"seed": n}}, "body": {"messages": [user("a fox")], "p": "a cat"}} for n in (1, 2)]
    path = tmp_path / f"rows.{suffix}"
    if suffix == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif suffix == "csv":
        cells = [",".join('"' + json.dumps(value).replace('"', '""') + '"' for value in row.values()) for row in rows]
        path.write_text("meta,body\n" + "\n".join(cells))
    else:
        path.write_text(json.dumps(rows) if suffix == "json" else "\n".join(map(json.dumps, rows)))
    keys = {"id_key": "meta.id", "settings_key": "meta.g"}
    for key, text in [({"conversation_key": "body.messages"}, "a fox"), ({"prompt_key": "body.p"}, "a cat")]:
        read = list(read_rows(Config(dataset=str(path), **keys, **key)))
        assert [texts(row) for row in read] == [[(0, text)]] * 2
        assert [row.id for row in read] == ["1", "2"]
        assert [row.settings for row in read] == [RowSettings(seed=1), RowSettings(seed=2)]


def test_messages_name_the_path(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(json.dumps({"body": body}) for body in ({"messages": [user(5)]}, {}, None)))
    number, empty, null = read_rows(Config(dataset=str(path), conversation_key="body.messages"))
    assert number.rejection.field == "body.messages[0].content"
    assert [row.rejection.field for row in (empty, null)] == ["body.messages"] * 2
    assert empty.rejection.reason.startswith("is missing; the row has body; ")


def test_a_table_that_has_no_column_for_a_path_is_one_error(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("id,prompt\n1,a\n")
    with pytest.raises(DatasetError, match=r"no column 'body.messages'; .*use --prompt-key prompt"):
        list(read_rows(Config(dataset=str(path), conversation_key="body.messages")))


@pytest.mark.parametrize(
    ("content", "keys"),
    [
        ("ID,PROMPT\n1,a fox\n2,a cat\n", {"prompt_key": "prompt", "id_key": "id"}),
        ("id, prompt\n1,a fox\n2,a cat\n", {"prompt_key": "prompt", "id_key": "id"}),
        ("Id,Conversations\n1,a fox\n2,a cat\n", {"id_key": "id"}),
        ("id,prompt\n1,a fox\n2,a cat\n", {"prompt_key": " Prompt ", "id_key": "ID"}),
    ],
)
def test_a_near_name_is_read_and_said_once(tmp_path, caplog, content, keys):
    path = tmp_path / "rows.csv"
    path.write_text(content)
    rows = list(read_rows(Config(dataset=str(path), **keys)))
    assert [(row.id, texts(row)) for row in rows] == [("1", [(0, "a fox")]), ("2", [(0, "a cat")])]
    messages = [record.getMessage() for record in caplog.records]
    assert messages and len(messages) == len(set(messages))
    assert all("is read in its place" in message for message in messages)


def test_rows_of_different_spelling_are_read_too(tmp_path, caplog):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"prompt": "a"}\n{"Prompt": "b"}\n{"\\ufeffprompt": "c"}\n{"Prompt": "d"}\n')
    rows = list(read_rows(Config(dataset=str(path), prompt_key="prompt")))
    assert [texts(row) for row in rows] == [[(0, text)] for text in "abcd"]
    assert [json.loads(row.json) for row in rows][1] == {"Prompt": "b"}
    assert len(caplog.records) == 2


def test_a_column_like_that_of_images_is_named_with_its_flag(tmp_path, caplog):
    path = tmp_path / "rows.csv"
    path.write_text("conversations, images\na,a.png\n")
    config = Config(dataset=str(path))
    assert [row.has_images for row in read_rows(config)] == [False]
    assert caplog.messages == ["columns   ' images' is not read as images of the rows; --image-key ' images' does"]
    caplog.clear()
    assert [row.has_images for row in read_rows(Config(dataset=str(path), image_key=" images"))] == [True]
    path.write_text("conversations,Images\na,\nb,5 of them\n".replace("5 of them", "nan"))
    assert [row.has_images for row in read_rows(config)] == [False, False]
    assert not caplog.messages
