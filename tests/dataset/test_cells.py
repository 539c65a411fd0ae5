"""What a value is: visible text, no value, a path of an image, an id."""

import math
import unicodedata

import pytest

from t2i_core.dataset.bad_row import BadRow
from t2i_core.dataset.cells import cell_list, has_images, is_no_value, is_visible, row_id


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            " ",
            "\t\r\n",
            "\u00a0",
            "\u3000",
            "\u2028",
            "\u200b",
            "\ufeff",
            "\u2060\u200d\u200c",
            "\u00ad",
            "\u034f",
        ),
        *("\u115f", "\u3164", "\uffa0", "\u2800", "\ufe0f", "\U000e0001", "\U000e0100", "\x01", "\x7f", "\x85"),
        " \u200b \ufeff\n",
    ],
)
def test_text_without_a_visible_character_is_blank(text):
    assert not is_visible(text)


def test_text_with_a_visible_character_is_not_blank():
    for text in (
        "a",
        "\u200ba",
        "狐",
        "👩\u200d🚀",
        "ث",
        "\u0600",
        "é",
        "e\u0301",
        ".",
        "\0",
        "\ud83d",
        "\u200b.\u200b",
    ):
        assert is_visible(text)
    for code in range(0x20, 0x3000):
        if unicodedata.category(chr(code))[0] in "LNPS" and code not in (0x115F, 0x1160, 0x2800):
            assert is_visible(chr(code)), hex(code)


def test_what_other_tools_write_for_a_missing_value_is_no_value():
    for text in ("", " ", "nan", "NaN", "NAN", "null", "None", "<NA>", "NaT", " nan\n"):
        assert is_no_value(text)
    for text in ("a", "Nan bread", "none of them", "[]", "0", " " * 50 + "a"):
        assert not is_no_value(text)


@pytest.mark.parametrize("is_table", [True, False])
def test_images_are_paths(is_table):
    for images in ("a.png", " a.png", ["a.png"], [None, "a.png"], ["", "a.png"], '["a.png"]', "[1] a.png", "none.png"):
        assert has_images(images, "images", is_table)
    for images in (None, "", " ", "\u200b", "nan", "NaN", "null", "None", "[]", "[ ]", '[""]', "[null]", '["nan"]'):
        assert not has_images(images, "images", is_table)
    for images in ([], [""], [None], ["nan"], ["null", " "], ["\u200b"]):
        assert not has_images(images, "images", is_table)
    for images in (5, True, math.nan, {"path": "a.png"}, [5], "[5]", [{"path": "a.png"}]):
        with pytest.raises(BadRow, match="neither a list of paths nor a path"):
            has_images(images, "images", is_table)


def test_a_list_as_python_prints_it_is_refused_in_a_table_and_read_for_what_it_names_elsewhere():
    with pytest.raises(BadRow, match=r"json\.dumps"):
        has_images("['']", "images", is_table=True)
    assert has_images("['a.png']", "images", is_table=False)
    for images in ("['']", "[None]", "[nan]", "{}"):
        assert not has_images(images, "images", is_table=False)


def test_a_cell_holds_a_list_as_json():
    assert cell_list(' ["a", 5]', "x") == ["a", 5]
    for value in ("a", "[surreal] a fox", "[1girl]", "{red|white} fox", None, 5, ["a"]):
        assert cell_list(value, "x") == value
    for value, reason in [("['a']", "json.dumps"), ('[{"a": 1', "is not JSON"), ('{"a": 1}', "is an object")]:
        with pytest.raises(BadRow, match=reason):
            cell_list(value, "x")


def test_ids_are_texts_and_whole_numbers():
    for value, expected in [("a", "a"), (7, "7"), (7.0, "7"), (-0.0, "0"), (1e20, "1" + "0" * 20), ("1.0", "1.0")]:
        assert row_id(value, "id") == expected
    for value in (1.5, math.inf, math.nan, True, ["a"], {"a": 1}):
        with pytest.raises(BadRow, match="neither a string nor an integer"):
            row_id(value, "id")
    for value in (None, "", " ", "\u200b"):
        with pytest.raises(BadRow, match="missing or blank"):
            row_id(value, "id")
