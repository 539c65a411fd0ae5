"""The card of an export."""

import io

import pytest
import yaml
from PIL import Image

from t2i_core.export.card import shown_positions
from tests.builders import image_spec

HOSTILE = "a | b\n# <script>alert(1)</script> ![x](y) *c* `d` $e$ [f](g) & \\ ~~h~~"


def card(folder):
    """The YAML head of the card, and the text below it."""
    text = (folder / "README.md").read_text("utf-8")
    _, head, body = text.split("---\n", 2)
    return yaml.safe_load(head), body


def test_the_head_says_how_the_splits_are_found(output):
    rows = [{"id": number} for number in range(12)]
    folder = output.make(*rows).export("parquet", split="train=0.5,val=0.5")
    head, _ = card(folder)
    assert head["license"] == "other"
    assert head["task_categories"] == ["text-to-image"]
    assert head["size_categories"] == ["n<1K"]
    assert head["configs"] == [
        {
            "config_name": "default",
            "data_files": [
                {"split": "train", "path": ["train/*.parquet"]},
                {"split": "val", "path": ["val/*.parquet"]},
            ],
        }
    ]


def test_a_split_without_an_image_is_not_declared(output):
    folder = output.make({}).export("parquet", split="train=0.5,val=0.3,test=0.2")
    head, body = card(folder)
    (entry,) = head["configs"][0]["data_files"]
    assert output.summary["splits"][entry["split"]] == 1
    assert body.count("| 0 |") == 2


def test_a_list_for_understanding_says_so(output):
    head, _ = card(output.make({}).export("llava"))
    assert head["task_categories"] == ["image-to-text"]
    assert "configs" not in head


def test_it_says_counts_model_settings_licence_and_what_was_left_out(output):
    failed = image_spec(2)
    rows = [{}, {"specs": [image_spec(1, steps=8)]}, {}, {"caption": None}]
    _, body = card(output.make(*rows, without=[failed]).export("parquet"))
    for text in (
        "# prompts.jsonl: images by demo",
        "3 images, made from prompts by demo",
        "| steps | 4 (2), 8 (1) |",
        "| size | 8x8 |",
        "FluxPipeline",
        "| LoRA | style.safetensors:0.8 |",
        "Of the model: Apache-2.0",
    ):
        assert text in body
    assert "Left out: 1 (failed)." in body
    assert "| caption | string | column caption of the input |" in body


def test_pictures_are_small_and_show_the_images_beside_them(output):
    output.make(*[{"specs": [image_spec(number, height=256, width=512)]} for number in range(8)])
    folder = output.export("webdataset")
    names = sorted(path.name for path in (folder / ".card").iterdir())
    assert names == [f"{number}.jpg" for number in range(6)]
    for name in names:
        with Image.open(io.BytesIO((folder / ".card" / name).read_bytes())) as image:
            assert image.size == (192, 96)
    _, body = card(folder)
    assert [line.split(" | ")[1].rstrip(" |") for line in body.splitlines() if ".card/" in line] == [
        f"p{number}" for number in (0, 1, 3, 4, 6, 7)
    ]


def test_a_hostile_prompt_is_text_on_one_line_of_the_table(output):
    folder = output.make({HOSTILE: 1, "specs": [image_spec(0, prompt=HOSTILE)]}).export("parquet")
    _, body = card(folder)
    (line,) = [line for line in body.splitlines() if ".card/0.jpg" in line]
    assert "<script>" not in body
    assert line.replace("\\|", "").count("|") == 3
    html = rendered(line.split(" | ", 1)[1].rsplit(" |", 1)[0])
    assert html == " ".join(HOSTILE.split())


def test_prompts_are_cut_to_a_readable_length(output):
    _, body = card(output.make({"specs": [image_spec(0, prompt="word " * 500)]}).export("parquet"))
    (line,) = [line for line in body.splitlines() if ".card/0.jpg" in line]
    assert line.endswith("… |")
    assert len(line) < 400


@pytest.mark.parametrize("count, positions", [(1, [0]), (3, [0, 1, 2]), (6, list(range(6))), (11, [0, 2, 4, 6, 8, 10])])
def test_pictures_are_spread_over_the_data_set(output, count, positions):
    class Counted:
        index = range(count)

    assert shown_positions(Counted()) == positions


def rendered(markdown):
    """The text that Markdown shows: escapes and entities undone."""
    import html
    import re

    return html.unescape(re.sub(r"\\(.)", r"\1", markdown))
