"""A contact sheet of the first images, so that there is something to look at."""

import textwrap
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from t2i_core.store import atomic_write

COLUMNS = 6
CELL = 192
CAPTION = 40
MARGIN = 8
FONT_SIZE = 12


def _fitted(caption: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """The caption on two lines of the cell's width; what does not fit ends in an ellipsis."""
    for characters in range(40, 8, -1):
        lines = textwrap.wrap(caption, characters, max_lines=2, placeholder=" …")
        if all(font.getlength(line) <= CELL for line in lines):
            return "\n".join(lines)
    return ""


def write_contact_sheet(path: Path, images: Sequence[tuple[Path, str]], title: str) -> None:
    """A JPEG of `images` (file, caption), six in a row, each fitted into a 192-pixel cell over its caption."""
    font = ImageFont.load_default(FONT_SIZE)
    rows = -(-len(images) // COLUMNS)
    width = min(len(images), COLUMNS) * (CELL + MARGIN) + MARGIN
    sheet = Image.new("RGB", (width, rows * (CELL + CAPTION + MARGIN) + MARGIN + 24), "white")
    draw = ImageDraw.Draw(sheet)
    draw.text((MARGIN, MARGIN), title, fill="black", font=ImageFont.load_default(FONT_SIZE + 2))
    for i, (file, caption) in enumerate(images):
        x = MARGIN + i % COLUMNS * (CELL + MARGIN)
        y = MARGIN + 24 + i // COLUMNS * (CELL + CAPTION + MARGIN)
        with Image.open(file) as picture:
            scale = CELL / max(picture.size)
            size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
            # Enlarged pixels stay pixels: smoothing would make a small picture look like a bad large one.
            method = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS
            sheet.paste(picture.convert("RGB").resize(size, method), (x, y))
        draw.text((x, y + CELL + 2), _fitted(caption, font), fill="black", font=font)
    with atomic_write(path) as output:
        sheet.save(output, format="JPEG", quality=88)
