"""The pages of the site: none is missing in the navigation, and links lead to pages of the site."""

import shutil
from pathlib import Path

import pytest

from docsite.pages import NAVIGATION, write_pages

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site") / "pages"
    write_pages(ROOT, folder)
    return folder


def test_the_navigation_has_every_page_once(site):
    listed = [name.rpartition("<")[2].rstrip(">") for pages in NAVIGATION.values() for name in pages]
    assert sorted([*listed, "index"]) == sorted(file.stem for file in site.glob("*.md"))


def test_readme_is_the_first_page_and_leads_to_the_others(site):
    index = (site / "index.md").read_text(encoding="utf-8")
    assert index.startswith("# text2image")
    assert "](output.md)" in index
    assert "](contact_sheet.jpg)" in index
    assert (site / "contact_sheet.jpg").is_file()
    assert "](docs/" not in index


def test_a_link_to_the_source_becomes_its_text_and_one_to_readme_leads_to_the_first_page(site):
    index = (site / "index.md").read_text(encoding="utf-8")
    assert "`batch_isolation.py`" in index
    assert "batch_isolation.py](" not in index
    assert "](index.md#what-a-run-leaves)" in (site / "output.md").read_text(encoding="utf-8")


def test_a_link_to_nothing_ends_the_build(tmp_path):
    (tmp_path / "docs").mkdir()
    for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md"):
        shutil.copy(ROOT / name, tmp_path)
    with pytest.raises(FileNotFoundError, match=r"README.md links to docs/contact_sheet.jpg, which does not exist"):
        write_pages(tmp_path, tmp_path / "pages")
