"""The contact sheet: its size, and that each cell holds its picture over its caption."""

import io

import numpy as np
import pytest
from PIL import Image

from t2i_core.output.own_files import OwnFiles
from t2i_core.planning.catalog import Picture
from t2i_core.reports import contact_sheet as module
from t2i_core.reports.contact_sheet import (
    CAPTION,
    CELL,
    COLUMNS,
    MARGIN,
    TITLE,
    Cell,
    contact_sheet,
    fitted_image,
    write_contact_sheet,
)
from t2i_core.reports.fonts import Fonts
from t2i_core.reports.pictures import read_picture
from tests.builders import flip_a_byte, image_spec, store_image
from tests.reports.small_fonts import ALL

COLOURS = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (0, 255, 255), (255, 0, 255), (128, 64, 0)]
NEAR = 12  # a JPEG is not exact


def png(colour, width=16, height=16):
    return fitted_image(Image.new("RGB", (width, height), colour))


@pytest.fixture(autouse=True)
def fonts(monkeypatch):
    """The same fonts on every machine."""
    monkeypatch.setattr(module, "fonts_of_size", lambda size: Fonts(size, ALL))


def sheet(*images, title="demo"):
    """The sheet of (image, caption) as an array (height, width, 3), after a look at its format."""
    cells = [Cell(image, caption, f"row {number}") for number, (image, caption) in enumerate(images)]
    return opened(contact_sheet(cells, title))


def opened(data):
    with Image.open(io.BytesIO(data)) as picture:
        assert picture.format == "JPEG"
        return np.asarray(picture).astype(int)


def cell(pixels, number):
    x = MARGIN + number % COLUMNS * (CELL + MARGIN)
    y = MARGIN + TITLE + number // COLUMNS * (CELL + CAPTION + MARGIN)
    return pixels[y : y + CELL, x : x + CELL], pixels[y + CELL : y + CELL + CAPTION, x : x + CELL]


def shows(area, colour):
    return np.abs(area - np.array(colour)).max() <= NEAR


def is_white(area):
    return area.min() >= 255 - NEAR


@pytest.mark.parametrize(("count", "columns", "rows"), [(1, 1, 1), (5, 5, 1), (6, 6, 1), (7, 6, 2), (24, 6, 4)])
def test_six_images_stand_in_a_row(count, columns, rows):
    pixels = sheet(*[(png("red"), "a fox")] * count)
    assert pixels.shape == (
        rows * (CELL + CAPTION + MARGIN) + MARGIN + TITLE,
        columns * (CELL + MARGIN) + MARGIN,
        3,
    )


def test_each_cell_holds_its_picture():
    pixels = sheet(*((png(colour), "") for colour in COLOURS))
    for number, colour in enumerate(COLOURS):
        picture, caption = cell(pixels, number)
        inner = picture[4:-4, 4:-4]  # colours bleed over the edges
        assert shows(inner, colour), number
        assert is_white(caption[4:]), number
    assert is_white(cell(pixels, len(COLOURS))[0])


@pytest.mark.parametrize(("width", "height"), [(64, 32), (32, 64), (1000, 500), (500, 1000), (1000, 50)])
def test_a_picture_keeps_its_proportions_within_its_cell(width, height):
    picture, _ = cell(sheet((png("blue", width, height), "")), 0)
    scale = CELL / max(width, height)
    shown = (max(1, round(height * scale)), max(1, round(width * scale)))
    blue = (picture[:, :, 2] - picture[:, :, 0]) > 100
    assert blue.any(axis=1).sum() == pytest.approx(shown[0], abs=2)
    assert blue.any(axis=0).sum() == pytest.approx(shown[1], abs=2)
    assert blue[0, 0]


def test_a_picture_as_thin_as_a_line_is_shown_as_one():
    assert not is_white(cell(sheet((png("black", 1000, 1), "")), 0)[0][:2])


def test_pixels_that_are_enlarged_stay_pixels():
    small = Image.fromarray(np.array([[[0] * 3, [255] * 3], [[255] * 3, [0] * 3]], np.uint8))
    picture, _ = cell(sheet((fitted_image(small), "")), 0)
    grey = ((picture > 64) & (picture < 192)).mean()
    assert grey < 0.01
    half = CELL // 2
    assert shows(picture[8 : half - 8, 8 : half - 8], (0, 0, 0))
    assert shows(picture[8 : half - 8, half + 8 : -8], (255, 255, 255))


def test_a_caption_stands_under_its_own_picture():
    pixels = sheet((png("red"), ""), (png("red"), "a fox in the snow"))
    assert is_white(cell(pixels, 0)[1][4:])
    assert cell(pixels, 1)[1].min() < 128


def test_the_title_stands_above():
    height = MARGIN + TITLE - 2
    assert sheet((png("red"), ""), title="a title")[:height].min() < 128
    assert is_white(sheet((png("red"), ""), title="")[:height])


@pytest.mark.parametrize("caption", ["word " * 100, "x" * 500, "狐" * 200, "🦊" * 60, "שועל " * 60])
@pytest.mark.parametrize("note", ["", "image 0, seed 7"])
def test_a_caption_stays_below_its_picture(caption, note):
    image = png("red")
    pixels = opened(contact_sheet([Cell(image, "", "row 0"), Cell(image, caption, "row 1", note)] * 4, "demo"))
    for number in range(8):
        picture, below = cell(pixels, number)
        assert shows(picture[4:-4, 4:-4], (255, 0, 0))
        if number % 2 == 0:
            assert is_white(below[4:])


def without_note(cell):
    return Cell(cell.image, cell.caption, cell.name)


def test_a_note_stands_below_its_caption_which_then_has_one_line():
    noted = Cell(png("red"), "a fox in the snow " * 5, "row 0", "image 1, seed 7")
    below, plain = (cell(opened(contact_sheet([one], "")), 0)[1] for one in (noted, without_note(noted)))
    lines = [slice(4, 18), slice(21, CAPTION)]
    short = cell(opened(contact_sheet([Cell(png("red"), "", "row 0", "image 1, seed 7")], "")), 0)[1]
    assert np.abs(below[lines[1]] - short[4 : 4 + CAPTION - 21]).mean() < 40
    assert np.abs(below[lines[1]] - plain[lines[1]]).mean() > 5
    assert below[lines[0]].min() < 128


def test_a_caption_that_no_font_can_draw_is_the_row_s_name():
    cells = [Cell(png("red"), caption, "row 17") for caption in ("ถ้าสุนัข", "row 17", "狐")]
    pixels = opened(contact_sheet(cells, ""))
    captions = [cell(pixels, number)[1] for number in range(3)]
    assert np.abs(captions[0] - captions[1]).mean() < 2
    assert np.abs(captions[1] - captions[2]).mean() > 2


def stored(workspace, *prompts):
    """Stored pictures of these prompts, each of a row and a seed of its own."""
    return [
        Picture(store_image(workspace, image_spec(i)).key, prompt, row=10 + i, image=i, seed=i)
        for i, prompt in enumerate(prompts)
    ]


@pytest.fixture
def pictures(workspace):
    """Three stored images, one of which has vanished since it was listed."""
    found = stored(workspace, *(f"prompt {i}" for i in range(3)))
    workspace.images.delete(found[1].key)
    return found


@pytest.fixture
def shown(monkeypatch):
    """What contact sheets were made of: [(cells, title)]."""
    seen = []
    original = module.contact_sheet
    monkeypatch.setattr(module, "contact_sheet", lambda *both: seen.append(both) or original(*both))
    return seen


def test_an_image_that_vanished_since_it_was_listed_is_left_out(workspace, pictures, shown):
    write_contact_sheet(OwnFiles(workspace), "sheet.jpg", pictures, workspace.images, "a title", 3)
    cells = [
        Cell(fitted_image(read_picture(picture.key, workspace.images)), picture.prompt, f"row {picture.row}")
        for picture in (pictures[0], pictures[2])
    ]
    assert shown == [(cells, "2 of 3 images, a title")]
    assert (workspace.root / "sheet.jpg").read_bytes() == contact_sheet(cells, "2 of 3 images, a title")


def test_a_damaged_image_is_left_out_named_and_deleted(workspace, shown, caplog):
    pictures = stored(workspace, "a fox", "a cat")
    flip_a_byte(workspace.root / workspace.images.location(pictures[0].key))
    write_contact_sheet(OwnFiles(workspace), "sheet.jpg", pictures, workspace.images, "demo", 2)
    assert [[cell.caption for cell in cells] for cells, _ in shown] == [["a cat"]]
    assert workspace.images.location(pictures[0].key) in caplog.text
    assert workspace.images.read(pictures[0].key) is None  # so that the next run makes it again
    assert workspace.images.read(pictures[1].key) is not None


@pytest.mark.parametrize(("count", "total", "told"), [(1, 1, "1 image"), (2, 2, "2 images"), (2, 40, "2 of 40 images")])
def test_the_title_says_how_many_images_of_all_are_shown(workspace, shown, count, total, told):
    prompts = [f"prompt {i}" for i in range(count)]
    write_contact_sheet(OwnFiles(workspace), "a.jpg", stored(workspace, *prompts), workspace.images, "demo", total)
    assert [title for _, title in shown] == [f"{told}, demo"]


def test_images_of_one_prompt_are_told_apart_by_their_number_and_seed(workspace, shown):
    pictures = stored(workspace, "a fox", "a cat", "a fox")
    write_contact_sheet(OwnFiles(workspace), "sheet.jpg", pictures, workspace.images, "demo", 3)
    ((cells, _),) = shown
    assert [(cell.caption, cell.name, cell.note) for cell in cells] == [
        ("a fox", "row 10", "image 0, seed 0"),
        ("a cat", "row 11", ""),
        ("a fox", "row 12", "image 2, seed 2"),
    ]


def test_the_sheet_of_an_earlier_run_is_removed_where_there_is_no_image(workspace, pictures):
    files = OwnFiles(workspace)
    for none in ([], pictures[1:2]):
        with files.write("sheet.jpg") as file:
            file.write(b"old")
        write_contact_sheet(files, "sheet.jpg", none, workspace.images, "a title", 3)
        assert not (workspace.root / "sheet.jpg").exists()
    write_contact_sheet(files, "sheet.jpg", [], workspace.images, "a title", 0)  # nor is there one to remove


def test_a_sheet_says_that_it_is_ours(workspace, pictures):
    write_contact_sheet(OwnFiles(workspace), "sheet.jpg", pictures, workspace.images, "a title", 3)
    with Image.open(workspace.root / "sheet.jpg") as sheet:
        assert sheet.info["comment"] == b"text2image"
