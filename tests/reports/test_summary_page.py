"""What Prefect shows of a run: small, whatever the images are, and prompts as data."""

import base64
import io
import json
import re

import pytest
from markdown_it import MarkdownIt
from PIL import Image

from t2i_core.config import Config
from t2i_core.dataset.rows import Rejection
from t2i_core.errors import ConfigError
from t2i_core.models.presets import PRESETS
from t2i_core.output.accounting import Accounting
from t2i_core.output.layout import Layout, ManifestForm
from t2i_core.output.provenance import PICTURE_FACTS, provenance_of
from t2i_core.reports import summary_page as module
from t2i_core.reports.summary_page import FAILURES_SHOWN, THUMBNAIL_BYTES, failure_rows, summary_markdown
from t2i_core.storage.workspace import Workspace
from tests.builders import flip_a_byte, image_spec, make_catalog, picture, store_image
from tests.reports.conftest import MODEL

LAYOUT = Layout(ManifestForm("manifest.jsonl", "", "images"), named=False)


@pytest.fixture
def page(workspace, report):
    """The page of a run over `rows`, all of whose images are made: `page(image_spec(1), public_url=...)`."""

    def make(*rows, **values):
        for row in rows:
            if not isinstance(row, Rejection):
                store_image(workspace, row)
        catalog = make_catalog(workspace, *rows, run="r1")
        accounting = Accounting()
        for chunk in catalog.row_chunks(PICTURE_FACTS):
            accounting.add(chunk.rows, provenance_of(chunk, catalog, LAYOUT))
        return summary_markdown(report(**{"accounting": accounting} | values), catalog)

    return make


def thumbnails(text):
    """[(picture, caption)] as the page shows them."""
    lines = [line.removeprefix("| ![](").removesuffix(" |") for line in text.splitlines() if "data:image" in line]
    parts = [line.split(") | ", 1) for line in lines]
    return [(uri.removeprefix("data:image/jpeg;base64,"), caption) for uri, caption in parts]


def test_the_page_tells_what_was_made_how_fast_with_what_and_where(page, workspace):
    text = page(image_spec(0), Rejection(1, 2, "prompt", "", "is empty"))
    assert text.splitlines()[0].startswith(r"## 1 images made\, 0 reused\, 1 failures\: see ")
    assert "| rows | 2 | 1 | 0 | 0 | 1 | 0 |" in text
    assert "| images | 1 | 1 | 0 |  | 0 | 0 |" in text
    assert "- **Time** 12.3 s, 0.25 images/s" in text
    assert r"- **Data set** prompts\.jsonl" in text
    assert "- **Model** demo\n" in text
    assert r"- **Licence** Apache\-2\.0" in text
    assert module._plain(str(workspace.root)) in text
    assert "**Open**" not in text


def test_a_model_of_the_hub_is_told_with_its_repository_and_commit(page):
    from dataclasses import replace

    model = replace(MODEL, source="hub", location="owner/name", commit="c" * 40)
    assert f"- **Model** demo\\: owner\\/name at `{'c' * 40}`" in page(image_spec(0), model=model)
    named = Config.from_values({"dataset": "prompts.jsonl", "model": "owner/name"})
    assert f"- **Model** owner\\/name at `{'c' * 40}`" in page(image_spec(0), model=model, config=named)


def test_a_guess_is_told_with_the_name_that_the_user_wrote_and_no_licence_of_another_model(page):
    from dataclasses import replace

    guess = replace(PRESETS["sdxl"], repository="", licence_note="", about="settings of preset sdxl")
    folder = replace(MODEL, source="folder", location="/somewhere/model", licence=None)
    config = Config.from_values({"dataset": "prompts.jsonl", "model": "./model"})
    text = page(image_spec(0), model=folder, preset=guess, config=config)
    assert r"- **Model** \.\/model \(settings of preset sdxl\)" in text
    assert "- **Licence** not stated\n" in text


def test_prompts_are_shown_as_they_are(page):
    prompt = "a | *b* <script>x</script> [l](http://x.y) & ![p](q) `c` #1 e@f.g"
    ((_, caption),) = thumbnails(page(image_spec(0, prompt=prompt)))
    assert caption == (r"a \| \*b\* \<script\>x\<\/script\> \[l\]\(http\:\/\/x\.y\) \& \!\[p\]\(q\) \`c\` \#1 e\@f\.g")


def test_a_prompt_is_one_line_and_cut(page):
    ((_, caption),) = thumbnails(page(image_spec(0, prompt="a fox\n| x |\n" + "word " * 50)))
    assert caption.startswith(r"a fox \| x \| word word")
    assert caption.endswith("…")
    assert len(caption.replace("\\", "")) == module.CAPTION_CHARACTERS


def test_thumbnails_are_spread_over_the_images_that_are_there(page):
    rows = [image_spec(i, prompt=f"fox {i}") for i in range(11)]
    rows[3] = Rejection(3, 4, "conversations", "5", "is no text")
    text = page(*rows)
    assert [caption for _, caption in thumbnails(text)] == [f"fox {i}" for i in (0, 1, 4, 6, 8, 10)]
    assert "| 6 of 10 images | |" in text


def test_a_thumbnail_is_a_small_jpeg_of_its_image(page):
    ((data, _),) = thumbnails(page(image_spec(0, height=256, width=512)))
    with Image.open(io.BytesIO(base64.b64decode(data))) as thumbnail:
        assert (thumbnail.format, thumbnail.size) == ("JPEG", (128, 64))


def test_thumbnails_stay_small_whatever_the_images_are(page, monkeypatch):
    rows = [image_spec(i, height=128, width=128) for i in range(8)]  # noise, which no JPEG makes small
    one = len(module._thumbnail_uri(Image.fromarray(picture(rows[0]))))
    monkeypatch.setattr(module, "THUMBNAIL_BYTES", int(2.5 * one))
    assert len(thumbnails(page(*rows))) == 2
    assert THUMBNAIL_BYTES < 100_000


def test_links_are_there_where_the_folder_is_served(page):
    text = page(image_spec(0), public_url="https://pictures.example/fox/", manifest_name="my rows.jsonl")
    assert "[manifest](https://pictures.example/fox/my%20rows.jsonl)" in text
    assert "[contact sheet](https://pictures.example/fox/contact_sheet.jpg)" in text
    assert "failures.jsonl)" not in text
    assert "gallery" not in text
    text = page(Rejection(0, 1, "prompt", "", "is empty"), public_url="https://pictures.example/fox")
    assert "[failures](https://pictures.example/fox/failures.jsonl)" in text


def test_the_gallery_is_among_the_links_once_it_is_written(page, workspace):
    (workspace.root / "gallery").mkdir(parents=True)
    (workspace.root / "gallery/index.html").write_text("")
    text = page(image_spec(0), public_url="https://pictures.example/fox")
    assert "[gallery](https://pictures.example/fox/gallery/index.html)" in text


def test_cut_prompts_are_told(page):
    assert "- **Cut** 3 images" in page(image_spec(0), accounting=Accounting(images=3, images_cut=3))
    assert "**Cut**" not in page(image_spec(0))


def test_images_that_a_safety_checker_replaced_are_told(page):
    unsafe = Accounting(images=3, images_failed=3, images_unsafe=2)
    assert "- **Safety** 2 of 3 failed images" in page(image_spec(0), accounting=unsafe)
    assert "**Safety**" not in page(image_spec(0))


def test_prompts_that_an_encoder_does_not_know_are_told(page):
    unread = Accounting(images=3, prompts_unread=2, rows_unread=[0, 2], unread_by=["T5EncoderModel"])
    told = "- **Unread** 2 prompts are more than a third unknown to T5EncoderModel (rows 0, 2)\n"
    assert told in page(image_spec(0), accounting=unread)
    assert "**Unread**" not in page(image_spec(0))


def test_a_wrong_public_url_is_refused():
    with pytest.raises(ConfigError, match="public_url: write an http:// or https:// address"):
        Config.from_values({"public_url": "pictures.example"})


FAILURE = {"file": "x", "row": 1, "line": None, "field": "prompt", "value": "'a'", "reason": "it is black"}


def test_failures_are_shown_up_to_a_number(tmp_path):
    lines = [json.dumps(FAILURE | {"row": i, "image": i % 2}) for i in range(FAILURES_SHOWN + 7)]
    (tmp_path / "failures.jsonl").write_text("\n".join(lines) + "\n")
    rows = failure_rows(Workspace(tmp_path))
    assert len(rows) == FAILURES_SHOWN + 1
    assert rows[1] == {"row": 1, "where": "image 1", "field": "prompt", "value": "'a'", "reason": "it is black"}
    assert rows[-1] == {"row": "", "where": "", "field": "", "value": "", "reason": "7 more in failures.jsonl"}


def test_as_many_failures_as_are_shown_need_no_further_row(tmp_path):
    (tmp_path / "failures.jsonl").write_text((json.dumps(FAILURE) + "\n") * FAILURES_SHOWN)
    assert len(failure_rows(Workspace(tmp_path))) == FAILURES_SHOWN


def test_values_of_a_data_set_are_plain_text_in_the_table(tmp_path):
    value = "'![x](https://evil.example/a.png) [y](www.evil.example) <img src=//e> a@evil.example `c` **b** \x1b'"
    (tmp_path / "failures.jsonl").write_text(json.dumps(FAILURE | {"value": value, "reason": value, "field": value}))
    (row,) = failure_rows(Workspace(tmp_path))
    for cell in (row["value"], row["reason"], row["field"]):
        html = MarkdownIt("commonmark").render(cell)
        assert not re.search("<(?!/?p>)", html), html
        assert not re.search(r"(?<!\\)(://|@)|www\.|\x1b", cell), "a renderer may make links of bare addresses"


@pytest.mark.parametrize(
    ("more", "where"),
    [({"line": 8}, "line 8"), ({"line": 8, "image": 2}, "line 8, image 2"), ({"image": 0}, ""), ({}, "")],
)
def test_a_failure_tells_where_it_is(tmp_path, more, where):
    (tmp_path / "failures.jsonl").write_text(json.dumps(FAILURE | more) + "\n")
    assert failure_rows(Workspace(tmp_path))[0]["where"] == where


def test_a_damaged_image_is_no_thumbnail(report, workspace, caplog):
    rows = [image_spec(i, prompt=f"fox {i}") for i in range(3)]
    for row in rows:
        store_image(workspace, row)
    catalog = make_catalog(workspace, *rows)
    flip_a_byte(workspace.root / workspace.images.location(rows[1].key))
    text = summary_markdown(report(accounting=Accounting(images=3, images_generated=3)), catalog)
    assert [caption for _, caption in thumbnails(text)] == ["fox 0", "fox 2"]
    assert workspace.images.location(rows[1].key) in caplog.text
