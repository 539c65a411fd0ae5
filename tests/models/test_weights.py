"""From a model's identity to its local files: downloads, the hub cache and plain copies."""

from pathlib import Path

import pytest
from huggingface_hub import constants

from t2i_core.errors import HubUnavailable, ModelError
from t2i_core.models.identity import resolve_model
from t2i_core.models.weights import fetch_some, fetch_weights, locate
from tests.fake_hub import FakeHub, read_tree, write_tree
from tests.tiny_model import clutter, model_files

NAME = "owner/model"


def test_only_the_pipelines_files_are_fetched_and_only_once(hub: FakeHub, cache: str) -> None:
    hub.repository(NAME).commit(model_files() | clutter())
    model = resolve_model(NAME, cache_dir=cache)
    folder = fetch_weights(model, cache_dir=cache, local_dir=None)
    assert read_tree(folder) == model_files()
    assert hub.downloaded() == sorted(model_files())
    hub.requests.clear()
    assert fetch_weights(model, cache_dir=cache, local_dir=None) == folder
    assert locate(model, cache_dir=cache, local_dir=None) == folder
    assert hub.requests == []


@pytest.mark.parametrize("with_local_dir", [False, True])
def test_small_files_are_fetched_without_weights(
    hub: FakeHub, cache: str, tmp_path: Path, with_local_dir: bool
) -> None:
    hub.repository(NAME).commit(model_files())
    model = resolve_model(NAME, cache_dir=cache)
    local_dir = str(tmp_path / "models") if with_local_dir else None
    small = ["model_index.json", "tokenizer/tokenizer_config.json"]
    folder = fetch_some(model, small, cache_dir=cache, local_dir=local_dir)
    assert all((folder / path).read_bytes() == model_files()[path] for path in small)
    assert not [path for path in hub.downloaded() if path.endswith(".safetensors")]
    whole = fetch_weights(model, cache_dir=cache, local_dir=local_dir)
    assert fetch_some(model, small, cache_dir=cache, local_dir=local_dir) == whole


def test_a_folder_has_its_small_files(tmp_path: Path) -> None:
    write_tree(tmp_path, model_files())
    model = resolve_model(str(tmp_path))
    assert fetch_some(model, ["model_index.json"], cache_dir=None, local_dir=None) == tmp_path


def test_several_models_share_a_local_dir(hub: FakeHub, cache: str, tmp_path: Path) -> None:
    local_dir = str(tmp_path / "models")
    folders = []
    for seed, name in enumerate(["owner/model", "other/model"]):
        hub.repository(name).commit(model_files(seed))
        model = resolve_model(name, cache_dir=cache)
        folders.append(fetch_weights(model, cache_dir=cache, local_dir=local_dir))
        assert locate(model, cache_dir=cache, local_dir=local_dir) == folders[-1]
        assert resolve_model(str(folders[-1])).identity == model.identity
    assert [folder.name for folder in folders] == ["owner--model", "other--model"]


def test_a_local_dir_with_another_commit_of_the_same_size_is_not_taken_for_this_one(
    hub: FakeHub, cache: str, tmp_path: Path
) -> None:
    local_dir = str(tmp_path / "models")
    hub.repository(NAME).commit(model_files(1))
    old = resolve_model(NAME, cache_dir=cache)
    fetch_weights(old, cache_dir=cache, local_dir=local_dir)
    hub.repository(NAME).commit(model_files(2))
    new = resolve_model(NAME, cache_dir=cache)
    assert new.weights_bytes == old.weights_bytes
    assert locate(new, cache_dir=cache, local_dir=local_dir) is None

    hub.fail_next = 1000
    with pytest.raises(HubUnavailable):
        fetch_weights(new, cache_dir=cache, local_dir=local_dir)
    hub.fail_next = 0
    folder = fetch_weights(new, cache_dir=cache, local_dir=local_dir)
    assert resolve_model(str(folder)).identity == new.identity
    assert locate(old, cache_dir=cache, local_dir=local_dir) is None


@pytest.mark.parametrize("plain", [False, True])
def test_a_download_that_broke_off_goes_on(
    hub: FakeHub, cache: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plain: bool
) -> None:
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 100)  # 10 MB, and a part of a chunk does not reach the disk
    local_dir = str(tmp_path / "models") if plain else None
    hub.repository(NAME).commit(model_files())
    model = resolve_model(NAME, cache_dir=cache)
    hub.cut_next = {"vae/diffusion_pytorch_model.safetensors": 700}
    folder = fetch_weights(model, cache_dir=cache, local_dir=local_dir)
    assert resolve_model(str(folder)).identity == model.identity
    assert hub.ranges == [("vae/diffusion_pytorch_model.safetensors", "bytes=700-")]


def test_what_a_failed_download_had_finished_stays(hub: FakeHub, cache: str) -> None:
    hub.repository(NAME).commit(model_files())
    model = resolve_model(NAME, cache_dir=cache)
    hub.refused = {"vae/diffusion_pytorch_model.safetensors"}
    with pytest.raises(HubUnavailable):
        fetch_weights(model, cache_dir=cache, local_dir=None)
    assert locate(model, cache_dir=cache, local_dir=None) is None
    first = set(hub.downloaded())
    hub.refused, hub.requests[:] = set(), []
    fetch_weights(model, cache_dir=cache, local_dir=None)
    assert not first & set(hub.downloaded())


def test_a_file_missing_from_the_cache_is_fetched_alone(hub: FakeHub, cache: str) -> None:
    hub.repository(NAME).commit(model_files())
    model = resolve_model(NAME, cache_dir=cache)
    folder = fetch_weights(model, cache_dir=cache, local_dir=None)
    lost = folder / "text_encoder" / "model.safetensors"
    lost.resolve().unlink()
    lost.unlink()
    hub.requests.clear()
    assert locate(model, cache_dir=cache, local_dir=None) is None
    fetch_weights(model, cache_dir=cache, local_dir=None)
    assert hub.downloaded() == ["text_encoder/model.safetensors"]


def test_a_folder_that_changed_since_it_was_resolved_is_refused(tmp_path: Path) -> None:
    folder = write_tree(tmp_path, model_files())
    model = resolve_model(str(folder))
    assert fetch_weights(model, cache_dir=None, local_dir=None) == folder
    (folder / "vae" / "config.json").unlink()
    with pytest.raises(ModelError, match="changed or vanished"):
        fetch_weights(model, cache_dir=None, local_dir=None)
