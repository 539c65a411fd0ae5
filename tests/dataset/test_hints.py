"""Hints: what a message tells the user to do works when it is done to the letter."""

import csv
import json
import re
import shlex

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from t2i_core.config import Config
from t2i_core.dataset.hints import as_flag, flag_hint, header_hint, id_hint
from t2i_core.dataset.parser import read_rows
from t2i_core.dataset.rows import Row
from t2i_core.errors import DatasetError
from tests.dataset.test_parser import user

FOX = "a fox in deep snow"
FLAG = re.compile(r"use (--[a-z]+(?:-[a-z]+)*)[ =]((?:'[^']*'|[^\s'])+)")


def write(path, rows):
    """Write the rows in the format that the name says."""
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".csv":
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(rows[0])
            writer.writerows([v if isinstance(v, str) else json.dumps(v) for v in row.values()] for row in rows)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def message_of(path, **options) -> str:
    """The message for the data set, or for its first row."""
    try:
        rows = list(read_rows(Config(dataset=str(path), **options)))
    except DatasetError as error:
        return str(error)
    return str(rows[0].rejection)


def follow(message: str, path, **options) -> list[Row]:
    """Rows as they are read with the flags that a message names; a flag may take another's place."""
    found = {}
    for flag, value in FLAG.findall(message):
        found[flag[2:].replace("-", "_")] = shlex.split(value)[0].rstrip(",;")
    assert found, f"no flag in: {message}"
    if "in place of --prompt-key" in message:
        options.pop("prompt_key")
    if "roles" in found:
        found["roles"] = [found["roles"]]
    return list(read_rows(Config.from_values({**options, **found, "dataset": str(path)})))


def prompts(rows: list[Row]) -> list[list[str]]:
    assert not any(row.rejection for row in rows), [str(row.rejection) for row in rows]
    return [[prompt.text for prompt in row.prompts] for row in rows]


@pytest.mark.parametrize(
    ("rows", "flag", "texts"),
    [
        ([{"prompt": FOX}], "--prompt-key prompt", [[FOX]]),
        ([{"prompt": [user(FOX)], "chosen": [user(FOX), {"role": "assistant", "content": "ok"}]}],
         "--conversation-key prompt", [[FOX]]),
        ([{"messages": [{"role": "developer", "content": "x"}, user(FOX)]}], "--conversation-key messages", [[FOX]]),
        ([{"chat": [{"from": "human", "value": FOX}]}], "--conversation-key chat", [[FOX]]),
        ([{"custom_id": "r-1", "method": "POST", "url": "/v1/chat/completions",
           "body": {"model": "m", "messages": [user(FOX)]}}], "--conversation-key body.messages", [[FOX]]),
        ([{"custom_id": "r-1", "body": {"model": "m", "prompt": FOX, "size": "1024x1024"}}],
         "--prompt-key body.prompt", [[FOX]]),
        ([{"instruction": FOX, "input": "", "output": "some words"}], "--prompt-key instruction", [[FOX]]),
        ([{"instruction": FOX, "generation": "some words", "model_name": "m",
           "distilabel_metadata": {"raw_input": [user("x")]}}], "--prompt-key instruction", [[FOX]]),
        ([{"URL": "https://a.b/c.jpg", "TEXT": FOX, "WIDTH": 5}], "--prompt-key TEXT", [[FOX]]),
        ([{"URL": "https://a.b/c.jpg", "ENG TEXT": FOX}], "--prompt-key 'ENG TEXT'", [[FOX]]),
        ([{"image_id": 7, "caption": FOX}], "--prompt-key caption", [[FOX]]),
        ([{"image_id": 7, "captions": [FOX, "a dog"]}], "--conversation-key captions", [[FOX, "a dog"]]),
        ([{"image_id": 7, "captions": [FOX]}], "--prompt-key captions", [[FOX]]),
        ([{"captions": ["a"]}, {"captions": ["b", "c"]}], "--conversation-key captions", [["a"], ["b", "c"]]),
        ([{"Prompt": "bond", "Category": "Abstract words", "Challenge": "Basic"}], "--prompt-key Prompt", [["bond"]]),
        ([{"id": "1", "prompt_en": FOX, "prompt_cn": "雪"}], "--prompt-key prompt_en", [[FOX]]),
        ([{"id": "1", "prompt_cn": "黄昏时分的狐狸"}], "--prompt-key prompt_cn", [["黄昏时分的狐狸"]]),
        ([{"txt": FOX, "json": {"width": 3}}], "--prompt-key txt", [[FOX]]),
        ([{"caption_llava": FOX, "caption_id": "c-1"}], "--prompt-key caption_llava", [[FOX]]),
        ([{"text_en": FOX, "text_id": "t-1"}], "--prompt-key text_en", [[FOX]]),
        ([{"negative_prompt": "some bad words", "longCaption": FOX}], "--prompt-key longCaption", [[FOX]]),
        ([{"id": 1, "scene": FOX, "path": "/a b/c"}], None, None),
        ([{"id": 1, "scene": FOX, "link": "https://a.b/c"}], "--prompt-key scene", [[FOX]]),
        ([{"meta": {"text": FOX}, "key": "k"}], "--prompt-key meta.text", [[FOX]]),
        ([{"meta": {"text": "some words"}, "messages": [user(FOX)]}], "--conversation-key messages", [[FOX]]),
        ([{"-p": FOX}], "--prompt-key=-p", [[FOX]]),
        ([{"it's": FOX}], "--prompt-key", [[FOX]]),
    ],
)  # fmt: skip
@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_the_flag_that_a_message_names_reads_the_rows(tmp_path, rows, flag, texts, suffix):
    path = write(tmp_path / f"rows{suffix}", rows)
    message = message_of(path)
    if flag is None:
        assert "name the column of prompts with --prompt-key" in message
        return
    if suffix == ".jsonl" and flag == "--conversation-key captions" and len(rows) == 2:
        flag = "--prompt-key captions"  # a message for one row knows no other rows
        texts = texts[:1]
        path = write(path, rows[:1])
    assert f"use {flag}" in message
    if "it's" not in rows[0]:
        assert prompts(follow(message, path)) == texts
    assert Config.from_values({"prompt_key": shlex.split(as_flag("--prompt-key", "it's"))[1]}).prompt_key == "it's"


@pytest.mark.parametrize(
    ("values", "options", "texts"),
    [
        ({"p": ["a fox", "a cat"]}, {"prompt_key": "p"}, ["a fox", "a cat"]),
        ({"p": [user("a fox")]}, {"prompt_key": "p"}, ["a fox"]),
        ({"p": user("a fox")}, {"prompt_key": "p"}, ["a fox"]),
        ({"p": {"messages": [user("a fox")]}}, {"prompt_key": "p"}, ["a fox"]),
        ({"conversations": user("a fox")}, {}, ["a fox"]),
        ({"conversations": {"messages": [user("a fox")]}}, {}, ["a fox"]),
        ({"conversations": [{"role": "system", "content": "x"}, {"role": "the prompter", "content": "a"}]}, {}, ["a"]),
        ({"conversations": "a", "generation": {"text": "b"}}, {}, ["a"]),
        ({"conversations": "a", "generation": {"steps": 1, "prompt": "b"}}, {}, ["a"]),
        ({"conversations": "a", "images": [{"bytes": "b"}]}, {}, ["a"]),
    ],
)
@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_a_value_of_another_kind_is_rejected_with_the_flag_that_reads_it(tmp_path, values, options, texts, suffix):
    path = write(tmp_path / f"rows{suffix}", [values])
    message = message_of(path, **options)
    assert prompts(follow(message, path, **options)) == [texts]


def test_a_hint_never_advises_what_the_user_gave(tmp_path):
    for values in ({"prompt": ["a", "b"]}, {"prompt": [user("a")]}, {"prompt": {"text": "a"}}, {"prompt": 5}, {"x": 1}):
        message = message_of(write(tmp_path / "rows.jsonl", [values]), prompt_key="prompt")
        assert "use --prompt-key prompt" not in re.sub(r"prompt\.\w+", "", message)


def test_a_row_without_the_column_that_other_rows_have_is_told_to_add_it(tmp_path):
    path = write(tmp_path / "rows.jsonl", [{"prompt": "a"}, {"text": "b"}, {"prompt": "c"}])
    rows = list(read_rows(Config(dataset=str(path), prompt_key="prompt")))
    assert rows[1].rejection.reason == "is missing; the row has text; add it, as other rows have it"


def test_a_file_whose_columns_are_called_otherwise_is_not_told_a_flag_that_fails_the_other_files(tmp_path):
    write(tmp_path / "a.csv", [{"prompt": FOX}])
    write(tmp_path / "b.csv", [{"caption": FOX}])
    with pytest.raises(DatasetError, match=r"b\.csv: no column 'prompt'; .* caption; rename the column that is meant"):
        list(read_rows(Config(dataset=str(tmp_path), prompt_key="prompt")))
    with pytest.raises(DatasetError, match=r"a\.csv: no column 'conversations'; .*; use --prompt-key prompt"):
        list(read_rows(Config(dataset=str(tmp_path))))


def test_columns_that_hold_something_else_are_not_advised(tmp_path):
    path = write(tmp_path / "rows.jsonl", [{"scene": FOX, "generation": None}])
    assert "use --prompt-key scene" in message_of(path, settings_key="plan")
    assert flag_hint([{"scene": FOX}], is_table=False, taken=["scene"]) is None
    # What has the default name of the settings may hold prompts.
    path = write(tmp_path / "rows.jsonl", [{"generation": FOX}])
    assert prompts(follow(message_of(path), path)) == [[FOX]]


@pytest.mark.parametrize("name", ["rows.csv", "rows.tsv"])
def test_a_table_without_a_header_is_told_how_to_get_one(tmp_path, name):
    path = tmp_path / name
    lines = f"{FOX}\na cat\n"
    path.write_text(lines)
    message = message_of(path)
    assert (
        "put the line 'prompt' above its first line and use --prompt-key prompt, or rename the file to .txt" in message
    )
    path.write_text("prompt\n" + lines)
    assert prompts(follow(message.partition("; if ")[0], path)) == [[FOX], ["a cat"]]
    text = path.rename(tmp_path / "rows.txt")
    text.write_text(lines)
    assert prompts(list(read_rows(Config(dataset=str(text))))) == [[FOX], ["a cat"]]


def test_a_header_is_known_by_its_names():
    assert header_hint(["prompt"]) is header_hint(["Prompt (English)"]) is header_hint(["id", "scene"]) is None
    assert header_hint(["what should be drawn here", "prompt"]) is None
    for names in (["bond"], ["a caption under a photo of a fox"], ["黄昏时分雪地里的狐狸在奔跑"]):
        assert "above its first line" in header_hint(names)
    for names in (["1", "a caption under a photo"], ["一只狐狸在黄昏时分的雪地里", "7"]):
        assert "does not look like" in header_hint(names) or "not like a header" in header_hint(names)


def test_parquet_has_a_header_always(tmp_path):
    message = message_of(write(tmp_path / "rows.parquet", [{"a column with some words": FOX}]))
    assert message.endswith("use --prompt-key 'a column with some words'")


def test_an_id_column_is_advised_by_its_name(tmp_path):
    path = write(tmp_path / "rows.csv", [{"conversations": "a", "custom_id": "r-1"}])
    message = message_of(path, id_key="id")
    assert message.endswith("use --id-key custom_id, or leave --id-key out")
    assert [row.id for row in follow(message, path)] == ["r-1"]
    path = write(tmp_path / "rows.jsonl", [{"conversations": "a", "key": 7}])
    assert [row.id for row in follow(message_of(path, id_key="id"), path)] == ["7"]
    assert id_hint({"identity": "a", "id": None, "conversations": "a"}) is None


def test_names_that_cannot_be_typed_are_not_advised():
    assert flag_hint([{"a\nprompt": FOX}], is_table=False) is None
    assert flag_hint([{"\ud83d": FOX}], is_table=False) is None


NAMES = ["prompt", "text", "caption_1", "messages", "body", "content", "instruction", "x", "a.b", " id", "generation"]
VALUES = st.recursive(
    st.sampled_from([FOX, "fox", "", "nan", "\u200b", '["a", "b"]', '[{"role": "user", "content": "a"}]', "['a']", 5]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(NAMES), inner, max_size=3)
        | st.builds(user, inner)
    ),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(NAMES), VALUES, min_size=1, max_size=4), st.sampled_from([None, "x", "prompt"]))
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
def test_whatever_a_row_holds_a_flag_that_is_advised_reads_it(tmp_path, suffix, values, key):
    path = write(tmp_path / f"rows{suffix}", [values])
    options = {"prompt_key": key, "settings_key": "none"}
    message = message_of(path, **options)
    assume("use --prompt-key " in message or "use --conversation-key " in message)
    assume(not any(more in message for more in ("put the line", "json.dumps", "remove the blank ones")))
    (row,) = follow(message, path, **options)
    assert row.prompts or "holds messages" in message
