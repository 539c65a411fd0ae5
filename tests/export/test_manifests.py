"""Lists of images for those who train, read as they read them (`trainer_rules`)."""

import json
from pathlib import Path

import numpy as np
import pytest

from t2i_core.errors import ConfigError
from t2i_core.export.questions import DESCRIBE
from tests.builders import image_spec, picture
from tests.export import trainer_rules

# Columns of an input that mean something to one trainer or another.
ROW = {
    "conversations": [{"role": "user", "content": "p"}], "id": 7, "image": "mine.png", "images": [], "video": "v.mp4",
    "control_path_0": "c.png", "image_path_1": "d.png", "messages": "m", "system": "s", "caption": "mine",
    "prompt": "q", "key": "k", "big": 2**70,
}  # fmt: skip
LISTS = ("diffsynth", "musubi", "llava", "qwen-vl", "llama-factory", "dataflow")


def read(form, output, folder, split="train", media=None):
    """The samples of an export, as its trainer reads them."""
    media = str(media or output.root)
    if form == "llama-factory":
        return trainer_rules.llama_factory(str(folder), split, media)
    if form in ("llava", "qwen-vl"):
        return getattr(trainer_rules, form.replace("-", "_"))(folder / f"{split}.json", media)
    if form == "diffsynth":
        return trainer_rules.diffsynth(folder / f"{split}.jsonl", media)
    reader = trainer_rules.musubi if form == "musubi" else trainer_rules.dataflow_evaluator
    return reader(folder / f"{split}.jsonl")


def shown(sample):
    """The picture of a sample."""
    return np.asarray(next(value for value in sample if hasattr(value, "getpixel")))


@pytest.mark.parametrize("form", LISTS)
@pytest.mark.parametrize("images", ["in-place", "link", "copy"])
def test_its_trainer_reads_pictures_and_texts(output, form, images):
    folder = output.make(ROW, ROW | {"id": 8}, {}).export(form, images=images)
    media = output.root if images == "in-place" else folder
    found = read(form, output, folder, media=media)
    assert len(found) == 3
    for number, sample in enumerate(found):
        assert (shown(sample) == picture(image_spec(number))).all()
        assert f"p{number}" in str(sample)
    assert not list(folder.rglob("*.png")) if images == "in-place" else len(list(folder.rglob("*.png"))) == 3


@pytest.mark.parametrize("form", LISTS)
def test_every_column_of_the_input_goes_along(output, form):
    folder = output.make(ROW, ROW).export(form)
    file = next(folder.glob("train.json*"))
    text = file.read_text("utf-8")
    rows = json.loads(text) if file.suffix == ".json" else [json.loads(line) for line in text.splitlines()]
    values = [value for value in rows[0].values() if not isinstance(value, int)]
    for name, value in ROW.items():
        expected = str(value) if name == "big" else value
        assert expected in values or value in (7, []), name
    assert rows[0].get("input_id", rows[0].get("id")) == 7
    assert rows[0]["seed"] == 0


@pytest.mark.parametrize("form", LISTS)
def test_each_split_has_a_file_and_a_prompt_is_in_one(output, form):
    variants = [{"specs": [image_spec(n, prompt=f"p{n}"), image_spec(n + 100, prompt=f"p{n}")]} for n in range(9)]
    folder = output.make(*variants).export(form, split="train=0.5,val=0.5")
    prompts = []
    for split in ("train", "val"):
        found = read(form, output, folder, split)
        texts = [str([value for value in sample if not hasattr(value, "getpixel")]) for sample in found]
        prompts.append({text.rpartition("'p")[2] for text in texts})
        assert len(found) == output.summary["splits"][split] > 0
    assert not prompts[0] & prompts[1]


def test_a_picture_moves_no_line_when_a_row_is_put_in_before_it(output):
    """A list in place names images by their keys: what a later run makes of names does not matter."""
    folder = output.make({"specs": [image_spec(1)]}).export("diffsynth")
    output.make({"specs": [image_spec(0)]}, {"specs": [image_spec(1)]})
    ((image, text),) = trainer_rules.diffsynth(folder / "train.jsonl", output.root)
    assert (np.asarray(image) == picture(image_spec(1))).all()
    assert text == "p1"


@pytest.mark.parametrize("form", ["llava", "qwen-vl", "llama-factory"])
def test_a_text_that_holds_the_mark_of_a_picture_is_left_out_with_the_reason(output, form):
    rows = [{"specs": [image_spec(0, prompt="a <image> in a frame")]}, {"specs": [image_spec(1)]}]
    folder = output.make(*rows).export(form)
    assert len(read(form, output, folder)) == 1
    assert output.summary["dropped"] == {"its text holds <image>, which stands for a picture there": 1}


def test_questions_come_from_a_file_and_each_image_keeps_its_own(output, tmp_path):
    file = tmp_path / "questions.txt"
    file.write_text("# a comment\nWhat is shown?\n\nDescribe it as {style}.\n", "utf-8")
    rows = [{"style": f"style {number}", "specs": [image_spec(number)]} for number in range(12)]
    folder = output.make(*rows).export("llava", questions=str(file))
    before = {name: question for name, _, question, _ in trainer_rules.llava(folder / "train.json", output.root)}
    asked = set(before.values())
    assert "What is shown?" in asked
    assert any(question.startswith("Describe it as style ") for question in asked)
    folder = output.make({"style": "new", "specs": [image_spec(50)]}, *rows[6:]).export("llava", questions=str(file))
    after = {name: question for name, _, question, _ in trainer_rules.llava(folder / "train.json", output.root)}
    assert len(after) == 7
    assert {name: before[name] for name in after if name in before}.items() < after.items()


def test_a_column_in_a_question_cannot_stand_for_a_picture(output, tmp_path):
    file = tmp_path / "questions.txt"
    file.write_text("What of {style}?\n", "utf-8")
    output.make({"style": "a <image> and a <video>"}, {"style": None}, {"style": 3})
    found = trainer_rules.llava(output.export("llava", questions=str(file)) / "train.json", output.root)
    assert sorted(question for _, _, question, _ in found) == ["What of 3?", "What of ?", "What of a  and a ?"]


def test_without_a_file_the_question_asks_for_a_description(output):
    folder = output.make({}).export("llava")
    ((_, _, question, answer),) = trainer_rules.llava(folder / "train.json", output.root)
    assert question in DESCRIBE.texts
    assert answer == "p0"


def test_an_instruction_for_the_editing_pipeline_comes_from_a_column(output, tmp_path):
    file = tmp_path / "instructions.txt"
    file.write_text("{edit}\n", "utf-8")
    folder = output.make({"edit": "make it night"}).export("dataflow", questions=str(file))
    ((image, instruction),) = trainer_rules.dataflow_editing(folder / "train.jsonl")
    assert instruction == "make it night"
    assert (np.asarray(image) == picture(image_spec(0))).all()
    folder = output.export("dataflow")
    ((_, instruction),) = trainer_rules.dataflow_editing(folder / "train.jsonl")
    assert instruction == "p0"


@pytest.mark.parametrize(
    "text, why",
    [
        (None, "does not exist"),
        ("# only a comment\n\n", "has no question"),
        ("What? <image>\n", "remove <image>"),
        ("What of {styel}?\n", "no column styel"),
    ],
)
def test_questions_that_cannot_be_asked_are_refused(output, tmp_path, text, why):
    file = tmp_path / "questions.txt"
    if text is not None:
        file.write_text(text, "utf-8")
    output.make({"style": "x"})
    with pytest.raises(ConfigError, match=f"questions: .*{why}") as error:
        output.export("llava", questions=str(file))
    assert "\n" not in str(error.value)
    assert not (output.root / "exports" / "llava").exists()


def test_a_format_that_asks_nothing_takes_no_questions(output, tmp_path):
    output.make({})
    with pytest.raises(ConfigError, match="questions: webdataset asks none; those that do are llava, qwen-vl"):
        output.export("webdataset", questions=str(tmp_path / "q.txt"))


@pytest.mark.parametrize("form", ["musubi", "dataflow"])
def test_paths_are_absolute_where_the_trainer_has_no_option_for_their_folder(output, form, monkeypatch):
    monkeypatch.chdir(output.root.parent)
    output.make({})
    folder = output.export(form, output="out")
    row = json.loads((Path("out/exports") / form / "train.jsonl").read_text())
    assert Path(row["image_path" if form == "musubi" else "image"]).is_absolute()
    assert folder == Path("out/exports") / form


def test_converted_images_are_in_the_export(output):
    folder = output.make({}).export("diffsynth", images="copy", image_format="webp")
    ((image, _),) = trainer_rules.diffsynth(folder / "train.jsonl", folder)
    assert (np.asarray(image) == picture(image_spec(0))).all()
    with pytest.raises(ConfigError, match="image_format: images in place stay as they are; add --images copy"):
        output.export("diffsynth", image_format="webp")
