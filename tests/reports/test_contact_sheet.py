"""The contact sheet: its size, and that each cell holds its picture over its caption."""

import io

import numpy as np
import pytest
from PIL import Image, ImageFont

from t2i_core.planning.catalog import Picture
from t2i_core.reports import contact_sheet as module
from t2i_core.reports.contact_sheet import (
    CAPTION,
    CELL,
    COLUMNS,
    FONT_SIZE,
    MARGIN,
    TITLE,
    contact_sheet,
    write_contact_sheet,
)
from tests.builders import image_spec, store_image

COLOURS = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (0, 255, 255), (255, 0, 255), (128, 64, 0)]
NEAR = 12  # a JPEG is not exact


def png(colour, width=16, height=16):
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), colour).save(buffer, format="PNG")
    return buffer.getvalue()


def sheet(*images, title="demo"):
    """The sheet as an array (height, width, 3), after a look at its format."""
    with Image.open(io.BytesIO(contact_sheet(images, title))) as picture:
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
    buffer = io.BytesIO()
    small.save(buffer, format="PNG")
    picture, _ = cell(sheet((buffer.getvalue(), "")), 0)
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


@pytest.fixture
def font():
    return ImageFont.load_default(FONT_SIZE)


@pytest.mark.parametrize(
    "caption", ["word " * 100, "x" * 500, "狐" * 200, "a fox", "", "line\nbreak\ttab", "W" * 30 + " " + "W" * 30]
)
def test_a_caption_takes_two_lines_of_a_cell_s_width_at_most(caption, font):
    lines = module._fitted_caption(caption, font).splitlines()
    assert len(lines) <= 2
    assert all(font.getlength(line) <= CELL for line in lines)


def test_a_short_caption_is_whole_and_a_long_one_ends_in_an_ellipsis(font):
    assert module._fitted_caption("a fox in the snow", font) == "a fox in the snow"
    assert module._fitted_caption("word " * 100, font).endswith(" …")


def test_a_picture_with_a_palette_or_an_alpha_channel_is_shown_too():
    buffer = io.BytesIO()
    Image.new("RGBA", (16, 16), (255, 0, 0, 255)).save(buffer, format="PNG")
    assert shows(cell(sheet((buffer.getvalue(), "")), 0)[0][4:-4, 4:-4], (255, 0, 0))


@pytest.fixture
def pictures(workspace):
    """Three stored images, one of which has vanished since it was listed."""
    found = [Picture(store_image(workspace, image_spec(i)).key, f"prompt {i}") for i in range(3)]
    workspace.images.delete(found[1].key)
    return found


def test_an_image_that_vanished_since_it_was_listed_is_left_out(workspace, pictures, tmp_path, monkeypatch):
    seen = []
    original = module.contact_sheet
    monkeypatch.setattr(module, "contact_sheet", lambda *both: seen.append(both) or original(*both))
    write_contact_sheet(tmp_path / "sheet.jpg", pictures, workspace.images, "a title")
    contents = [(workspace.images.read(picture.key), picture.prompt) for picture in (pictures[0], pictures[2])]
    assert seen == [(contents, "a title")]
    assert (tmp_path / "sheet.jpg").read_bytes() == original(contents, "a title")


def test_the_sheet_of_an_earlier_run_is_removed_where_there_is_no_image(workspace, pictures, tmp_path):
    sheet = tmp_path / "sheet.jpg"
    for none in ([], pictures[1:2]):
        sheet.write_bytes(b"old")
        write_contact_sheet(sheet, none, workspace.images, "a title")
        assert not sheet.exists()
    write_contact_sheet(sheet, [], workspace.images, "a title")  # nor is there one to remove
