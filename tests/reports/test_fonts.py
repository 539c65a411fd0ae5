"""Fonts: what the one that comes along can draw, which of the machine's is chosen, and where they are found."""

import os
import shutil
from types import SimpleNamespace

import pytest

from t2i_core.bundled import CAPTION_FONT
from t2i_core.reports import fonts as module
from t2i_core.reports.fonts import HOPELESS, Face, Fonts, font_files, fonts_of_size
from tests.reports.small_fonts import ALL, ARABIC, CHINESE, EMOJI, HEBREW

SIZE = 12


def never():
    """Files that nobody may look at."""
    pytest.fail("the fonts of the machine were looked for")
    yield


@pytest.fixture
def fonts():
    return Fonts(SIZE, ALL)


@pytest.mark.parametrize(
    "text",
    [
        "The quick brown fox, 1234567890", "àéîõüçñß ÀÉÎÕÜ œæø ŁłŹź Ğğ Ññ ẞ", "Tiếng Việt: đỏ", "Ελληνικά ά ώ ἀρχή",
        "Русский Українська ёЁїґ", "— – “quotes” ‘single’ «guillemets» … • · † § № % ‰", "€ £ ¥ ₹ ₽ ₿ © ® ™ ° ± × ÷ ½",
    ],
)  # fmt: skip
def test_the_font_that_comes_along_has_latin_greek_cyrillic_and_punctuation(text):
    fonts = Fonts(SIZE, never())
    assert [character for character in text if fonts.of(character) is not fonts.first] == []


def test_the_font_that_comes_along_is_small_and_has_its_licence_beside_it():
    assert CAPTION_FONT.stat().st_size < 300_000
    assert "SIL OPEN FONT LICENSE" in (CAPTION_FONT.parent / "OFL.txt").read_text("utf-8")


@pytest.mark.parametrize(("character", "file"), [("狐", CHINESE), ("ك", ARABIC), ("ש", HEBREW), ("🦊", EMOJI)])
def test_a_character_is_drawn_in_a_font_that_has_it(fonts, character, file):
    face = fonts.of(character)
    assert face._file == file
    assert face.has(character)
    assert not fonts.first.has(character)
    assert Fonts(SIZE, [other for other in ALL if other != file]).of(character) is None


@pytest.mark.parametrize("character", ["\ue000", "\ud83d", "\U0010ffff", "\u0378"])
def test_a_character_without_a_meaning_has_no_font(character, monkeypatch):
    monkeypatch.setattr(Face, "has", lambda face, text: True)
    assert Fonts(SIZE, ALL).of(character) is None


def test_a_blank_needs_no_glyph(fonts):
    for blank in (" ", "\u3000", "\u200d", "\u00ad"):
        assert fonts.of(blank) is fonts.first


def test_a_mark_counts_like_a_letter(fonts):
    assert fonts.first.has("e\u0301")
    assert not fonts.first.has("1\u20e3")  # which shaping would show as a circle
    assert fonts.of("1\u20e3").is_emoji


def test_what_is_shown_in_colour_by_itself_or_on_request_is_asked_of_emoji_fonts_first(fonts, monkeypatch):
    monkeypatch.setattr(Face, "has", lambda face, text: face is not fonts.first)
    for emoji in ("🦊", "❤\ufe0f", "1\ufe0f\u20e3"):
        assert fonts.of(emoji).is_emoji
    for plain in ("❤", "1", "狐"):
        assert not fonts.of(plain).is_emoji


def test_emoji_of_bitmaps_are_opened_in_the_size_that_they_have(fonts):
    assert fonts.of("🦊").size == 109
    assert fonts.of("狐").size == SIZE * module.OVERSAMPLING


def test_what_is_no_font_is_passed_over(tmp_path):
    torn, text = tmp_path / "torn.ttf", tmp_path / "text.ttf"
    torn.write_bytes(CAPTION_FONT.read_bytes()[:1000])
    text.write_text("no font")
    files = [(str(torn), 0), (str(text), 0), (str(tmp_path / "gone.ttf"), 0), (HEBREW[0], 7), HEBREW]
    fonts = Fonts(SIZE, files)
    assert fonts.of("ש")._file == HEBREW
    assert fonts.of("狐") is None


@pytest.mark.parametrize("family", ["Last Resort", ".LastResort", "Adobe Blank"])
def test_a_font_of_boxes_is_no_font(monkeypatch, family):
    boxes = SimpleNamespace(family=family, style="Regular", is_emoji=False, has=lambda text: True)
    monkeypatch.setattr(module, "_open", lambda file, size: boxes)
    assert Fonts(SIZE, ALL).of("狐") is None


def test_fonts_that_are_easy_to_read_come_first():
    faces = [
        SimpleNamespace(family=family, style=style)
        for family, style in [
            ("Noto Sans CJK SC", "Regular"),
            ("Noto Sans CJK JP", "Regular"),
            ("Noto Sans Hebrew", "Regular"),
            ("Arial Unicode MS", "Regular"),
            ("Noto Serif CJK SC", "Regular"),
            ("Noto Nastaliq Urdu", "Regular"),
            ("Noto Sans CJK SC", "Bold"),
        ]
    ]
    mixed = [faces[i] for i in (4, 6, 0, 3, 5, 1, 2)]
    assert [faces.index(face) for face in sorted(mixed, key=module._preference)] == list(range(7))


@pytest.fixture
def asked(fonts, monkeypatch):
    """What fonts were asked for, since the first one was."""
    texts = []
    original = Face.has
    monkeypatch.setattr(Face, "has", lambda face, text: texts.append(text) or original(face, text))
    return texts


def test_a_script_that_no_font_has_is_given_up_after_a_few_characters(fonts, asked):
    missing = "あいうえおかきくけこ"
    assert [fonts.of(character) for character in missing] == [None] * len(missing)
    searched = [character for character in missing if asked.count(character) > 1]
    assert searched == list(missing[:HOPELESS])
    assert fonts.of("狐") is not None  # another script is another question


def test_a_script_that_a_font_has_is_not_given_up(fonts):
    assert fonts.of("狐") is not None
    assert [fonts.of(character) for character in "鬱鷹龍麟"] == [None] * 4
    assert fonts.of("雪") is not None


def test_a_character_is_looked_for_once(fonts, asked):
    for _ in range(3):
        assert fonts.of("狐") is fonts.of("狐")
    assert asked.count("狐") <= len(ALL) + 1


def test_fonts_are_opened_once_a_process_and_size():
    assert fonts_of_size(SIZE) is fonts_of_size(SIZE)
    assert fonts_of_size(SIZE).size == SIZE


@pytest.fixture
def fc_list(tmp_path, monkeypatch):
    """Put an `fc-list` that writes these lines, or fails, before all others."""

    def put(*lines, code=0):
        folder = tmp_path / "bin"
        folder.mkdir()
        (folder / "lines").write_text("".join(line + "\n" for line in lines))
        (folder / "fc-list").write_text(f"#!/bin/sh\n/bin/cat {folder / 'lines'}\nexit {code}\n")
        (folder / "fc-list").chmod(0o755)
        monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)

    return put


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The one folder in which fonts are looked for."""
    folder = tmp_path / "fonts"
    folder.mkdir()
    monkeypatch.setattr(module, "_font_folders", lambda: iter([folder, tmp_path / "not there"]))
    return folder


def test_fonts_are_those_that_fontconfig_lists(fc_list):
    fc_list("/b/x y.TTF\t0", "/a/all.ttc\t1", "/a/all.ttc\t0", "/c/old.pcf.gz\t0", "/b/x y.TTF\t65536", "odd")
    assert font_files.__wrapped__() == (("/a/all.ttc", 0), ("/a/all.ttc", 1), ("/b/x y.TTF", 0))


@pytest.mark.parametrize("code", [None, 1, 0])
def test_without_fontconfig_or_its_answer_fonts_are_looked_for_in_folders(fc_list, folder, monkeypatch, code):
    if code is None:
        monkeypatch.setenv("PATH", str(folder))
    else:
        fc_list(*(["/a/b.ttf\t0"] if code else []), code=code)
    (folder / "deep").mkdir()
    hebrew = shutil.copy(HEBREW[0], folder / "deep" / "H.TTF")
    chinese = shutil.copy(CHINESE[0], folder / "c.otf")
    (folder / "readme.txt").write_text("no font")
    (folder / "two.ttc").write_bytes(b"ttcf\0\1\0\0\0\0\0\2")
    (folder / "torn.ttc").write_bytes(b"ttcf\0")
    two = str(folder / "two.ttc")
    assert font_files.__wrapped__() == tuple(sorted([(str(hebrew), 0), (str(chinese), 0), (two, 0), (two, 1)]))


@pytest.mark.parametrize(
    ("platform", "expected"), [("linux", "/usr/share/fonts"), ("darwin", "/System/Library/Fonts"), ("win32", "Fonts")]
)
def test_each_kind_of_system_keeps_its_fonts_where_it_does(monkeypatch, platform, expected):
    monkeypatch.setattr(module.sys, "platform", platform)
    folders = [str(folder) for folder in module._font_folders()]
    assert folders[0].endswith(expected)
    assert len(folders) == len(set(folders)) >= 2
