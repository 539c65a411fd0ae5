"""The page's model.js in a JavaScript engine: what is found, filtered, sorted and grouped."""

import json

import pytest
import quickjs

from t2i_core.bundled import GALLERY_TEMPLATES

PROMPTS = ["A red fox", "a blue fox\nat night", "An OWL", None]
COLUMNS = {
    "prompt": {"values": PROMPTS[:3], "codes": [0, 1, 2, 0, -1]},
    "status": ["generated", "generated", "reused", "failed", "pending"],
    "seed": ["7", "9007199254740993", "7", "8", None],
    "size": {"same": "8×8"},
    "row": [0, 1, 2, 3, 4],
    "flags": [1, 0, 2, 3, 0],
    "twin": [0, None, None, 0, None],
    "score_clip": [0.3, None, 0.1, 0.2, 0.3],
}
HEAD = {
    "images": 5,
    "text": ["prompt", "status", "seed", "size"],
    "numbers": ["row", "flags", "twin", "score_clip"],
    "flags": ["cut", "duplicate"],
}


@pytest.fixture(scope="module")
def evaluate():
    """Evaluate an expression about `model`, which holds five images."""
    context = quickjs.Context()
    context.eval((GALLERY_TEMPLATES / "model.js").read_text("utf-8"))
    context.eval(f"const model = new Model({json.dumps(HEAD)}); model.add(0, 5, {json.dumps(COLUMNS)});")
    return lambda expression: json.loads(context.eval(f"JSON.stringify({expression})"))


@pytest.fixture
def select(evaluate):
    """Return the positions that a query finds: `select(search="fox")`."""
    return lambda **query: evaluate(f"Array.from(model.select({json.dumps({'least': None, 'most': None} | query)}))")


@pytest.mark.parametrize(
    ("search", "found"),
    [
        ("", [0, 1, 2, 3, 4]),
        ("  ", [0, 1, 2, 3, 4]),
        ("FOX", [0, 1, 3]),
        ("fox red", [0, 3]),
        ('"red fox"', [0, 3]),
        ('"fox red"', []),
        ("fox -blue", [0, 3]),
        ("-fox", [2]),
        ("fo", [0, 1, 3]),
        ("row:2", [2]),
        ("row:2 row:4", [2, 4]),
        ("seed:7 fox", [0]),
        ("seed:9007199254740993", [1]),
        ("seed:9007199254740992", []),
        ('"unclosed', []),
        ("( [ * \\", []),
    ],
)
def test_search(select, search, found):
    assert select(search=search) == found


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ({"flag": "cut"}, [0, 3]),
        ({"flag": "duplicate"}, [2, 3]),
        ({"equal": {"status": "failed"}}, [3]),
        ({"equal": {"size": "8×8", "status": "generated"}}, [0, 1]),
        ({"equal": {"size": "9×9"}}, []),
        ({"seed": "7"}, [0, 2]),
        ({"by": "score_clip", "least": 0.2}, [0, 3, 4]),
        ({"by": "score_clip", "least": 0.2, "most": 0.25}, [3]),
        ({"by": "score_clip"}, [0, 1, 2, 3, 4]),
        ({"by": "unknown", "least": 1}, [0, 1, 2, 3, 4]),
        ({"flag": "cut", "search": "fox", "seed": "8"}, [3]),
    ],
)
def test_filters(select, query, found):
    assert select(**query) == found


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ({"sort": "score_clip"}, [2, 3, 0, 4, 1]),
        ({"sort": "score_clip", "descending": True}, [0, 4, 3, 2, 1]),
        ({"descending": True}, [4, 3, 2, 1, 0]),
        ({"sort": "unknown"}, [0, 1, 2, 3, 4]),
    ],
)
def test_images_without_a_score_come_last_and_equal_ones_in_data_set_order(select, query, found):
    assert select(**query) == found


def test_images_are_grouped_by_prompt_in_the_order_asked_for(evaluate):
    assert evaluate("model.grouped([0, 1, 2, 3, 4])") == [[0, 3], [1], [2], [4]]
    assert evaluate("model.grouped([4, 3, 0, 1])") == [[4], [3, 0], [1]]


def test_variants_twins_flags_and_values(evaluate):
    assert evaluate("[model.variants(3), model.variants(4), model.group('twin', 3), model.group('twin', 1)]") == [
        [0, 3],
        [4],
        [0, 3],
        [],
    ]
    assert evaluate("[model.flags(3), model.flags(1)]") == [["cut", "duplicate"], []]
    values = evaluate(
        "[['prompt', 4], ['score_clip', 1], ['seed', 1], ['x', 0]].map(([name, at]) => model.get(name, at))"
    )
    assert values == [None, None, "9007199254740993", None]


def test_facets_count_the_values_of_a_column_unless_there_are_too_many(evaluate):
    assert evaluate("model.facets('status', 9)") == [["generated", 2], ["reused", 1], ["failed", 1], ["pending", 1]]
    assert evaluate("model.facets('score_clip', 9)") == [["0.3", 2], ["0.1", 1], ["0.2", 1]]
    assert evaluate("model.facets('status', 3)") == []


def test_images_that_are_not_loaded_yet_are_left_out(evaluate):
    assert evaluate(
        f"(() => {{ const part = new Model({json.dumps(HEAD)}); part.add(3, 2, {{ prompt: ['x', 'y'] }});"
        " return [Array.from(part.select({least: null, most: null})), part.loaded]; })()"
    ) == [[3, 4], 2]


def test_every_script_of_the_page_is_javascript():
    for path in GALLERY_TEMPLATES.glob("*.js"):
        text = path.read_text("utf-8")
        quickjs.Context().eval(f"(function () {{ {text}\n }})")
        assert "</" not in text.replace("</script>", ""), path.name
        assert "</script" not in text, path.name
        assert "innerHTML" not in text, path.name
