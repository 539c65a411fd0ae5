"""A contact sheet of the first images, so that there is something to look at."""

import io
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from t2i_core.planning.catalog import Picture
from t2i_core.storage.files import atomic_write
from t2i_core.storage.image_store import ImageStore

COLUMNS = 6
CELL = 192  # pixels
CAPTION = 40
MARGIN = 8
TITLE = 24
FONT_SIZE = 12


def write_contact_sheet(path: Path, pictures: Iterable[Picture], images: ImageStore, title: str) -> None:
    """Write a contact sheet of `pictures`; where there is none, remove the sheet of an earlier run."""
    contents = ((images.read(picture.key), picture.prompt) for picture in pictures)
    readable = [(data, prompt) for data, prompt in contents if data is not None]
    if not readable:
        path.unlink(missing_ok=True)
        return
    with atomic_write(path) as file:
        file.write(contact_sheet(readable, title))


def contact_sheet(images: Sequence[tuple[bytes, str]], title: str) -> bytes:
    """Return a JPEG of `images` (content, caption): six in a row, each fitted into a cell over its caption."""
    font = ImageFont.load_default(FONT_SIZE)
    rows = -(-len(images) // COLUMNS)
    width = min(len(images), COLUMNS) * (CELL + MARGIN) + MARGIN
    sheet = Image.new("RGB", (width, rows * (CELL + CAPTION + MARGIN) + MARGIN + TITLE), "white")
    canvas = ImageDraw.Draw(sheet)
    canvas.text((MARGIN, MARGIN), title, fill="black", font=ImageFont.load_default(FONT_SIZE + 2))
    for i, (data, caption) in enumerate(images):
        x = MARGIN + i % COLUMNS * (CELL + MARGIN)
        y = MARGIN + TITLE + i // COLUMNS * (CELL + CAPTION + MARGIN)
        sheet.paste(_fitted_image(data), (x, y))
        canvas.text((x, y + CELL + 2), _fitted_caption(caption, font), fill="black", font=font)
    buffer = io.BytesIO()
    sheet.save(buffer, format="JPEG", quality=88)
    return buffer.getvalue()


def _fitted_image(data: bytes) -> Image.Image:
    """Return an image with its longer side as long as a cell."""
    with Image.open(io.BytesIO(data)) as picture:
        scale = CELL / max(picture.size)
        size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
        # Enlarged pixels stay pixels: smoothing would make a small picture look like a bad large one.
        method = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS
        return picture.convert("RGB").resize(size, method)


def _fitted_caption(caption: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """Return the caption on two lines of a cell's width; what does not fit ends in an ellipsis."""
    for characters in range(40, 8, -1):
        lines = textwrap.wrap(caption, characters, max_lines=2, placeholder=" …")
        if all(font.getlength(line) <= CELL for line in lines):
            return "\n".join(lines)
    return ""
