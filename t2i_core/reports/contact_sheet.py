"""A contact sheet of some images, so that there is something to look at."""

import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

from t2i_core.output.own_files import OwnFiles
from t2i_core.planning.catalog import Picture
from t2i_core.reports.captions import Typesetter
from t2i_core.reports.fonts import fonts_of_size
from t2i_core.reports.pictures import read_picture
from t2i_core.storage.image_store import ImageStore
from t2i_core.storage.png import HEADER

COLUMNS = 6
CELL = 192  # pixels
CAPTION = 40
MARGIN = 8
TITLE = 24
FONT_SIZE = 12
TITLE_SIZE = 14
LINE = 18  # from one base line of a caption to the next


@dataclass(frozen=True, slots=True)
class Cell:
    """What a cell of a contact sheet shows."""

    image: Image.Image  # as `fitted_image` returns it
    caption: str
    name: str  # by which to look the caption up, where it cannot be drawn
    note: str = ""  # below the caption


def write_contact_sheet(
    files: OwnFiles, name: str, pictures: Sequence[Picture], images: ImageStore, title: str, total: int
) -> None:
    """Write a contact sheet of `pictures`, of `total` that there are; where there is none, remove an earlier sheet.

    `name`: what it is called in the output.
    """
    prompts = Counter(picture.prompt for picture in pictures)
    cells = []
    for picture in pictures:
        image = read_picture(picture.key, images)
        if image is not None:
            note = f"image {picture.image}, seed {picture.seed}" if prompts[picture.prompt] > 1 else ""
            cells.append(Cell(fitted_image(image), picture.prompt, f"row {picture.row}", note))
    if not cells:
        files.remove(name)
        return
    shown = f"{len(cells)} of {total} images" if len(cells) < total else f"{total} image{'s' if total > 1 else ''}"
    with files.write(name) as file:
        file.write(contact_sheet(cells, f"{shown}, {title}"))


def contact_sheet(cells: Sequence[Cell], title: str) -> bytes:
    """Return a JPEG of `cells`: six in a row, each image over its caption."""
    rows = -(-len(cells) // COLUMNS)
    width = min(len(cells), COLUMNS) * (CELL + MARGIN) + MARGIN
    sheet = Image.new("RGB", (width, rows * (CELL + CAPTION + MARGIN) + MARGIN + TITLE), "white")
    heading = Typesetter(fonts_of_size(TITLE_SIZE))
    for line in heading.fit(title, width - 2 * MARGIN, lines=1):
        heading.draw(sheet, (MARGIN, MARGIN + TITLE_SIZE), line)
    typesetter = Typesetter(fonts_of_size(FONT_SIZE))
    for i, cell in enumerate(cells):
        x = MARGIN + i % COLUMNS * (CELL + MARGIN)
        y = MARGIN + TITLE + i // COLUMNS * (CELL + CAPTION + MARGIN)
        sheet.paste(cell.image, (x, y))
        for number, line in enumerate(_caption_lines(cell, typesetter)):
            typesetter.draw(sheet, (x, y + CELL + FONT_SIZE + 2 + number * LINE), line)
    buffer = io.BytesIO()
    sheet.save(buffer, format="JPEG", quality=88, comment=HEADER)  # by which it is known as ours
    return buffer.getvalue()


def fitted_image(picture: Image.Image) -> Image.Image:
    """Return an image with its longer side as long as a cell."""
    scale = CELL / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    # Enlarged pixels stay pixels: smoothing would make a small picture look like a bad large one.
    return picture.resize(size, Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS)


def _caption_lines(cell: Cell, typesetter: Typesetter) -> list[str]:
    """Return two lines at most: the caption on both, or on the first where a note follows."""
    caption = typesetter.drawable(cell.caption, cell.name)
    notes = typesetter.fit(cell.note, CELL, lines=1)
    return typesetter.fit(caption, CELL, lines=2 - len(notes)) + notes
