"""Image files with their metadata: what `datasets` and trainers of captions read."""

import json
import os
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from datasets import Image, Value, concatenate_datasets, load_dataset

from t2i_core.errors import ConfigError, OutputError
from t2i_core.export.text_files import JsonFile
from t2i_core.storage.formats import decode_image, pixels_digest
from tests.builders import image_spec, picture, store_image

CONVERSATION = [{"role": "user", "content": "p"}]


def lines(path):
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def pixels(row):
    """The digest of the pixels of a row that `datasets` has decoded."""
    return pixels_digest(np.asarray(row["image"].convert("RGB")))


def test_datasets_reads_the_folder_with_every_column_of_the_input(output):
    rows = [{"conversations": CONVERSATION, "id": 7, "tags": ["a", "b"]}, {"conversations": CONVERSATION, "id": 8}]
    folder = output.make(*rows).export("imagefolder")
    data = load_dataset(str(folder), split="train")
    assert data.features["image"] == Image()
    assert data["id"] == [7, 8]
    assert data["tags"] == [["a", "b"], None]
    assert data["conversations"][0] == CONVERSATION
    assert data["text"] == data["prompt"] == ["p0", "p1"]
    assert data["seed"] == [0, 1]
    assert [pixels(row) for row in data] == [pixels_digest(picture(image_spec(number))) for number in range(2)]


def test_datasets_reads_a_split_without_the_card_as_training_scripts_do(output):
    rows = [{"id": number, "rare": "x" if number == 39 else None, "never": None} for number in range(40)]
    folder = output.make(*rows).export("imagefolder", split="train=0.7,val=0.3")
    for split in ("train", "val"):
        data = load_dataset("imagefolder", data_files={"train": f"{folder}/{split}/**"}, split="train")
        assert len(data) == output.summary["splits"][split]
        assert {"image", "text", "id"} <= set(data.features)
    both = load_dataset("imagefolder", data_dir=str(folder))
    assert both["train"].num_rows + both["val" if "val" in both else "validation"].num_rows == 40


def test_a_column_that_is_null_in_every_row_can_be_put_together_with_one_that_is_not(output, tmp_path):
    first = output.make({"note": None}, {"note": None}).export("imagefolder", to=str(tmp_path / "one"))
    second = output.make({"note": "x"}, {"note": None}).export("imagefolder", to=str(tmp_path / "two"))
    one, two = (load_dataset(str(folder), split="train") for folder in (first, second))
    assert one.features["note"] == Value("string")
    assert concatenate_datasets([one, two])["note"] == [None, None, "x", None]
    assert all(value is not None for row in lines(first / "train" / "metadata.jsonl") for value in row.values())


def test_splits_in_which_other_columns_have_values_are_loaded_together(output):
    rows = [{"rare": "x" if number == 0 else None, "o": {"a": 1, "b": None if number else 2}} for number in range(30)]
    folder = output.make(*rows).export("imagefolder", split="a=0.5,b=0.5")
    loaded = load_dataset(str(folder))
    assert loaded["a"].features == loaded["b"].features
    plain = load_dataset("imagefolder", data_files={name: f"{folder}/{name}/**" for name in ("a", "b")})
    assert sum(part.num_rows for part in plain.values()) == 30
    assert "rare" not in plain["a"].features


def test_images_are_links_to_those_of_the_output_or_copies(output):
    folder = output.make({}, {}).export("imagefolder")
    keys = [image_spec(number).key for number in range(2)]
    stored = {output.workspace.images.stat(key).inode for key in keys}
    assert {path.stat().st_ino for path in folder.rglob("*.png")} == stored
    copies = output.export("imagefolder", images="copy", to=str(output.root / "copies"))
    assert not {path.stat().st_ino for path in copies.rglob("*.png")} & stored
    assert {path.read_bytes() for path in copies.rglob("*.png")} == {output.workspace.images.read(key) for key in keys}


def test_images_that_were_looked_at_need_not_be_again_after_they_were_linked(output):
    output.make({}, {})
    checked, store = output.workspace.checked_images, output.workspace.images
    time.sleep(0.05)  # longer than a tick of the clock of files
    output.catalog = replace(output.catalog, scan=checked.note(store.scan(), np.ones(2, bool)))
    assert not checked.marked(store.scan()).unchecked.any()
    for _ in range(2):  # the second one removes the links of the first
        output.export("imagefolder")
        scan = checked.marked(store.scan())
        assert not scan.unchecked.any()
        output.catalog = replace(output.catalog, scan=scan)


def test_a_file_is_named_by_its_image_so_that_no_name_changes_its_meaning(output, tmp_path):
    folder = output.make({}, {}).export("imagefolder", to=str(tmp_path / "one"))
    for row in lines(folder / "train" / "metadata.jsonl"):
        assert decode_image((folder / "train" / row["file_name"]).read_bytes()).record["key"] == row["key"]
        assert row["file_name"] == f"{row['key'][:2]}/{row['key'][:32]}.png"


def test_rows_that_share_an_image_are_samples_of_their_own(output):
    spec = image_spec(0)
    rows = [{"id": 1, "specs": [spec]}, {"id": 2, "specs": [spec]}, {"id": 3, "specs": [spec]}]
    folder = output.make(*rows).export("captions")
    assert sorted(row["id"] for row in lines(folder / "train" / "metadata.jsonl")) == [1, 2, 3]
    stem = spec.key[:32]
    assert sorted(path.name for path in folder.glob("train/*.txt")) == [f"{stem}-1.txt", f"{stem}-2.txt", f"{stem}.txt"]


def test_each_image_has_a_text_file_of_its_name_beside_it(output):
    text = 'a "fox",\nin <b>rain</b> 狐\r\n'
    folder = output.make({"caption": text}, {"caption": "b"}).export("captions", caption="caption")
    found = {path.stem: path.read_bytes().decode() for path in folder.glob("train/*.txt")}
    assert found == {image_spec(0).key[:32]: text, image_spec(1).key[:32]: "b"}
    assert {path.stem for path in folder.glob("train/*.png")} == set(found)
    assert load_dataset(str(folder), split="train")["text"] == [text, "b"]


@pytest.mark.parametrize("image_format, suffix", [("webp", ".webp"), ("jpeg", ".jpg"), ("png", ".png")])
def test_images_are_converted_where_that_was_asked_for(output, image_format, suffix):
    folder = output.make({}).export("imagefolder", image_format=image_format)
    (path,) = folder.glob("train/*/*" + suffix)
    row = load_dataset(str(folder), split="train")[0]
    same = pixels(row) == pixels_digest(picture(image_spec(0)))
    assert same is (image_format != "jpeg")
    is_stored = path.stat().st_ino == output.workspace.images.stat(image_spec(0).key).inode
    assert not is_stored  # a converted image is a file of its own


def test_stored_formats_may_differ_from_image_to_image(output):
    webp = image_spec(1)
    store_image(output.workspace, webp, format="webp")
    folder = output.make({}, {}).export("imagefolder")
    assert [Path(row["file_name"]).suffix for row in lines(folder / "train" / "metadata.jsonl")] == [".png", ".webp"]
    data = load_dataset(str(folder), split="train")
    assert [pixels(row) for row in data] == [pixels_digest(picture(image_spec(number))) for number in range(2)]


def test_an_image_that_is_gone_or_damaged_is_named(output):
    output.make({}, {})
    store, key = output.workspace.images, image_spec(0).key
    data = store.read(key)
    store.write(key, data[: len(data) // 2])
    with pytest.raises(OutputError, match=f"{key}.png is damaged: .*; run text2image with this output once more"):
        output.export("imagefolder", image_format="webp")
    store.delete(key)
    with pytest.raises(OutputError, match=f"{key}.png is gone; run text2image with this output once more"):
        output.export("parquet")


def test_images_cannot_be_in_place_for_readers_that_look_beside_the_metadata(output):
    output.make({})
    with pytest.raises(ConfigError, match="images: imagefolder cannot have them in-place"):
        output.export("imagefolder", images="in-place")


def test_files_that_did_not_change_are_taken_over(output):
    folder = output.make({}, {}).export("imagefolder", images="copy")
    before = {path.name: path.stat().st_ino for path in folder.rglob("*.png")}
    output.make({}, {}, {})
    after = {path.name: path.stat().st_ino for path in output.export("imagefolder", images="copy").rglob("*.png")}
    assert len(after) == 3
    assert before.items() <= after.items()


def test_an_image_that_was_made_again_is_copied_again(output):
    folder = output.make({}).export("imagefolder", images="copy")
    (path,) = folder.rglob("*.png")
    key = image_spec(0).key
    data = output.workspace.images.read(key)
    output.workspace.images.write(key, data[:-12] + data[-12:])
    status = output.workspace.images.stat(key)
    os.utime(output.root / output.workspace.images.location(key), ns=(status.mtime_ns + 1, status.mtime_ns + 1))
    before = path.stat().st_ino
    output.export("imagefolder", images="copy")
    assert path.stat().st_ino != before


@pytest.mark.parametrize("as_list", [False, True])
@pytest.mark.parametrize("leads", [[], [0], [1, 2], [0, 1, 2]])
def test_leading_rows_come_first_and_none_is_lost(tmp_path, as_list, leads):
    file = JsonFile(tmp_path / "rows.json", as_list)
    for number in range(3):
        file.write({"n": number, "text": "a\u2028b"}, number in leads)
    file.close()
    text = (tmp_path / "rows.json").read_text("utf-8")
    rows = json.loads(text) if as_list else [json.loads(line) for line in text.rstrip("\n").split("\n")]
    assert [row["n"] for row in rows] == leads + [number for number in range(3) if number not in leads]
    assert os.listdir(tmp_path) == ["rows.json"]
