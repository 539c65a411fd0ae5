"""Data sets on the hub: names, streams, errors, and what they are known by."""

import sys
import types

import huggingface_hub
import pytest

from t2i_core.dataset.hub import HubSplit
from t2i_core.dataset.readers import open_source
from t2i_core.dataset.sources import check_dataset, find_parts, fingerprint, hashed
from t2i_core.errors import DatasetError
from tests.dataset.files import read, values


class FakeDatasets(types.ModuleType):
    """The part of `datasets` that is used: a stream, or an error on the way."""

    def __init__(self, items):
        super().__init__("datasets")
        self.items, self.asked = items, []

    def disable_progress_bars(self):
        pass

    def load_dataset(self, name, config, *, split, streaming, revision=None):
        assert streaming
        self.asked.append((name, config, split) if revision is None else (name, config, split, revision))
        return self

    def decode(self, enable):
        assert enable is False
        for item in self.items:
            if isinstance(item, Exception):
                raise item
            yield item


@pytest.fixture
def hub(monkeypatch):
    """Let the hub have one data set with these items."""

    def hub(*items):
        fake = FakeDatasets(items)
        monkeypatch.setitem(sys.modules, "datasets", fake)
        return fake

    return hub


def test_a_name_has_a_split_and_may_have_a_config():
    assert HubSplit.parse("hf:a/b:train") == HubSplit("hf:a/b:train", "a/b", None, "train")
    assert HubSplit.parse("hf:a/b:c:d") == HubSplit("hf:a/b:c:d", "a/b", "c", "d")


def test_a_split_streams_through_datasets(hub):
    fake = hub({"Prompt": "a fox", "n": float("nan")}, {"Prompt": "a cat", "n": 1})
    source = open_source("hf:nateraw/parti-prompts:train")
    assert source.is_table
    assert [(row.index, row.line, row.file, row.value) for row in source.rows] == [
        (0, None, None, {"Prompt": "a fox", "n": None}),
        (1, None, None, {"Prompt": "a cat", "n": 1}),
    ]
    assert fake.asked == [("nateraw/parti-prompts", None, "train")]


def test_rows_are_counted_on_over_several_splits(hub):
    fake = hub({"Prompt": "a fox"})
    rows = read(["hf:some/set:train", "hf:some/set:test"])
    assert [(row.index, row.file) for row in rows] == [(0, "hf:some/set:train"), (1, "hf:some/set:test")]
    assert fake.asked == [("some/set", None, "train"), ("some/set", None, "test")]


def test_pictures_are_left_out(hub, caplog):
    picture = {"bytes": b"\x89PNG\xff", "path": None}
    hub({"Prompt": "a fox", "image": picture}, {"Prompt": "a cat", "image": picture})
    assert values("hf:some/set:train") == [{"Prompt": "a fox"}, {"Prompt": "a cat"}]
    said = "data set  hf:some/set:train: column 'image' holds binary data, and is left out of the manifest"
    assert caplog.messages == [said]


def test_errors_are_one_line(hub):
    hub({"a": 1}, RuntimeError("gated\nlong story"))
    rows = open_source("hf:some/set:train").rows
    next(rows)
    with pytest.raises(DatasetError) as error:
        next(rows)
    assert str(error.value) == "hf:some/set:train: RuntimeError: gated; check name, config, split and network"


def test_without_datasets_the_install_line_is_given(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    for use in (open_source, check_dataset):
        with pytest.raises(DatasetError, match=r"needs the datasets package; pip install 'text2image\[hf\]'"):
            use("hf:some/set:train")


def test_a_split_is_known_by_its_commit(monkeypatch):
    def digest(commit, *dataset):
        def dataset_info(self, name, **_):
            if isinstance(commit, Exception):
                raise commit
            return huggingface_hub.DatasetInfo(id=name, sha=commit)

        monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", dataset_info)
        return fingerprint(hashed(find_parts(list(dataset) or "hf:some/set:train")))

    assert digest("one") == digest("one")
    offline = digest(ConnectionError("offline"))
    others = [digest("two"), digest("one", "hf:some/set:test"), digest("one", "hf:some/set:a:train"), offline]
    both = digest("one", "hf:some/set:train", "hf:some/set:test")
    assert len({digest("one"), both, *others}) == 6
    assert offline == digest(OSError("offline"))


def test_a_split_is_read_at_the_commit_that_it_is_known_by(hub, monkeypatch):
    """The repository may get another commit between the two."""
    commits = iter(["one", "two"])
    monkeypatch.setattr(
        huggingface_hub.HfApi,
        "dataset_info",
        lambda self, name, **_: huggingface_hub.DatasetInfo(id=name, sha=next(commits)),
    )
    fake = hub({"prompt": "a fox"})
    found = hashed(find_parts("hf:some/set:train"))
    list(open_source("hf:some/set:train", found).rows)
    assert fake.asked == [("some/set", None, "train", "one")]
    assert fingerprint(found) == fingerprint(found)
