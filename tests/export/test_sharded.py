"""WebDataset and Parquet: what their libraries read, and which shards an export writes again."""

import gc
import json
import tarfile
import warnings

import pandas as pd
import pyarrow.parquet as pq
import pytest
import webdataset
from datasets import Image, Value, concatenate_datasets, load_dataset

from t2i_core.export import sharded
from t2i_core.storage.formats import decode_image
from tests.builders import image_spec


def tars(folder, split="train"):
    return sorted(path.name for path in (folder / split).glob("*.tar"))


def samples(folder, split="train"):
    """What webdataset reads of a split."""
    urls = [str(folder / split / name) for name in tars(folder, split)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # it leaves its files to the garbage collector
        found = list(webdataset.WebDataset(urls, shardshuffle=False))
        gc.collect()
    return found


def inodes(folder, pattern="train/*"):
    return {path.name: path.stat().st_ino for path in folder.glob(pattern)}


def rows(*numbers, **values):
    """Rows of a data set, each with the image of its number."""
    return [{"id": number, "specs": [image_spec(number)], **values} for number in numbers]


def test_webdataset_reads_image_text_and_every_column(output):
    folder = output.make(*rows(0, 1, 2, tags=["a"], note=None)).export("webdataset", shard_size=2)
    assert tars(folder) == ["00000.tar", "00001.tar"]
    found = samples(folder)
    assert [sample["txt"].decode() for sample in found] == ["p0", "p1", "p2"]
    for number, sample in enumerate(found):
        values = json.loads(sample["json"])
        assert (values["id"], values["tags"], values["note"], values["seed"]) == (number, ["a"], None, number)
        assert sample["__key__"] == values["key"][:32] == image_spec(number).key[:32]
        assert decode_image(sample["png"]).record["key"] == values["key"]


def test_keys_have_no_dot_and_are_unique(output):
    same = [{"specs": [image_spec(0)]}] * 3
    found = samples(output.make(*same).export("webdataset"))
    keys = [sample["__key__"] for sample in found]
    assert len(set(keys)) == 3
    assert not any("." in key or "/" in key for key in keys)


def test_the_index_names_every_shard_with_its_samples_and_bytes(output):
    folder = output.make(*rows(*range(9))).export("webdataset", shard_size=2, split="train=0.5,val=0.5")
    for split in ("train", "val"):
        index = json.loads((folder / split / "wids-meta.json").read_text())
        assert (index["__kind__"], index["wids_version"]) == ("wids-shard-index-v1", 1)
        assert [shard["url"] for shard in index["shardlist"]] == tars(folder, split)
        for shard in index["shardlist"]:
            path = folder / split / shard["url"]
            assert shard["filesize"] == path.stat().st_size
            with tarfile.open(path) as tar:
                assert shard["nsamples"] * 3 == len(tar.getnames())


def test_beside_each_shard_is_a_table_of_its_metadata(output):
    folder = output.make(*rows(0, 1, 2, note=None)).export("webdataset", shard_size=2)
    table = pd.read_parquet(folder / "train" / "00001.parquet")
    assert table["text"].tolist() == ["p2"]
    assert str(pq.read_schema(folder / "train" / "00001.parquet").field("note").type) == "string"


def test_datasets_reads_tar_files_with_the_types_that_the_card_declares(output):
    values = [None] * 6 + ["late"]  # `datasets` alone looks at the first five
    data = [{"id": number, "note": note, "never": None} for number, note in enumerate(values)]
    folder = output.make(*data).export("webdataset", shard_size=4)
    found = load_dataset(str(folder), split="train")
    assert found.features["png"] == Image()
    assert found.features["json"]["never"] == Value("string")
    assert [row["note"] for row in found["json"]] == values
    assert found["txt"] == [f"p{number}" for number in range(7)]


def test_parquet_holds_images_that_datasets_and_pandas_read(output, tmp_path):
    folder = output.make(*rows(0, 1, 2, note=None)).export("parquet", shard_size=2)
    assert sorted(path.name for path in (folder / "train").iterdir()) == ["00000.parquet", "00001.parquet"]
    data = load_dataset(str(folder), split="train")
    assert data.features["image"] == Image()
    assert data.features["note"] == Value("string")
    assert data[2]["image"].size == (8, 8)
    # Without the card, the schema alone says that it is an image.
    alone = load_dataset("parquet", data_files=str(folder / "train" / "*.parquet"), split="train")
    assert alone.features == data.features
    table = pd.read_parquet(folder / "train" / "00000.parquet")
    assert decode_image(table["image"][0]["bytes"]).record["key"] == table["key"][0]
    assert table["image"][0]["path"] == f"{image_spec(0).key[:32]}.png"
    other = output.make(*rows(5, note="x")).export("parquet", to=str(tmp_path / "other"))
    both = concatenate_datasets([data, load_dataset(str(other), split="train")])
    assert both["note"] == [None, None, None, "x"]


@pytest.mark.parametrize("form", ["webdataset", "parquet"])
def test_equal_content_makes_equal_files(output, tmp_path, form):
    output.make(*rows(0, 1, 2))
    one, two = (output.export(form, to=str(tmp_path / name)) for name in ("one", "two"))
    for path in (one / "train").iterdir():
        assert path.read_bytes() == (two / "train" / path.name).read_bytes()


@pytest.mark.parametrize("form", ["webdataset", "parquet"])
def test_only_shards_that_changed_are_written(output, form, monkeypatch):
    folder = output.make(*rows(*range(9))).export(form, shard_size=3)
    before = inodes(folder, "train/0*")
    # A row before all others, one gone, one more behind.
    output.make(*rows(20, 0, 1, 2, 3, 4, 6, 7, 8, 21))
    read = []
    store = type(output.workspace.images)
    original = store.read
    monkeypatch.setattr(store, "read", lambda self, key: read.append(key) or original(self, key))
    monkeypatch.setattr("t2i_core.export.card.SHOWN", 0)
    output.export(form, shard_size=3)
    after = inodes(folder, "train/0*")
    kept = {name for name in before if after[name] == before[name]}
    assert {name.partition(".")[0] for name in kept} == {"00000", "00002"}
    assert {name.partition(".")[0] for name in after} == {"00000", "00001", "00002", "00003"}
    assert set(read) == {image_spec(number).key for number in (3, 4, 20, 21)}


def test_shards_are_numbered_without_gaps_and_an_image_stays_with_its_shard(output):
    folder = output.make(*rows(*range(8))).export("webdataset", shard_size=3)
    before = inodes(folder, "train/*.tar")
    output.make(*rows(3, 4, 5, 6, 7)).export("webdataset", shard_size=3)
    assert inodes(folder, "train/*.tar") == {"00000.tar": before["00002.tar"], "00001.tar": before["00001.tar"]}
    assert sorted(json.loads(sample["json"])["id"] for sample in samples(folder)) == [3, 4, 5, 6, 7]


def test_another_size_of_shards_or_another_column_writes_all_of_them(output):
    folder = output.make(*rows(*range(4))).export("webdataset", shard_size=2)
    before = inodes(folder, "train/*.tar")
    output.export("webdataset", shard_size=3)
    assert len(samples(folder)) == 4
    again = inodes(folder, "train/*.tar")
    assert not set(before.values()) & set(again.values())
    output.make(*rows(*range(4), new=1)).export("webdataset", shard_size=3)
    assert not set(again.values()) & set(inodes(folder, "train/*.tar").values())
    assert all("new" in json.loads(sample["json"]) for sample in samples(folder))


def test_a_shard_that_somebody_deleted_is_written_again(output):
    folder = output.make(*rows(*range(4))).export("webdataset", shard_size=2)
    (folder / "train" / "00001.tar").unlink()
    output.export("webdataset", shard_size=2)
    assert len(samples(folder)) == 4


def test_samples_that_wait_for_their_shard_go_to_disk(output, monkeypatch):
    monkeypatch.setattr(sharded, "WAITING", 2)
    folder = output.make(*rows(*range(12))).export("webdataset", shard_size=4)
    # The order of rows is turned round, and each shard has lost an image.
    output.make(*rows(*(number for number in reversed(range(20)) if number not in (1, 5, 9)), note="狐"))
    output.export("webdataset", shard_size=4)
    found = [json.loads(sample["json"]) for sample in samples(folder)]
    assert sorted(values["id"] for values in found) == [number for number in range(20) if number not in (1, 5, 9)]
    assert {values["note"] for values in found} == {"狐"}
    assert [len(values) for values in _ids_by_shard(folder)] == [4, 4, 4, 4, 1]


def _ids_by_shard(folder):
    return [pd.read_parquet(path)["id"].tolist() for path in sorted((folder / "train").glob("*.parquet"))]
