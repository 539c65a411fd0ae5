"""Identity of a model: folders, the bundled model and the hub."""

import json
import os
import shutil
from pathlib import Path

import pytest

from t2i_core.bundled import DEMO_MODEL
from t2i_core.errors import ModelError
from t2i_core.models.identity import ResolvedModel, bundled_identity, check_model, folder_fingerprint, resolve_model
from t2i_core.models.weights import fetch_weights, locate
from tests.fake_hub import SECRET, FakeHub, write_tree
from tests.tiny_model import clutter, model_files

NAME = "owner/model"


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
    assert model.configs["scheduler"] == {"shift": 3.0, "_class_name": "FlowMatchEulerDiscreteScheduler"}
    assert locate(model, cache_dir=cache, local_dir=None) is None
    assert hub.tokens == {f"Bearer {SECRET}"}
    assert SECRET not in json.dumps(model.to_json())


def test_a_model_survives_json(hub: FakeHub, cache: str) -> None:
    hub.repository(NAME).commit(model_files())
    model = resolve_model(NAME, cache_dir=cache)
    assert ResolvedModel.from_json(json.loads(json.dumps(model.to_json()))) == model


def test_the_bundled_model_is_complete_and_is_its_folder() -> None:
    model = resolve_model("demo")
    assert model.source == "bundled"
    assert model.identity == bundled_identity() == resolve_model(str(DEMO_MODEL)).identity
    assert fetch_weights(model, cache_dir=None, local_dir=None) == DEMO_MODEL
    assert {file.stat().st_mode & 0o777 for file in DEMO_MODEL.rglob("*") if file.is_file()} == {0o644}


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


def test_a_folder_whose_name_is_too_long_is_refused() -> None:
    with pytest.raises(ModelError, match=r"^model: 'x+… cannot be read: File name too long; check the path"):
        resolve_model("x" * 300)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("flux-dve", "model: 'flux-dve' is neither a preset, nor a folder, nor a hub id .*; did you mean flux-dev?"),
        ("folder", "nor a hub id .* .--list-models shows the presets.$"),
        ("./flx", "./flx: this folder does not exist; check the path; did you mean flux?"),
        ("flx", "did you mean flux?"),
        ("weights.ckpt", "is a file, not a folder"),
        ("weights.safetensors", "is a file, not a folder"),
        ("flux/inside.safetensors", "flux/inside.safetensors: is a file, not a folder"),
        ("flux/no_suffix", "flux/no_suffix: is a file, not a folder"),
        ("flux/insid.safetensors", "model: 'flux/insid.safetensors' does not exist; .* mean flux/inside.safetensors?"),
        ("flux/q4.gguf", "model: 'flux/q4.gguf' does not exist"),
        ("empty", "empty: no model_index.json"),
    ],
)
def test_what_can_be_no_model_is_refused_without_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("flux", "empty"):
        (tmp_path / folder).mkdir()
    for file in (
        *("weights.ckpt", "weights.safetensors"),
        *("flux/inside.safetensors", "flux/no_suffix"),
    ):
        (tmp_path / file).write_text("")
    with pytest.raises(ModelError, match=message) as caught:
        check_model(name)
    assert "\n" not in str(caught.value)


def test_what_can_be_a_model_is_accepted_without_network(tmp_path: Path) -> None:
    folder = write_tree(tmp_path / "m", model_files())
    for name in ("demo", "owner/name", "black-forest-labs/FLUX.1-dev", str(folder)):
        check_model(name)
    check_model("owner/name", revision="main")
    with pytest.raises(ModelError, match="revision: 'main' concerns hub models"):
        check_model(str(folder), revision="main")
    (folder / "vae/config.json").unlink()
    (folder / "vae/diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(ModelError, match="get it again"):
        check_model(str(folder))
