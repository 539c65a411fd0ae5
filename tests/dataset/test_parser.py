"""Rows parsed from JSONL: prompts, settings, ids and images, or the reason why a row is rejected."""

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from t2i_core.bundled import EXAMPLE_FILE
from t2i_core.config import Config, RowSettings
from t2i_core.dataset.parser import read_rows
from t2i_core.dataset.rows import Prompt, Row
from t2i_core.json_values import parse_json

FOX, KITE = "a fox darting between snow-covered pines at dusk", "a kite surfer riding emerald waves under a cloudy sky"


def user(content: object) -> dict:
    return {"role": "user", "content": content}


def rows_of(path: Path, **options: object) -> list[Row]:
    return list(read_rows(Config(dataset=str(path), **options)))


@pytest.fixture
def read(tmp_path):
    """Rows of a JSONL file with these values; a string is a line as it is."""

    def read(*values: object, **options: object) -> list[Row]:
        path = tmp_path / "rows.jsonl"
        path.write_text("".join((v if isinstance(v, str) else json.dumps(v)) + "\n" for v in values), encoding="utf-8")
        return rows_of(path, **options)

    return read


@pytest.fixture
def one(read):
    """The one row with this conversation, and these other columns."""

    def one(conversation: object, options: dict | None = None, **columns: object) -> Row:
        (row,) = read({"conversations": conversation} | columns, **(options or {}))
        return row

    return one


def texts(row: Row) -> list[tuple[int, str]]:
    assert row.rejection is None, row.rejection
    return [(prompt.condition, prompt.text) for prompt in row.prompts]


def test_the_bundled_example_is_the_default():
    rows = list(read_rows(Config()))
    assert [texts(row) for row in rows[:2]] == [[(0, FOX)], [(0, KITE)]]
    lines = EXAMPLE_FILE.read_text().splitlines()
    assert lines[0] == f'{{"conversations":[{{"role":"user","content":"{FOX}"}}]}}'
    assert lines[1] == f'{{"conversations":[{{"role":"user","content":"{KITE}"}}]}}'
    assert not any(row.rejection or row.has_images for row in rows)
    assert [[prompt.condition for prompt in row.prompts] for row in rows if len(row.prompts) > 1] == [[0, 2]]
    assert RowSettings(seed=7, steps=8) in [row.settings for row in rows]
    assert RowSettings(images_per_prompt=3) in [row.settings for row in rows]


@pytest.mark.parametrize(
    ("conversation", "expected"),
    [
        ([user("a fox")], [(0, "a fox")]),
        ("a fox", [(0, "a fox")]),
        ("[not, a list]", [(0, "[not, a list]")]),
        (["a fox", "a cat"], [(0, "a fox"), (1, "a cat")]),
        ([{"content": "no role"}], [(0, "no role")]),
        ([{"role": None, "content": "null role"}], [(0, "null role")]),
        ([{"role": "system", "content": ""}, user("a"), {"role": "assistant", "content": None}, user("b")],
         [(1, "a"), (3, "b")]),
        ([{"from": "human", "value": "a"}, {"from": "gpt", "value": "ok"}, {"from": "human", "value": "b"}],
         [(0, "a"), (2, "b")]),
        ([{"from": "system", "value": "x"}, {"from": "user", "value": "a"}], [(1, "a")]),
        ([{"role": "user", "content": "a", "from": None, "value": None}], [(0, "a")]),
        ([{"role": None, "content": None, "from": "human", "value": "a"}], [(0, "a")]),
        ([user([{"type": "text", "text": "a fox"}, {"type": "image_url", "image_url": {}}, {"text": "b"}])],
         [(0, "a fox\nb")]),
        ([user(["a fox", {"text": "b"}])], [(0, "a fox\nb")]),
        ([user("  kept as it is \n")], [(0, "  kept as it is \n")]),
        ([user("黄昏时分的狐狸")], [(0, "黄昏时分的狐狸")]),
        ([user("🦊 in the 🌲👩‍🚀")], [(0, "🦊 in the 🌲👩‍🚀")]),
        ([user("ثعلب في الثلج")], [(0, "ثعلب في الثلج")]),
        ([user("x" * 10_000)], [(0, "x" * 10_000)]),
    ],
)  # fmt: skip
def test_conversations_of_every_shape_give_their_prompts(one, conversation, expected):
    assert texts(one(conversation)) == expected


def test_roles_choose_which_messages_are_prompts(one):
    conversation = [{"role": "painter", "content": "a"}, user("b"), {"from": "gpt", "value": "c"}]
    assert texts(one(conversation, {"roles": ["painter", "assistant"]})) == [(0, "a"), (2, "c")]
    assert texts(one(conversation, {"roles": ["gpt"]})) == [(2, "c")]


@pytest.mark.parametrize(
    ("conversation", "field", "reason"),
    [
        (None, "conversations", "is missing"),
        ("", "conversations", "is blank"),
        (" \u3000\n", "conversations", "is blank"),
        ([], "conversations", "has no message"),
        (5, "conversations", "neither a list of messages nor a string"),
        (user("a"), "conversations", "neither a list of messages nor a string"),
        ([None], "conversations[0]", "is not a message"),
        ([user("a"), 5], "conversations[1]", "is not a message"),
        ([user("a"), user("")], "conversations[1].content", "is blank"),
        ([user("a"), user("b"), user(" \t")], "conversations[2].content", "is blank"),
        ([user(None)], "conversations[0].content", "is missing"),
        ([{"role": "user"}], "conversations[0].content", "is missing"),
        ([user(5)], "conversations[0].content", "is not a string"),
        ([user({"text": "a"})], "conversations[0].content", "is not a string"),
        ([{"from": "human", "value": " "}], "conversations[0].value", "is blank"),
        ([{"role": 5, "content": "a"}], "conversations[0].role", "is not a string"),
        ([{"from": ["human"], "value": "a"}], "conversations[0].from", "is not a string"),
        ([user([])], "conversations[0].content", "is blank"),
        ([user([{"type": "image_url", "image_url": {}}])], "conversations[0].content", "is blank"),
        ([user([{"type": "text", "text": 5}])], "conversations[0].content[0].text", "is not a string"),
        ([user([{"type": "text", "text": "a"}, 5])], "conversations[0].content[1]", "is not a part"),
        ([user("a\0b")], "conversations[0].content", "NUL"),
        ([user("a\ud83d")], "conversations[0].content", "surrogate"),
        ([{"role": "system", "content": "a"}, {"from": "gpt", "value": "b"}], "conversations", "of system, gpt; add"),
        ([{"role": "\ud83d\n\0", "content": "a"}], "conversations", r"only of \ud83d\n\x00; add"),
    ],
)  # fmt: skip
def test_conversations_that_cannot_be_used_are_rejected_with_their_index(one, conversation, field, reason):
    row = one(conversation)
    assert row.rejection is not None
    assert row.prompts == ()
    assert row.json is not None
    assert row.rejection.field == field
    assert reason in row.rejection.reason
    str(row.rejection).encode()
    assert "\n" not in str(row.rejection)
    assert len(row.rejection.value) <= 80


def test_a_file_with_every_kind_of_bad_row_is_accounted_for(tmp_path):
    bad: list[bytes] = [
        b"{not json",
        b'{"conversations":[{"role":"user","content":"torn',
        b'{"conversations": NaN}',
        b"\xff\xfe",
        b'{"conversations":"a\0b"}',
        b"null",
        b'"a string"',
        b"[]",
        b"5",
        b"{}",
        b'{"prompt":"a fox"}',
        b'{"conversations":null}',
        b'{"conversations":[]}',
        b'{"conversations":[{"role":"user","content":"  "}]}',
        b'{"conversations":[{"role":"user","content":7}]}',
        b'{"conversations":[{"role":"assistant","content":"a"}]}',
        b'{"conversations":"a\\u0000b"}',
        b'{"conversations":"\\udc00"}',
        b'{"conversations":"a","images":5}',
        b'{"conversations":"a","generation":{"steps":0}}',
        b'{"conversations":"a","generation":"fast"}',
        b'{"conversations":' + b"[" * 5000 + b"]" * 5000 + b"}",
        b'{"conversations":"a","n":' + b"1" * 5000 + b"}",
    ]
    good = '{"conversations":[{"role":"user","content":"狐狸"}],"n":1}'
    skipped = '{"conversations":[{"role":"user","content":"a"}],"images":["a.png"]}'
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"".join(line + b"\n\n" + good.encode() + b"\n" + skipped.encode() + b"\r\n" for line in bad))
    rows = rows_of(path)
    assert [row.index for row in rows] == list(range(3 * len(bad)))
    assert [row.line for row in rows if row.rejection] == [1 + 4 * n for n in range(len(bad))]
    for row in rows:
        kind = (row.rejection is not None, bool(row.prompts), row.has_images)
        assert kind == [(True, False, False), (False, True, False), (False, False, True)][row.index % 3]
        if row.rejection:
            assert row.rejection.row == row.index
            assert "; " in row.rejection.reason, "a reason says what is wrong, then what to do"
            str(row.rejection).encode()
    assert [json.loads(row.json) for row in rows[1::3]] == [json.loads(good)] * len(bad)


def test_a_row_without_the_column_says_which_flag_would_help(read):
    prompt, messages, other, empty = read({"text": "a"}, {"messages": [user("a")]}, {"a\nb": 1}, {})
    assert prompt.rejection.reason == "is missing; the row has text; use --prompt-key text"
    assert messages.rejection.reason == "is missing; the row has messages; use --conversation-key messages"
    assert "a\\nb; name the column" in other.rejection.reason
    assert "nothing" in empty.rejection.reason


def test_a_row_is_kept_as_it_came(read):
    line = '{"z": 1, "conversations": "狐狸", "a": {"y": [1.5, null, true], "b": "\\ud83d", "nul": "\\u0000"}}'
    plain = '{"z": 1, "conversations": "狐狸 \u2028", "é": "🦊"}'
    escaped, readable = read(line, plain)
    assert list(json.loads(escaped.json)) == ["z", "conversations", "a"]
    assert json.loads(escaped.json) == json.loads(line)
    assert escaped.json.isascii()
    assert readable.json == plain


def test_rows_with_images_are_skipped_and_empty_lists_are_not_images(one):
    for images in (["a.png"], ["", "a.png"], "a.png", [None, "a.png"]):
        row = one([user("a")], images=images)
        assert row.has_images and row.prompts == () and row.rejection is None
    assert one(None, images=["a.png"]).has_images
    for images in ([], [""], [" "], "", " ", None, [None]):
        row = one([user("a")], images=images)
        assert not row.has_images and texts(row) == [(0, "a")]
    for images in (5, True, {"path": "a.png"}, [5], [{"path": "a.png"}]):
        assert one([user("a")], images=images).rejection.field == "images"
    assert one("a", {"image_key": "pictures"}, images=["a.png"], pictures=[""]).prompts


def test_row_settings_are_validated_like_the_configuration(one):
    wanted = {
        "seed": 7,
        "negative_prompt": "",
        "steps": 8,
        "guidance_scale": 2,
        "height": 64,
        "width": 32,
        "images_per_prompt": 3,
    }
    assert one("a", generation=wanted).settings == RowSettings(**wanted)
    for nothing in (None, {}, {"steps": None}):
        assert one("a", generation=nothing).settings == RowSettings()
    assert one("a", {"settings_key": "mine"}, generation=5, mine={"seed": 1}).settings == RowSettings(seed=1)
    for value, field, reason in [
        ({"steps": 0}, "generation.steps", "greater than or equal to 1"),
        ({"steps": "8"}, "generation.steps", "valid integer"),
        ({"seed": True}, "generation.seed", "valid integer"),
        ({"seed": 2**60}, "generation.seed", "less than or equal"),
        ({"guidance_scale": -1}, "generation.guidance_scale", "greater than or equal to 0"),
        ({"step": 8}, "generation.step", "did you mean steps?"),
        ({"batch_size": 8, "steps": 2}, "generation.batch_size", "a row may set seed, negative_prompt"),
        ({"scheduler": "DDIMScheduler"}, "generation.scheduler", "a row may set seed"),
        ({"scheduler_options": {"shift": 3}}, "generation.scheduler_options", "a row may set seed"),
        ({"\ud83d": 8}, "generation", "a row may set seed"),
        ({"negative_prompt": "a\0"}, "generation.negative_prompt", "NUL"),
        ({"negative_prompt": "\ud83d"}, "generation.negative_prompt", "surrogate"),
        ([], "generation", "is not an object"),
        ("{}", "generation", "is not an object"),
    ]:  # fmt: skip
        rejection = one("a", generation=value).rejection
        assert rejection.field == field
        assert reason in rejection.reason
        str(rejection).encode()
    assert str(one("a", generation={"steps": 5000}).rejection) == (
        "line 1, generation.steps: input should be less than or equal to 1000; correct it, or leave it out (got 5000)"
    )


def test_an_id_column_names_rows(read):
    good = read(
        {"conversations": "a", "id": "fox"},
        {"conversations": "a", "id": 7},
        {"conversations": "a", "id": "狐"},
        id_key="id",
    )
    assert [row.id for row in good] == ["fox", "7", "狐"]
    bad = read(
        *({"conversations": "a", "id": i} for i in ("", " ", None, 1.5, True, ["a"], "a\0", "\ud83d")), id_key="id"
    )
    assert [row.rejection.field for row in bad] == ["id"] * 8
    assert read({"conversations": "a"}, id_key="id")[0].rejection.reason.startswith("is missing or blank")


def test_a_prompt_column_replaces_the_conversation(read):
    good, part, blank, number, missing = read(
        {"p": "a {prompt}", "conversations": 5}, {"p": '["a"]'}, {"p": " "}, {"p": 5}, {"q": "a"}, prompt_key="p"
    )
    assert texts(good) == [(0, "a {prompt}")]
    assert texts(part) == [(0, '["a"]')]
    assert [row.rejection.field for row in (blank, number, missing)] == ["p"] * 3


def test_a_template_is_put_around_every_prompt_and_both_texts_are_kept(one):
    row = one([user("{prompt} %s {0}"), user("b")], {"prompt_template": "{prompt}, photo, {prompt} {x}"})
    first = "{prompt} %s {0}"
    assert row.prompts == (
        Prompt(0, f"{first}, photo, {first} {{x}}", first),
        Prompt(1, "b, photo, b {x}", "b"),
    )


def test_limit_reads_only_the_first_rows(read):
    rows = read({"conversations": "a"}, "broken", {"conversations": "c"}, limit=2)
    assert [bool(row.rejection) for row in rows] == [False, True]


KEYS = ["role", "content", "from", "value", "type", "text", "seed", "steps"]
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=4)
    | st.sampled_from(["user", "human", "a fox", "text"]),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from(KEYS), inner, max_size=3),
    max_leaves=12,
)  # fmt: skip
row_values = st.dictionaries(
    st.sampled_from(["conversations", "images", "generation", "id", "x"]), json_values, max_size=5
)


@given(st.lists(row_values, min_size=1, max_size=5))
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_json_is_a_row_of_exactly_one_kind(tmp_path, values):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(value) + "\n" for value in values))
    for options in ({}, {"id_key": "id"}, {"prompt_key": "x"}):
        rows = rows_of(path, **options)
        assert [row.index for row in rows] == list(range(len(values)))
        for row, value in zip(rows, values, strict=True):
            assert bool(row.prompts) + row.has_images + (row.rejection is not None) == 1
            if row.json is not None:
                assert json.loads(row.json) == parse_json(json.dumps(value))  # NaN and Infinity are null
                assert "\n" not in row.json
            for text in [row.json or "", str(row.rejection), *(prompt.text for prompt in row.prompts)]:
                text.encode()


@given(st.text(st.characters(codec="utf-8", exclude_characters="\r\0\ufeff"), max_size=200))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_as_jsonl_is_a_row_for_each_line_that_is_not_blank(tmp_path, content):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"conversations":"a"}\n' + content.encode())
    assert len(rows_of(path)) == 1 + sum(bool(line.strip()) for line in content.split("\n"))
