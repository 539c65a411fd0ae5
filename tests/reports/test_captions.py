"""Lines of text in any script: what is shown, where they wrap, and in which order letters stand."""

import numpy as np
import pytest
from PIL import Image

from t2i_core.reports import captions as module
from t2i_core.reports.captions import Typesetter
from t2i_core.reports.fonts import Face, Fonts
from tests.reports.small_fonts import ALL, HEBREW

SIZE, WIDTH = 12, 192


@pytest.fixture(scope="module")
def typesetter():
    return Typesetter(Fonts(SIZE, ALL))


@pytest.fixture(scope="module")
def alone():
    """With the font that comes along, and no other."""
    return Typesetter(Fonts(SIZE, ()))


@pytest.mark.parametrize("text", ["a fox", "café — “naïve”", "红狐狸", "ثعلب", "שועל", "🦊🐕", "fox 狐 🦊 שועל", ""])
def test_a_text_that_can_be_drawn_is_shown_as_it_is(typesetter, text):
    assert typesetter.drawable(text, "row 17") == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("红狐狸", "row 17"),
        ("🦊!", "row 17"),
        ("ثعلب أحمر", "row 17"),
        ("a poster that reads 你好世界, in red", "row 17: a poster that reads …, in red"),
        ("a fox 🦊 🐕 in the snow", "row 17: a fox … in the snow"),
        ("a lone \ud83d surrogate", "row 17: a lone … surrogate"),
    ],
)
def test_what_no_font_can_draw_is_replaced_by_the_row_s_name(alone, text, shown):
    assert alone.drawable(text, "row 17") == shown


def test_a_text_is_one_line_without_what_only_says_how_to_show_it(typesetter):
    assert typesetter.drawable(" a\n\tfox\u200b\u202b שועל\u202c\0 ", "row 1") == "a fox שועל"
    assert typesetter.drawable("cafe\u0301", "row 1") == "café"


CAPTIONS = [
    "word " * 100,
    "x" * 500,
    "狐" * 200,
    "a fox",
    "",
    "line\nbreak\ttab",
    "W" * 30 + " " + "W" * 30,
    "你好 fox " * 30,
]


@pytest.mark.parametrize("text", CAPTIONS)
@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_text_takes_no_more_lines_and_no_more_width_than_told(typesetter, text, count):
    lines = typesetter.fit(text, WIDTH, count)
    assert len(lines) <= count
    assert all(0 < typesetter.width(line) <= WIDTH for line in lines)


def test_a_short_text_is_whole_and_a_long_one_ends_in_an_ellipsis(typesetter):
    assert typesetter.fit("a fox in the snow", WIDTH, 2) == ["a fox in the snow"]
    first, second = typesetter.fit("word " * 100, WIDTH, 2)
    assert first == " ".join(["word"] * len(first.split()))
    assert second.endswith("word…")
    assert typesetter.fit("a fox in the snow", 60, 1) == ["a fox in…"]


def test_a_line_ends_between_words_and_a_word_that_is_too_long_anywhere(typesetter):
    lines = typesetter.fit("a fox darting between snow-covered pines at dusk", WIDTH, 3)
    assert lines == ["a fox darting between snow-", "covered pines at dusk"]
    assert (
        " ".join(typesetter.fit("a boat on the sea and the moon at night", WIDTH, 3))
        == "a boat on the sea and the moon at night"
    )
    first, second = typesetter.fit("a " + "x" * 50, WIDTH, 2)
    assert (first, set(second)) == ("a", {"x", "…"})


def test_a_line_of_ideographs_ends_between_any_two_but_before_no_comma(typesetter):
    text = "一只红狐狸在雪地里奔跑"
    width = int(typesetter.width(text[:6])) + 1
    assert typesetter.fit(text, width, 2) == [text[:6], text[6:]]
    assert typesetter.fit(text[:6] + "，" + text[6:], width, 2) == [text[:5], text[5] + "，" + text[6:9] + "…"]


def test_a_letter_is_not_parted_from_its_marks(typesetter):
    text = "q\u0301" * 40
    for line in typesetter.fit(text, WIDTH, 2):
        assert not line.startswith("\u0301")
        assert line.rstrip("…").endswith("\u0301")


def test_what_no_font_can_draw_is_left_out_of_a_line(alone):
    assert alone.fit("24 of 40 images, 模型", WIDTH, 1) == ["24 of 40 images,"]


@pytest.mark.parametrize(
    ("line", "levels"),
    [
        ("fox 12", "000000"),
        ("שועל", "1111"),
        ("fox של fox", "0000110000"),
        ("fox של של fox", "0000111110000"),
        ("של fox של", "111222111"),
        ("של 12 של", "11122111"),
        ("fox של 12", "000011122"),
        ("של! a", "11112"),
        ("12 של", "22111"),
        ("!", "0"),
        ("", ""),
    ],
)
def test_each_letter_has_the_level_that_unicode_gives_it(line, levels):
    assert "".join(map(str, module._levels(list(line)))) == levels


@pytest.mark.parametrize(
    ("line", "order"),
    [
        ("fox של 狐", ["fox ", "של", " ", "狐"]),
        ("fox של كلب 狐", ["fox ", "كلب", "של ", " ", "狐"]),
        ("של fox על", ["על", " ", "fox", "של "]),
        ("של 12 كلب", ["كلب", " ", "12", "של "]),
    ],
)
def test_words_stand_from_left_to_right_or_from_right_to_left(typesetter, line, order):
    found = [run.text for run in module._in_visual_order(typesetter._runs(line))]
    assert found == order


def drawn(typesetter, line):
    """The pixels of a line, without the white around it."""
    sheet = Image.new("RGB", (300, 120), "white")
    typesetter.draw(sheet, (10, 80), line)
    pixels = np.asarray(sheet).astype(int)
    rows, columns = np.nonzero((pixels < 200).any(axis=2))
    return pixels[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]


@pytest.mark.parametrize("shapes", [True, False])
def test_hebrew_is_drawn_from_right_to_left_with_the_library_for_directions_or_without(shapes, monkeypatch):
    if not shapes:
        monkeypatch.setattr(module.features, "check", lambda feature: False)
        monkeypatch.setattr(Face, "font", property(lambda face: face._glyphs))
    large = Typesetter(Fonts(60, [HEBREW]))
    first, last, word = (drawn(large, text) for text in ("ש", "ל", "של"))
    assert similar(word[:, : last.shape[1]], last)
    assert similar(word[:, -first.shape[1] :], first)
    assert not similar(word[:, : first.shape[1]], first)


def similar(one, other):
    """Whether two pictures that stand on the same base line show the same letter."""
    height = min(len(one), len(other))
    return np.abs(one[-height:] - other[-height:]).mean() < 20


def test_arabic_letters_are_joined_where_pillow_can_shape(typesetter):
    apart = sum(typesetter.width(letter) for letter in "كلب")
    assert (typesetter.width("كلب") < apart) == bool(typesetter._shapes)


def test_emoji_are_drawn_in_colour_and_as_high_as_the_line(typesetter):
    pixels = drawn(typesetter, "🦊")
    assert np.abs(pixels[..., 0] - pixels[..., 2]).max() > 80
    assert SIZE - 2 <= pixels.shape[0] <= SIZE + 5


def test_the_blank_after_an_emoji_is_no_wider_than_others(typesetter):
    gap = typesetter.width("🦊 a") - typesetter.width("🦊") - typesetter.width("a")
    assert gap == pytest.approx(typesetter.width("a a") - 2 * typesetter.width("a"), abs=1)


@pytest.mark.parametrize("line", ["a fox", "红狐", "שועל", "كلب", "🦊", "— é"])
def test_a_line_is_drawn_as_wide_as_it_was_measured_and_on_its_base_line(typesetter, line):
    sheet = Image.new("RGB", (300, 40), "white")
    typesetter.draw(sheet, (10, 25), line)
    rows, columns = np.nonzero((np.asarray(sheet) < 200).any(axis=2))
    assert columns.min() >= 9
    assert columns.max() - 10 <= typesetter.width(line) + 1
    assert rows.min() >= 25 - SIZE - 3
    assert rows.max() <= 25 + 5
    assert len(columns) > 5
