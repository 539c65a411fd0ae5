"""Which pipeline and checkpoints the options ask for."""

from pathlib import Path

import pytest

from t2i_core.config import Config
from t2i_core.errors import ModelError
from t2i_core.models.pipeline_files import Wanted
from t2i_core.models.request import ModelRequest, model_request
from tests.fake_hub import message_of
from tests.models.weight_files import ENCODER, FLUX, GUIDED, SD3, SDXL, UNET, VAE, gguf, safetensors, whole, write

FILES = {
    "sd.safetensors": safetensors(whole(UNET, VAE, ENCODER)),
    "sd2.safetensors": safetensors(whole(UNET, VAE, {"cond_stage_model.model.x": (2,)})),
    "XL.SAFETENSORS": safetensors(whole({**UNET, **SDXL}, VAE, SDXL)),
    "flux.safetensors": safetensors({**FLUX, **GUIDED}),
    "sd3.safetensors": safetensors(SD3),
    "flux.gguf": gguf({**FLUX, **GUIDED}),
    "owner/unet.safetensors": safetensors(UNET),
    "old.ckpt": b"x",
    "text.txt": b"x",
    "folder/config.json": b"{}",
}


@pytest.fixture(autouse=True)
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, data in FILES.items():
        write(tmp_path / name, data)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("t2i_core.models.packages.importlib.util.find_spec", lambda name: name)


def request(**values: str) -> ModelRequest:
    return model_request(Config.from_values({"dataset": "x.jsonl", **values}))


def test_a_pipeline_alone_asks_for_all_of_its_weights() -> None:
    for model, pipeline in {
        "flux-dev": "black-forest-labs/FLUX.1-dev",
        "owner/name": "owner/name",
        "demo": "demo",
    }.items():
        assert request(model=model) == ModelRequest(model, pipeline, Wanted())
    assert request(model="owner/name", variant="fp16").wanted == Wanted("fp16")


@pytest.mark.parametrize(
    ("values", "named", "supplied"),
    [
        ({"model": "sd.safetensors"}, "stable-diffusion-v1-5/stable-diffusion-v1-5", {"unet", "vae", "text_encoder"}),
        ({"model": "sd.safetensors", "base": "folder"}, "folder", {"unet", "vae", "text_encoder"}),
        ({"model": "sd2.safetensors", "base": "owner/sd2"}, "owner/sd2", {"unet", "vae", "text_encoder"}),
        (
            {"model": "XL.SAFETENSORS"},
            *("stabilityai/stable-diffusion-xl-base-1.0", {"unet", "vae", "text_encoder", "text_encoder_2"}),
        ),
        ({"model": "flux-dev", "transformer": "flux.gguf"}, "flux-dev", {"transformer", "unet"}),
        ({"model": "owner/name", "transformer": "owner/unet.safetensors"}, "owner/name", {"transformer", "unet"}),
        ({"model": "demo", "transformer": "folder"}, "demo", {"transformer", "unet"}),
        ({"model": "demo", "transformer": "owner/other/transformer"}, "demo", {"transformer", "unet"}),
        ({"model": "demo", "transformer": "owner/other/q4.gguf"}, "demo", {"transformer", "unet"}),
    ],
)
def test_checkpoints_supply_what_they_hold(values: dict[str, str], named: str, supplied: set[str]) -> None:
    asked = request(**values)
    assert asked.named == named
    assert set(asked.wanted.supplied) == supplied
    assert [checkpoint.name for checkpoint in asked.checkpoints] == [values.get("transformer") or values["model"]]


def test_a_transformer_goes_before_that_of_a_single_file() -> None:
    model, transformer = request(model="sd.safetensors", transformer="owner/unet.safetensors").checkpoints
    assert set(model.components) == {"vae", "text_encoder"}
    assert set(transformer.components) == {"transformer", "unet"}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"model": "flux.safetensors"},
            "model: flux.safetensors holds a transformer only; write --model black-forest-labs/FLUX.1-dev "
            "--transformer flux.safetensors",
        ),
        ({"model": "flux.gguf"}, "write --model black-forest-labs/FLUX.1-dev --transformer flux.gguf"),
        ({"model": "flux.gguf", "base": "folder"}, "write --model folder --transformer flux.gguf"),
        ({"model": "owner/unet.safetensors"}, "model: owner/unet.safetensors holds a unet only; write --model "),
        ({"model": "sd2.safetensors"}, "does not tell which pipeline it belongs to; add --base, for example"),
        ({"model": "old.ckpt"}, "old.ckpt: is a pickle file, which can run code and is not loaded"),
        ({"model": "text.txt"}, "text.txt: is a file, not a folder, and no .safetensors file"),
        ({"model": "owner/name/x.safetensors"}, "download it with `hf download owner/name x.safetensors`"),
        ({"model": "sd.safetensors", "base": "sd.safetensors"}, "base: sd.safetensors is a file"),
        ({"model": "sd.safetensors", "base": "nothing"}, "base: 'nothing' is neither a preset, nor a folder"),
        ({"model": "sd.safetensors", "base": "owner/s.gguf"}, "base: 'owner/s.gguf' does not exist"),
        (
            {"model": "folder", "base": "folder"},
            "base: concerns a single file, and --model folder is none; leave it out",
        ),
        ({"model": "demo", "transformer": "nothing"}, "transformer: 'nothing' does not exist; name a .safetensors"),
        ({"model": "demo", "transformer": "./a/b"}, "transformer: './a/b' does not exist"),
        ({"model": "demo", "transformer": "owner/unett.safetensors"}, "did you mean owner/unet.safetensors?"),
        ({"model": "demo", "transformer": "old.ckpt"}, "transformer: old.ckpt is a pickle file"),
        ({"model": "demo", "transformer": "owner/name/old.ckpt"}, "transformer: owner/name/old.ckpt is a pickle file"),
        (
            {"model": "demo", "transformer": "text.txt"},
            "transformer: text.txt is neither a .safetensors nor a .gguf file",
        ),
        (
            {"model": "demo", "transformer": "flux.gguf", "quantization": "int8"},
            "quantization: flux.gguf is quantized already; leave int8 out",
        ),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(values: dict[str, str], message: str) -> None:
    with pytest.raises(ModelError) as caught:
        request(**values)
    assert message in message_of(caught)


def test_a_gguf_file_needs_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("t2i_core.models.packages.importlib.util.find_spec", lambda name: None)
    for name in ("flux.gguf", "owner/name/q4.gguf"):
        with pytest.raises(ModelError, match=rf"{name} needs the gguf package; pip install 'text2image\[gguf\]'$"):
            request(model="flux-dev", transformer=name)
