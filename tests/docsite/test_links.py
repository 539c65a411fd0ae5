"""Links of the Markdown files lead somewhere, and what is read in them is what GitHub reads."""

from pathlib import Path

import pytest

from docsite.links import anchors, broken_links, links, with_links

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(file.relative_to(ROOT).as_posix() for file in (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")))


@pytest.mark.parametrize("page", PAGES)
def test_every_link_of_a_page_leads_to_a_file_and_to_a_heading(page):
    assert broken_links(ROOT, page) == []


def test_a_missing_file_and_a_missing_heading_are_found(tmp_path):
    (tmp_path / "docs").mkdir()
    (tmp_path / "README.md").write_text(
        "[a](docs/a.md#there) [b](docs/b.md) [c](docs/a.md#not-there) ![d](docs/d.png) [e](https://x.org) [f](#top)\n"
    )
    (tmp_path / "docs" / "a.md").write_text("# Title\n\n## There\n\n[up](../README.md) [no](#title-1)\n")
    assert broken_links(tmp_path, "README.md") == [
        f"README.md: {target}" for target in ("docs/b.md", "docs/a.md#not-there", "docs/d.png", "#top")
    ]
    assert broken_links(tmp_path, "docs/a.md") == ["docs/a.md: #title-1"]


def test_what_stands_in_code_is_no_link():
    text = "`[a](b)` [c](d) [`e`](f)\n\n```\n[g](h)\n```\n[i](j)\n"
    assert list(links(text)) == ["d", "f", "j"]
    assert with_links(text, lambda whole, text, target: f"<{text}|{target}>") == (
        "`[a](b)` <c|d> <`e`|f>\n\n```\n[g](h)\n```\n<i|j>\n"
    )


def test_anchors_are_those_of_github():
    text = "# `--prepare` it: now!\n## A b\n## A b\n### `.t2i/`, file by file\n```\n# no heading\n```\n"
    assert anchors(text) == {"--prepare-it-now", "a-b", "a-b-1", "t2i-file-by-file"}
