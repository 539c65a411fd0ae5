"""CLIP and SigLIP models by their files: in a folder, on the hub, in its cache."""

import json

import pytest

from t2i_core.errors import ModelError
from t2i_core.models.scorer_model import (
    ScorerModel,
    fetch_scorer_model,
    find_scorer_model,
    resolve_scorer_model,
    scorer_model_fingerprint,
)
from tests.fake_hub import go_offline

FILES = {
    "config.json": b'{"model_type": "clip"}',
    "model.safetensors": b"weights" * 50,
    "tokenizer.json": b"{}",
    "preprocessor_config.json": b"{}",
    "README.md": b"# model",
    "pytorch_model.bin": b"pickle",
}


@pytest.fixture
def folder(tmp_path):
    """Write the files of a model; return its folder."""

    def write(**changes):
        for name, content in (FILES | changes).items():
            if content is not None:
                (tmp_path / "clip").mkdir(exist_ok=True)
                (tmp_path / "clip" / name).write_bytes(content)
        return str(tmp_path / "clip")

    return write


def test_a_folder_is_known_by_the_files_that_are_loaded(folder):
    model = resolve_scorer_model(folder(), None)
    loaded = {"config.json", "model.safetensors", "tokenizer.json", "preprocessor_config.json"}
    assert {file.path for file in model.files} == loaded
    assert (model.kind, model.commit) == ("clip", None)
    assert ScorerModel.from_json(json.loads(json.dumps(model.to_json()))) == model
    assert resolve_scorer_model(folder(**{"README.md": b"other"}), None).identity == model.identity
    assert resolve_scorer_model(folder(**{"model.safetensors": b"other"}), None).identity != model.identity


def test_the_fingerprint_of_a_folder_changes_with_its_files(folder):
    before = scorer_model_fingerprint(folder())
    assert scorer_model_fingerprint(folder(**{"model.safetensors": b"longer weights" * 50})) != before


def test_weights_in_several_files_are_all_loaded(folder):
    parts = {f"model-0000{n}-of-00002.safetensors": b"part" for n in (1, 2)}
    more = {"model.safetensors": None, "model.safetensors.index.json": b"{}", **parts}
    names = {file.path for file in resolve_scorer_model(folder(**more), None).files}
    assert names >= {"model.safetensors.index.json", *parts}


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"config.json": None}, "has no config.json"),
        (
            {"config.json": b'{"model_type": "bert"}'},
            "is no CLIP or SigLIP model: its config.json has model_type 'b",
        ),
        ({"config.json": b"{"}, "has model_type None"),
        ({"model.safetensors": None}, "has no model.safetensors; other formats can run code"),
    ],
)
def test_a_folder_that_holds_no_such_model_is_refused(folder, changes, problem):
    with pytest.raises(ModelError, match=f"^score: .*{problem}"):
        resolve_scorer_model(folder(**changes), None)


def test_what_is_neither_a_folder_nor_a_hub_id_is_refused(tmp_path):
    assert find_scorer_model("openai/clip-vit-large-patch14") is None
    (tmp_path / "file").write_text("")
    for name in (str(tmp_path / "file"), str(tmp_path / "nothing"), "clip"):
        with pytest.raises(ModelError, match="name the folder of a CLIP or SigLIP model, or a hub id"):
            find_scorer_model(name)


def test_a_model_of_the_hub_is_that_of_a_folder_with_the_same_files(hub, folder, cache, monkeypatch):
    commit = hub.repository("someone/clip").commit(FILES)
    model = resolve_scorer_model("someone/clip", cache)
    assert (model.identity, model.commit) == (resolve_scorer_model(folder(), None).identity, commit)
    assert "model.safetensors" not in hub.downloaded()
    fetched = fetch_scorer_model(model, cache)
    assert {path.name for path in fetched.iterdir()} == {file.path for file in model.files}
    go_offline(monkeypatch, "no network")
    assert resolve_scorer_model("someone/clip", cache) == model


def test_a_folder_that_vanished_is_told(folder):
    model = resolve_scorer_model(folder(), None)
    gone = ScorerModel.from_json(model.to_json() | {"location": model.location + "x"})
    with pytest.raises(ModelError, match="does not exist any more"):
        fetch_scorer_model(gone, None)
