"""The page: valid as XML where it matters, complete, and with nothing from elsewhere."""

import json
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from t2i_core.reports.gallery.charts import histogram
from tests.builders import image_spec


class Reader(HTMLParser):
    """Collects the elements and texts of a page."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.texts = [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_data(self, text):
        self.texts.append(text.strip())


def head_of(text):
    (found,) = re.findall(r"^gallery\.start\((.*)\);$", text, re.MULTILINE)
    return json.loads(found)


def test_the_page_names_every_script_that_there_is(finish, write, page, workspace):
    write(finish(*map(image_spec, range(3))))
    head = head_of(page())
    for kind in ("data", "details"):
        assert [f"{name}.js" for name in head[kind]] == [p.name for p in (workspace.root / "gallery" / kind).iterdir()]
    assert head["images"] == head["counts"]["generated"] == 3


def test_the_page_asks_for_nothing_from_elsewhere(finish, write, page):
    write(finish(image_spec(0)))
    text = page()
    addresses = set(re.findall(r"""https?://[^\s"'<>)]+""", text))
    assert addresses <= {"http://www.w3.org/2000/svg"}
    for tag, attributes in Reader(text).elements:
        assert tag not in ("iframe", "object", "embed", "base")
        assert not {"src", "href"} & attributes.keys() or attributes.get("href") == "data:,", (tag, attributes)


def test_every_id_that_the_scripts_ask_for_is_in_the_page(finish, write, page):
    write(finish(image_spec(0)))
    text = page()
    ids = {attributes["id"] for _, attributes in Reader(text).elements if "id" in attributes}
    assert set(re.findall(r'byId\("([a-z-]+)"\)', text)) <= ids


def test_errors_are_escaped_in_the_report(finish, write, page):
    write(finish(image_spec(0), failed={image_spec(1): "<b>bad</b> & worse"}))
    texts = Reader(page()).texts
    assert "<b>bad</b> & worse" in texts
    assert "<b>bad" not in page()


@pytest.mark.parametrize("name", ["score_<script>alert(1)</script>", "score_'\"", "score_a b"])
def test_names_of_score_columns_are_escaped(finish, write, page, name):
    finished = finish(image_spec(0), image_spec(1))
    table = pq.read_table(finished.provenance).append_column(name, pa.array([0.1, 0.2]))
    pq.write_table(table, finished.provenance)
    write(finished)
    assert name in head_of(page())["sortable"]
    assert "<script>alert" not in page()


def test_a_histogram_is_svg_with_a_bar_and_its_range_for_each_bin():
    values = {"histogram": {"edges": [0, 0.5, 1], "images": [3, 1]}}
    svg = ElementTree.fromstring(histogram(values))
    titles = [title.text for title in svg.iter("{http://www.w3.org/2000/svg}title")]
    assert titles == ["0 to 0.5: 3 images", "0.5 to 1: 1 images"]
    heights = [float(title.get("height")) for title in svg.iterfind(".//*[@class='series']/*")]
    assert heights[0] == pytest.approx(3 * heights[1], rel=0.01)
