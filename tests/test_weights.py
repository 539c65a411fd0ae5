"""Model name -> identity and local files: folders, the bundled model and the hub."""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants

from t2i_core.errors import HubUnavailable, ModelError
from t2i_core.weights import BUNDLED, Model, bundled_identity, fetch_weights, folder_fingerprint, locate, resolve_model
from tests.fake_hub import SECRET, FakeHub, connected_hub, read_tree, write_tree
from tests.tiny_model import clutter, model_files

NAME = "owner/model"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    with connected_hub(monkeypatch) as fake:
        yield fake


@pytest.fixture
def cache(tmp_path: Path) -> str:
    return str(tmp_path / "cache")


# Identity


def test_folder_hub_snapshot_and_later_commit_are_one_model(hub: FakeHub, cache: str, tmp_path: Path) -> None:
    repository = hub.repository(NAME)
    first_commit = repository.commit(model_files() | clutter())
    first = resolve_model(NAME, cache_dir=cache)
    snapshot = fetch_weights(first, cache_dir=cache, local_dir=None)
    copy = shutil.copytree(snapshot, tmp_path / "copy")
    clone = write_tree(tmp_path / "clone", model_files() | clutter())
    second_commit = repository.commit(model_files() | {"README.md": b"edited", "more.txt": b"x"})
    second = resolve_model(NAME, cache_dir=cache)

    assert (first.commit, second.commit) == (first_commit, second_commit)
    folders = [resolve_model(str(folder)) for folder in (snapshot, copy, clone)]
    assert {model.identity for model in [first, second, *folders]} == {first.identity}
    assert {model.files for model in folders} == {first.files}
    assert first.source == "hub"
    assert folders[0].source == "folder"


@pytest.mark.parametrize(
    "path", [p for p in model_files() if p != "model_index.json" and not p.endswith(".index.json")]
)
def test_any_file_the_pipeline_loads_changes_the_identity(path: str, tmp_path: Path) -> None:
    files = model_files()
    before = resolve_model(str(write_tree(tmp_path / "a", files))).identity
    files[path] += b" "
    assert resolve_model(str(write_tree(tmp_path / "a", files))).identity != before


def test_resolving_fetches_no_weights(hub: FakeHub, cache: str) -> None:
    hub.repository(NAME).commit(model_files() | clutter())
    model = resolve_model(NAME, cache_dir=cache)
    small = [path for path in model_files() if not path.endswith((".safetensors", "tokenizer.json"))]
    assert hub.downloaded() == sorted(small)
    assert [file.path for file in model.files] == sorted(model_files())
    assert model.weights_bytes == sum(len(data) for p, data in model_files().items() if p.endswith(".safetensors"))
    assert model.pipeline_class == "FluxPipeline"
    assert model.licence == "apache-2.0"
    assert model.configs["transformer"] == {"guidance_embeds": True}
    assert model.configs["scheduler"] == {"shift": 3.0}
    assert locate(model, cache_dir=cache, local_dir=None) is None
    assert hub.tokens == {f"Bearer {SECRET}"}
    assert SECRET not in json.dumps(model.to_json())


def test_a_model_survives_json(hub: FakeHub, cache: str) -> None:
    hub.repository(NAME).commit(model_files())
    model = resolve_model(NAME, cache_dir=cache)
    assert Model.from_json(json.loads(json.dumps(model.to_json()))) == model


def test_the_bundled_model_is_complete_and_is_its_folder() -> None:
    model = resolve_model("demo")
    assert model.source == "bundled"
    assert model.identity == bundled_identity() == resolve_model(str(BUNDLED)).identity
    assert fetch_weights(model, cache_dir=None, local_dir=None) == BUNDLED
    assert {file.stat().st_mode & 0o777 for file in BUNDLED.rglob("*") if file.is_file()} == {0o644}


def test_commit_wins_over_a_branch_that_moved(hub: FakeHub, cache: str) -> None:
    old = hub.repository(NAME).commit(model_files())
    hub.repository(NAME).commit(model_files(seed=1))
    assert resolve_model(NAME, cache_dir=cache, commit=old).commit == old
    assert resolve_model(NAME, cache_dir=cache, revision=old).commit == old
    assert resolve_model(NAME, cache_dir=cache).commit != old


def test_transformers_prefers_the_single_file_and_diffusers_the_shards(tmp_path: Path) -> None:
    files = model_files()
    files["transformer/diffusion_pytorch_model.safetensors"] = b"both"
    files["text_encoder/model.safetensors.index.json"] = b'{"weight_map": {}}'
    paths = [file.path for file in resolve_model(str(write_tree(tmp_path, files))).files]
    assert paths == sorted(model_files())


def test_a_fingerprint_follows_size_and_time_of_what_is_loaded(tmp_path: Path) -> None:
    folder = write_tree(tmp_path / "m", model_files() | clutter())
    before = folder_fingerprint(str(folder))
    (folder / "README.md").write_bytes(b"other")
    assert folder_fingerprint(str(folder)) == before
    weights = folder / "vae" / "diffusion_pytorch_model.safetensors"
    os.utime(weights, ns=(1, 1))
    assert folder_fingerprint(str(folder)) != before
    assert folder_fingerprint("demo") == folder_fingerprint("demo")


# Fetching


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
