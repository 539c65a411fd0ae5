"""Checkpoints: their hashes, the identity of a model with them, and what does not fit together."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from t2i_core.config import Config
from t2i_core.errors import ModelError
from t2i_core.models.checkpoints import (
    check_request,
    checkpoint_fingerprint,
    resolve_checkpoint,
    with_checkpoints,
)
from t2i_core.models.identity import Checkpoint, ResolvedModel, resolve_model
from t2i_core.models.request import model_request
from t2i_core.models.weights import fetch_checkpoint, fetch_weights, locate
from tests.fake_hub import FakeHub, go_offline, message_of, write_tree
from tests.models.weight_files import ENCODER, FLUX, GUIDED, SDXL, UNET, VAE, gguf, safetensors, whole, write
from tests.tiny_model import model_files

NAME = "owner/model"
CONFIG = {"_class_name": "FluxTransformer2DModel", "guidance_embeds": True, "in_channels": 64}
TUNED = {"config.json": json.dumps(CONFIG).encode(), "diffusion_pytorch_model.safetensors": safetensors(FLUX)}


@pytest.fixture(autouse=True)
def gguf_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("t2i_core.models.request.check_installed", lambda *arguments: None)


def resolve(cache: str | None = None, **values: Any) -> ResolvedModel:
    """Return the model that options name, as a run resolves it."""
    config = Config.from_values({"dataset": "x.jsonl", **values})
    request = model_request(config)
    checkpoints = [
        resolve_checkpoint(one, variant=config.variant, cache_dir=cache, commit=None) for one in request.checkpoints
    ]
    model = resolve_model(request.pipeline, cache_dir=cache, wanted=request.wanted)
    return with_checkpoints(model, request, checkpoints)


def check(**values: Any) -> None:
    config = Config.from_values({"dataset": "x.jsonl", **values})
    check_request(model_request(config), config.revision)


def refusal(**values: Any) -> str:
    """Return what a run and the checks before it say, which is the same."""
    with pytest.raises(ModelError) as caught:
        resolve(**values)
    with pytest.raises(ModelError) as before:
        check(**values)
    assert str(before.value) == str(caught.value)
    return message_of(caught)


def pipeline(folder: Path, **configs: dict[str, Any]) -> str:
    """Write a Stable Diffusion pipeline whose components have these configurations; return its folder."""
    index = {
        "_class_name": "StableDiffusionPipeline",
        "scheduler": ["diffusers", "DDIMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    known = {"unet": {"in_channels": 4, "cross_attention_dim": 768}, "vae": {}, "text_encoder": {}, **configs}
    files = {f"{component}/config.json": json.dumps(config).encode() for component, config in known.items()}
    scheduler = {"scheduler/scheduler_config.json": json.dumps(configs.get("scheduler", {})).encode()}
    files.pop("scheduler/config.json", None)
    return str(write_tree(folder, {"model_index.json": json.dumps(index).encode(), **files, **scheduler}))


def flux(folder: Path) -> str:
    return str(write_tree(folder, model_files() | {"transformer/config.json": json.dumps(CONFIG).encode()}))


def test_the_folder_of_a_transformer_is_the_model_that_has_it_in_place(tmp_path: Path) -> None:
    base, tuned = flux(tmp_path / "base"), str(write_tree(tmp_path / "tuned", TUNED))
    model = resolve(model=base, transformer=tuned)
    in_place = Path(shutil.copytree(base, tmp_path / "in_place"))
    shutil.rmtree(in_place / "transformer")
    write_tree(in_place / "transformer", TUNED)
    assert model.identity == resolve_model(str(in_place)).identity != resolve_model(base).identity
    assert not [file.path for file in model.files if file.path.startswith("transformer/")]
    assert model.weights_bytes == resolve_model(str(in_place)).weights_bytes
    shutil.rmtree(Path(base) / "transformer")
    assert resolve(model=base, transformer=tuned).identity == model.identity


def test_the_identity_follows_the_content_of_a_file_and_not_its_name(tmp_path: Path) -> None:
    base = flux(tmp_path / "base")
    one = write(tmp_path / "one.safetensors", safetensors({**FLUX, **GUIDED}))
    same = write(tmp_path / "there" / "same.safetensors", safetensors({**FLUX, **GUIDED}))
    other = write(tmp_path / "other.gguf", gguf({**FLUX, **GUIDED}))
    first, again, third = (resolve(model=base, transformer=file) for file in (one, same, other))
    assert first.identity == again.identity
    assert len({first.identity, third.identity, resolve_model(base).identity}) == 3
    # The configuration of the model's own transformer is what the file is read by.
    assert "transformer/config.json" in {file.path for file in first.files}
    (Path(base) / "transformer/config.json").write_text(json.dumps(CONFIG | {"num_layers": 3}))
    assert resolve(model=base, transformer=one).identity != first.identity


def test_a_single_file_needs_no_weights_of_its_base(tmp_path: Path) -> None:
    base = pipeline(tmp_path / "base")
    file = write(tmp_path / "model.safetensors", safetensors(whole(UNET, VAE, ENCODER)))
    model = resolve(model=file, base=base)
    assert model.pipeline_class == "StableDiffusionPipeline"
    assert model.configs["unet"] == {"in_channels": 4, "cross_attention_dim": 768}
    (checkpoint,) = model.checkpoints
    assert set(checkpoint.components) == {"unet", "vae", "text_encoder"}
    assert model.weights_bytes == Path(file).stat().st_size
    assert model.download_bytes == 0
    assert locate(model, cache_dir=None, local_dir=None) == Path(base)
    assert fetch_checkpoint(checkpoint, cache_dir=None, local_dir=None) == Path(file)
    assert ResolvedModel.from_json(json.loads(json.dumps(model.to_json()))) == model
    Path(file).unlink()
    assert locate(model, cache_dir=None, local_dir=None) is None
    with pytest.raises(ModelError, match="changed or vanished during the run"):
        fetch_checkpoint(checkpoint, cache_dir=None, local_dir=None)


def test_what_a_single_file_lacks_is_needed_of_its_base(tmp_path: Path) -> None:
    base = pipeline(tmp_path / "base")
    file = write(tmp_path / "model.safetensors", safetensors(whole(UNET, VAE)))
    assert "text_encoder/ has no weights" in refusal(model=file, base=base)
    write(Path(base) / "text_encoder/model.safetensors", b"x")
    model = resolve(model=file, base=base)
    assert "text_encoder/model.safetensors" in {file.path for file in model.files}


def test_neither_the_replaced_weights_nor_others_of_the_repository_are_downloaded(hub: FakeHub, cache: str) -> None:
    hub.repository(NAME).commit(model_files() | {"transformer/config.json": json.dumps(CONFIG).encode()})
    files = {f"transformer/{path}": data for path, data in TUNED.items()} | {"big.safetensors": b"x" * 500}
    commit = hub.repository("owner/tuned").commit(files)
    model = resolve(cache, model=NAME, transformer="owner/tuned/transformer")
    assert not [path for path in hub.downloaded() if path.endswith(".safetensors")]
    (checkpoint,) = model.checkpoints
    assert (checkpoint.location, checkpoint.path, checkpoint.commit) == ("owner/tuned", "transformer", commit)
    assert model.download_bytes == model.weights_bytes
    fetch_weights(model, cache_dir=cache, local_dir=None)
    folder = fetch_checkpoint(checkpoint, cache_dir=cache, local_dir=None)
    assert {file.name for file in folder.iterdir()} == set(TUNED)
    weights = [path for path in hub.downloaded() if path.endswith(".safetensors")]
    assert weights == [
        "text_encoder/model.safetensors",
        "transformer/diffusion_pytorch_model.safetensors",
        "vae/diffusion_pytorch_model.safetensors",
    ]
    assert locate(model, cache_dir=cache, local_dir=None) is not None


def test_a_file_on_the_hub_is_known_by_the_hash_that_the_hub_tells(
    hub: FakeHub, cache: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, data = flux(tmp_path / "base"), safetensors({**FLUX, **GUIDED})
    first = hub.repository("owner/tuned").commit({"sub/q.safetensors": data, "other.safetensors": b"x"})
    model = resolve(cache, model=base, transformer="owner/tuned/sub/q.safetensors")
    assert hub.downloaded() == []
    assert model.identity == resolve(model=base, transformer=write(tmp_path / "q.safetensors", data)).identity
    (checkpoint,) = model.checkpoints
    path = fetch_checkpoint(checkpoint, cache_dir=cache, local_dir=None)
    assert path.read_bytes() == data
    copy = fetch_checkpoint(checkpoint, cache_dir=cache, local_dir=str(tmp_path / "models"))
    assert copy == tmp_path / "models" / "owner--tuned" / "sub" / "q.safetensors"
    hub.repository("owner/tuned").commit({"sub/q.safetensors": b"later"})
    (request,) = model_request(
        Config.from_values({"dataset": "x.jsonl", "model": "demo", "transformer": "owner/tuned/sub/q.safetensors"})
    ).checkpoints
    assert resolve_checkpoint(request, cache_dir=cache, commit=first).files == checkpoint.files
    go_offline(monkeypatch, "HF_HUB_OFFLINE")
    assert resolve_checkpoint(request, cache_dir=cache, commit=first).files == checkpoint.files


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "owner/tuned",
            "is no folder with a config.json; files of weights in the repository: a.gguf, b/c.safetensors; name one",
        ),
        (
            "owner/tuned/d.gguf",
            "d.gguf is not in the repository; files of weights in the repository: a.gguf",
        ),
        ("owner/tuned/b", "is no folder with a config.json"),
        ("owner/whole", "holds a whole pipeline; name the folder in it that holds the transformer"),
    ],
)
def test_what_a_repository_does_not_have(hub: FakeHub, cache: str, tmp_path: Path, name: str, message: str) -> None:
    base = flux(tmp_path / "base")
    hub.repository("owner/tuned").commit({"a.gguf": b"x", "b/c.safetensors": b"x"})
    hub.repository("owner/whole").commit(model_files())
    with pytest.raises(ModelError) as caught:
        resolve(cache, model=base, transformer=name)
    assert message in message_of(caught)


def test_the_variant_of_the_folder_of_a_transformer(tmp_path: Path) -> None:
    base = flux(tmp_path / "base")
    half = {"config.json": TUNED["config.json"], "diffusion_pytorch_model.fp16.safetensors": b"half"}
    tuned = str(write_tree(tmp_path / "tuned", half))
    assert "has no weights but those of the fp16 variant; add --variant fp16" in refusal(model=base, transformer=tuned)
    (checkpoint,) = resolve(model=base, transformer=tuned, variant="fp16").checkpoints
    assert [file.path for file in checkpoint.files] == ["config.json", "diffusion_pytorch_model.fp16.safetensors"]
    with pytest.raises(ModelError, match=r"^variant: .* has no weights of the fp16 variant; leave it out$"):
        resolve(model=base, transformer=str(write_tree(tmp_path / "plain", TUNED)), variant="fp16")


def test_what_does_not_belong_together_is_refused_before_weights_are_fetched(tmp_path: Path) -> None:
    base, sd = flux(tmp_path / "flux"), pipeline(tmp_path / "sd")

    def file(name: str, *shapes: dict[str, tuple[int, ...]]) -> str:
        merged = {tensor: shape for one in shapes for tensor, shape in one.items()}
        return write(tmp_path / name, safetensors(merged))

    sdxl = whole({**UNET, **SDXL}, VAE, SDXL)
    wide = {"model.diffusion_model.a.attn2.to_k.weight": (8, 2048)}
    narrow = {"img_in.weight": (8, 16)}
    unet = {"_class_name": "UNet2DConditionModel"}
    folder = str(write_tree(tmp_path / "unet", TUNED | {"config.json": json.dumps(unet).encode()}))
    marked = file("v.safetensors", whole(UNET, VAE, ENCODER), {"v_pred": (1,)})
    unknown = {"transformer_blocks.0.new.weight": (2,)}
    for values, message in (
        ({"model": file("xl.safetensors", sdxl), "base": base}, "holds a UNet2DConditionModel, and"),
        ({"model": base, "transformer": file("u.safetensors", UNET)}, "has a FluxTransformer2DModel; name a pipeline"),
        ({"model": base, "transformer": folder}, "is of class UNet2DConditionModel, and"),
        ({"model": base, "transformer": file("s.safetensors", FLUX)}, "has False as guidance_embeds, and"),
        ({"model": base, "transformer": file("n.safetensors", FLUX, GUIDED, narrow)}, "has 16 channels, and"),
        (
            {"model": file("w.safetensors", wide, whole(UNET, VAE, ENCODER)), "base": sd},
            "has 2048 as the width of texts",
        ),
        ({"model": marked, "base": sd}, "is marked as a model that predicts the velocity (v_pred)"),
    ):
        assert message in refusal(**values), values
    check(model=marked, base=pipeline(tmp_path / "velocity", scheduler={"prediction_type": "v_prediction"}))
    check(model=base, transformer=file("new.safetensors", unknown))


def test_a_class_that_diffusers_does_not_load_from_a_file_is_refused(tmp_path: Path) -> None:
    files = model_files(pipeline_class="CogView4Pipeline")
    index = json.loads(files["model_index.json"]) | {"transformer": ["diffusers", "CogView4Transformer2DModel"]}
    base = write_tree(tmp_path / "base", files | {"model_index.json": json.dumps(index).encode()})
    file = write(tmp_path / "x.safetensors", safetensors({"transformer_blocks.0.new.weight": (2,)}))
    message = refusal(model=str(base), transformer=file)
    assert "diffusers loads no CogView4Transformer2DModel from a single file; name a folder" in message


def test_a_base_without_the_configuration_that_a_file_goes_by_is_refused(tmp_path: Path) -> None:
    base = flux(tmp_path / "base")
    shutil.rmtree(Path(base) / "transformer")
    file = write(tmp_path / "x.safetensors", safetensors({**FLUX, **GUIDED}))
    assert "needs transformer/config.json of" in refusal(model=base, transformer=file)


def test_a_fingerprint_follows_size_and_time_of_what_is_loaded(tmp_path: Path) -> None:
    file = write(tmp_path / "x.safetensors", safetensors({**FLUX, **GUIDED}))
    tuned = str(write_tree(tmp_path / "tuned", TUNED | {"README.md": b"x"}))
    for name, changed in ((file, file), (tuned, f"{tuned}/diffusion_pytorch_model.safetensors")):
        (request,) = model_request(
            Config.from_values({"dataset": "x.jsonl", "model": "demo", "transformer": name})
        ).checkpoints
        before = checkpoint_fingerprint(request, None)
        assert before == checkpoint_fingerprint(request, None)
        os.utime(changed, ns=(1, 1))
        assert checkpoint_fingerprint(request, None) != before
    (request,) = model_request(
        Config.from_values({"dataset": "x.jsonl", "model": "demo", "transformer": "owner/name"})
    ).checkpoints
    assert checkpoint_fingerprint(request, None) is None


def test_a_checkpoint_survives_json(tmp_path: Path) -> None:
    base, tuned = flux(tmp_path / "base"), str(write_tree(tmp_path / "tuned", TUNED))
    (checkpoint,) = resolve(model=base, transformer=tuned).checkpoints
    assert Checkpoint.from_json(json.loads(json.dumps(checkpoint.to_json()))) == checkpoint
