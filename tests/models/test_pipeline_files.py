"""Folders and repositories that are no usable model: each is refused in one line that says what to do."""

import json
from pathlib import Path

import pytest

from t2i_core.errors import ModelError
from t2i_core.models.identity import folder_fingerprint, resolve_model
from t2i_core.models.pipeline_files import Wanted
from t2i_core.models.weights import fetch_weights
from tests.fake_hub import FakeHub, message_of, write_tree
from tests.tiny_model import model_files

NAME = "owner/model"


def refusal(files: dict[str, bytes], folder: Path) -> str:
    with pytest.raises(ModelError) as caught:
        resolve_model(str(write_tree(folder, files)))
    return message_of(caught)


def without(suffix: str) -> dict[str, bytes]:
    return {path: data for path, data in model_files().items() if not path.endswith(suffix)}


def test_names_that_are_nothing(tmp_path: Path) -> None:
    (tmp_path / "m.ckpt").write_bytes(b"x")
    (tmp_path / "m.safetensors").write_bytes(b"x")
    for name, expected in {
        "no-such-thing": "neither a preset, nor a folder, nor a hub id of the form owner/name",
        "./nothing": "this folder does not exist",
        str(tmp_path / "nothing"): "this folder does not exist",
        "a/b/c": "this folder does not exist",
        "~/no/such": "this folder does not exist",
        str(tmp_path / "m.ckpt"): "is a file, not a folder",
        str(tmp_path / "m.safetensors"): "is a file, not a folder",
    }.items():
        with pytest.raises(ModelError, match=expected) as caught:
            resolve_model(name)
        message_of(caught)
    assert folder_fingerprint("./nothing") is None


def test_a_revision_of_a_folder_is_refused() -> None:
    with pytest.raises(ModelError, match="revision: 'main' concerns hub models"):
        resolve_model("demo", revision="main")


def test_a_folder_without_model_index(tmp_path: Path) -> None:
    assert "no model_index.json; name a folder written by" in refusal({"config.json": b"{}"}, tmp_path / "a")
    assert "pickle" in refusal({"model.ckpt": b"x"}, tmp_path / "b")
    half = {"b.gguf": b"x", "a.safetensors": b"x", "README.md": b"x"}
    assert refusal(half, tmp_path / "d").endswith("but it holds a.safetensors and 1 more; name the file itself")
    part = {"config.json": b"{}", "diffusion_pytorch_model.safetensors": b"x"}
    assert "it holds one part of a pipeline; " in refusal(part, tmp_path / "e")
    assert "but inner has one" in refusal({"inner/model_index.json": b"{}"}, tmp_path / "c")


def test_an_index_that_is_broken_or_names_code_of_its_own(tmp_path: Path) -> None:
    files = model_files()
    assert "not JSON" in refusal(files | {"model_index.json": b"{"}, tmp_path / "a")
    assert "not a JSON object" in refusal(files | {"model_index.json": b"[]"}, tmp_path / "b")
    custom = {"model_index.json": b'{"_class_name": ["pipeline", "Mine"]}'}
    assert "not run" in refusal(files | custom, tmp_path / "c")
    index = json.loads(files["model_index.json"]) | {"scheduler": ["own_scheduler", "Own"]}
    own = {"model_index.json": json.dumps(index).encode(), "scheduler/own_scheduler.py": b""}
    assert "brings its own code (own_scheduler.py)" in refusal(files | own, tmp_path / "d")


@pytest.mark.parametrize(
    ("pipeline_class", "why"),
    [("FluxImg2ImgPipeline", "Img2Img"), ("WanPipeline", "num_frames"), ("NewPipeline", "installed diffusers")],
)
def test_a_pipeline_of_another_kind(hub: FakeHub, cache: str, tmp_path: Path, pipeline_class: str, why: str) -> None:
    files = model_files(pipeline_class=pipeline_class)
    assert why in refusal(files, tmp_path / "m")
    hub.repository(NAME).commit(files)
    with pytest.raises(ModelError, match=why):
        resolve_model(NAME, cache_dir=cache)
    assert hub.downloaded() == ["model_index.json"]


def test_pickle_weights_only(hub: FakeHub, cache: str, tmp_path: Path) -> None:
    files = without("vae/diffusion_pytorch_model.safetensors") | {"vae/diffusion_pytorch_model.bin": b"x"}
    message = refusal(files, tmp_path / "m")
    assert "pickle" in message
    assert "safe_serialization=True" in message
    hub.repository(NAME).commit(files)
    with pytest.raises(ModelError, match="the weights of vae/ are pickle files"):
        resolve_model(NAME, cache_dir=cache)


@pytest.mark.parametrize(
    "file", ["diffusion_pytorch_model.fp16.safetensors", "diffusion_pytorch_model.fp16-00001-of-00002.safetensors"]
)
def test_variant_weights_only(file: str, tmp_path: Path) -> None:
    files = without("vae/diffusion_pytorch_model.safetensors") | {f"vae/{file}": b"x"}
    assert refusal(files, tmp_path / "m").endswith("vae/ has weights of the fp16 variant only; add --variant fp16")


def with_variant(files: dict[str, bytes]) -> dict[str, bytes]:
    """Return the files of a model of which all parts but the text encoder have an fp16 variant, too."""
    shards = [f"diffusion_pytorch_model.fp16-0000{i}-of-00002.safetensors" for i in (1, 2)]
    index = json.dumps({"weight_map": {"a": shards[0], "b": shards[1]}}).encode()
    return files | {
        "vae/diffusion_pytorch_model.fp16.safetensors": b"vae",
        "transformer/diffusion_pytorch_model.safetensors.index.fp16.json": index,
        f"transformer/{shards[0]}": b"one",
        f"transformer/{shards[1]}": b"two",
    }


def test_a_variant_is_taken_where_a_part_has_it_in_folders_and_on_the_hub(
    hub: FakeHub, cache: str, tmp_path: Path
) -> None:
    files = with_variant(model_files())
    folder = str(write_tree(tmp_path / "m", files))
    model = resolve_model(folder, wanted=Wanted("fp16"))
    assert [file.path for file in model.files if file.path.endswith(".safetensors")] == [
        "text_encoder/model.safetensors",
        "transformer/diffusion_pytorch_model.fp16-00001-of-00002.safetensors",
        "transformer/diffusion_pytorch_model.fp16-00002-of-00002.safetensors",
        "vae/diffusion_pytorch_model.fp16.safetensors",
    ]
    assert "transformer/diffusion_pytorch_model.safetensors.index.fp16.json" in {file.path for file in model.files}
    assert model.identity != resolve_model(folder).identity
    assert folder_fingerprint(folder, Wanted("fp16")) != folder_fingerprint(folder)
    hub.repository(NAME).commit(files)
    at_hub = resolve_model(NAME, cache_dir=cache, wanted=Wanted("fp16"))
    assert (at_hub.identity, at_hub.files) == (model.identity, model.files)
    fetch_weights(at_hub, cache_dir=cache, local_dir=None)
    assert {path for path in hub.downloaded() if path.endswith(".safetensors")} == {
        file.path for file in model.files if file.path.endswith(".safetensors")
    }


def test_shards_may_bear_the_variant_behind_their_number(tmp_path: Path) -> None:
    shard = "diffusion_pytorch_model-00001-of-00001.fp16.safetensors"
    index = json.dumps({"weight_map": {"a": shard}}).encode()
    files = without("vae/diffusion_pytorch_model.safetensors") | {f"vae/{shard}": b"x"}
    named = files | {"vae/diffusion_pytorch_model.safetensors.index.fp16.json": index}
    model = resolve_model(str(write_tree(tmp_path / "m", named)), wanted=Wanted("fp16"))
    assert f"vae/{shard}" in {file.path for file in model.files}
    with pytest.raises(ModelError, match=r"the fp16 weights of vae/ are in several files, and the index of them"):
        resolve_model(str(write_tree(tmp_path / "n", files)), wanted=Wanted("fp16"))


def test_a_variant_that_no_part_has_is_refused(tmp_path: Path) -> None:
    folder = write_tree(tmp_path / "m", with_variant(model_files()))
    for variant in ("fp32", "fp"):
        with pytest.raises(ModelError) as caught:
            resolve_model(str(folder), wanted=Wanted(variant))
        assert f"{folder} has no weights of the {variant} variant (its variants: fp16)" in message_of(caught)


def test_weights_that_are_missing(tmp_path: Path) -> None:
    assert "vae/ has no weights" in refusal(without("vae/diffusion_pytorch_model.safetensors"), tmp_path / "a")
    assert "names what is not there: " in refusal(without("00002-of-00002.safetensors"), tmp_path / "b")
    no_vae = {path: data for path, data in model_files().items() if not path.startswith("vae/")}
    assert "folder vae/ is missing, empty or not readable" in refusal(no_vae, tmp_path / "c")
