"""What Prefect shows of a finished run: small, and prompts as data."""

import json

from t2i_core.config import Config
from t2i_core.reports.summary_page import FAILURES_SHOWN, THUMBNAIL_BYTES, failure_rows, summary_markdown
from t2i_core.storage.workspace import Workspace


def summary(run, output, prompts, monkeypatch, *texts, **more):
    import flows.text2image as flow

    seen = []
    original = flow.publish_task
    monkeypatch.setattr(flow, "publish_task", lambda *both, **options: seen.append(both) or original(*both, **options))
    run(dataset=prompts(*texts), **more)
    report, outcome = (argument.unwrap() for argument in seen[0])
    return summary_markdown(report, outcome, Workspace(report.config.output))


def test_prompts_are_shown_as_they_are(run, output, prompts, monkeypatch):
    text = summary(
        run, output, prompts, monkeypatch, "a | *b* <script>x</script> [l](http://x.y) & ![p](q) `c` #1 e@f.g"
    )
    (line,) = [line for line in text.splitlines() if "data:image" in line]
    caption = line.split(" | ", 1)[1].removesuffix(" |")
    assert caption == (r"a \| \*b\* \<script\>x\<\/script\> \[l\]\(http\:\/\/x\.y\) \& \!\[p\]\(q\) \`c\` \#1 e\@f\.g")


def test_thumbnails_are_spread_over_the_images_that_are_there(run, output, prompts, monkeypatch):
    rows = [{"conversations": f"fox {i}", "generation": {"steps": 1}} for i in range(11)]
    rows[3] = {"conversations": 5}
    text = summary(run, output, prompts, monkeypatch, *rows)
    assert [line.split("fox ")[1].rstrip(" |") for line in text.splitlines() if "data:image" in line] == [
        *("0", "1", "4", "6", "8", "10")
    ]
    assert "| 6 of 10 images | |" in text


def test_thumbnails_stay_small_whatever_the_images_are(run, output, prompts, monkeypatch):
    import t2i_core.reports.summary_page as page

    monkeypatch.setattr(page, "THUMBNAIL_BYTES", 5000)
    text = summary(run, output, prompts, monkeypatch, *(f"a fox number {i}" for i in range(8)))
    assert 1 <= text.count("data:image") < 6
    assert len(text) < 7000
    assert THUMBNAIL_BYTES < 100_000


def test_links_are_there_where_the_folder_is_served(run, output, prompts, monkeypatch):
    more = {"public_url": "https://pictures.example/fox/", "manifest_name": "my rows.jsonl"}
    text = summary(run, output, prompts, monkeypatch, "a fox", **more)
    assert "[manifest](https://pictures.example/fox/my%20rows.jsonl)" in text
    assert "[contact sheet](https://pictures.example/fox/contact_sheet.jpg)" in text
    assert "failures.jsonl)" not in text


def test_a_wrong_public_url_is_said():
    try:
        Config.from_values({"public_url": "pictures.example"})
    except ValueError as error:
        assert str(error).startswith("public_url: write an http:// or https:// address")


def test_failures_are_shown_up_to_a_number(tmp_path):
    failure = {"file": "x", "row": 1, "line": None, "field": "prompt", "value": "'a'", "reason": "it is black"}
    lines = [json.dumps(failure | {"row": i, "image": i % 2}) for i in range(FAILURES_SHOWN + 7)]
    (tmp_path / "failures.jsonl").write_text("\n".join(lines) + "\n")
    rows = failure_rows(Workspace(str(tmp_path)))
    assert len(rows) == FAILURES_SHOWN + 1
    assert rows[1] == {"row": 1, "where": "image 1", "field": "prompt", "value": "'a'", "reason": "it is black"}
    assert rows[-1]["reason"] == "7 more in failures.jsonl"
