"""Fonts of a few glyphs: what a machine may have, whatever this one has."""

from pathlib import Path

FONTS = Path(__file__).parents[1] / "data" / "fonts"
ARABIC, CHINESE, EMOJI, HEBREW = (
    (str(FONTS / name), 0)
    for name in ("NotoSansArabic.ttf", "NotoSansCJKsc.otf", "NotoColorEmoji.ttf", "NotoSansHebrew.ttf")
)
ALL = (ARABIC, CHINESE, EMOJI, HEBREW)
