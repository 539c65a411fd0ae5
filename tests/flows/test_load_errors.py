"""What goes wrong while the model is loaded ends the run at once, in one line, after one attempt."""

import os
import shutil

import pytest
import torch
from diffusers import DiffusionPipeline
from safetensors.torch import load_file, save_file

from t2i_core.bundled import DEMO_MODEL
from t2i_core.engine import load
from t2i_core.errors import ModelError
from t2i_core.generation.interface import LoadConfig
from tasks.generation import load_generator

ROWS = [f"picture {i}" for i in range(8)]


@pytest.fixture
def loads(monkeypatch):
    """A list that grows by one with every pipeline that is loaded."""
    original, calls = DiffusionPipeline.from_pretrained.__func__, []

    def from_pretrained(cls, *arguments, **options):
        calls.append(cls)
        return original(cls, *arguments, **options)

    monkeypatch.setattr(DiffusionPipeline, "from_pretrained", classmethod(from_pretrained))
    return calls


@pytest.fixture
def model(tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(DEMO_MODEL, folder)
    return folder


def refused_once(state, loads):
    """The message of a run that was refused after the model was loaded at most once."""
    assert state.name == "Refused"
    assert len(state.message.splitlines()) == 1
    assert len(loads) <= 1
    return state.message


def many_shards(prompts, **values):
    return {"dataset": prompts(*ROWS), "batch_size": 1, "save_interval": 1, "retries": 2} | values


def test_a_torn_text_encoder(run, prompts, loads, model):
    file = model / "text_encoder_2" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])
    assert str(file) in refused_once(run(**many_shards(prompts, model=str(model))), loads)


def test_missing_weights_of_the_transformer(run, prompts, loads, model):
    (file,) = (model / "transformer").glob("*.safetensors")
    weights = load_file(file)
    del weights["proj_out.weight"]
    save_file(weights, file, metadata={"format": "pt"})
    message = refused_once(run(**many_shards(prompts, model=str(model))), loads)
    assert message.startswith(f"{model / 'transformer'}: weights: 1 of FluxTransformer2DModel missing")
    assert "(proj_out.weight)" in message


def test_a_function_that_returns_no_pipeline(run, prompts, loads, tmp_path):
    file = tmp_path / "mine.py"
    file.write_text("def f(pipeline):\n    return 'done'\n")
    message = refused_once(run(**many_shards(prompts, prepare=f"{file}:f")), loads)
    assert message.startswith(f"prepare: {file}:f returned a str; let it return the pipeline, or nothing")


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (AssertionError("no kernel for this card"), "cannot be loaded: AssertionError: no kernel for this card"),
        (torch.OutOfMemoryError("CUDA out of memory"), "does not fit into memory: CUDA out of memory; use --offload"),
        (MemoryError(), "does not fit into memory: MemoryError; use --offload"),
    ],
    ids=repr,
)
def test_whatever_is_raised(run, prompts, loads, model, monkeypatch, error, reason):
    def fail(*arguments):
        raise error

    monkeypatch.setattr("t2i_core.engine.load._place", fail)
    assert refused_once(run(**many_shards(prompts, model=str(model))), loads).startswith(f"{model}: {reason}")


def lora(folder):
    """A LoRA of the demo model, with a weight that diffusers leaves out."""
    name = "transformer.transformer_blocks.0.attn.to_q"
    width = load_file(DEMO_MODEL / "transformer" / "diffusion_pytorch_model.safetensors")[
        f"{name.removeprefix('transformer.')}.weight"
    ].shape[0]
    weights = {
        "lora_A.weight": torch.ones(2, width),
        "lora_B.weight": torch.ones(width, 2),
        "dora_scale": torch.ones(1),
    }
    save_file({f"{name}.{key}": tensor for key, tensor in weights.items()}, folder / "style.safetensors")
    return str(folder / "style.safetensors")


def test_a_lora_that_is_not_used_as_a_whole(run, output, prompts, loads, tmp_path):
    file = lora(tmp_path)
    message = refused_once(run(**many_shards(prompts, lora=[file])), loads)
    assert message.startswith(f"{file}: 2 of 3 tensors used by FluxPipeline, left out: ")
    assert "dora_scale" in message
    assert run(dataset=prompts("a fox"), lora=[file], lora_partial=True).is_completed()
    assert output.counts()["images_generated"] == 1


def test_a_failed_load_is_remembered_by_the_process_for_its_run(loads, model):
    (file,) = (model / "vae").glob("*.safetensors")
    whole = file.read_bytes()
    file.write_bytes(whole[:-1000])
    load_config = LoadConfig(str(model), "float32", "cpu")
    for _ in range(3):
        with pytest.raises(ModelError, match="cannot be read"):
            load_generator(load_config, "first run")
    assert len(loads) == 1
    file.write_bytes(whole)
    assert load_generator(load_config, "second run").device == "cpu"


@pytest.mark.parametrize("edited", ["the model", "a LoRA", "the function"])
def test_a_file_that_is_replaced_after_it_was_hashed_makes_no_image(
    run, output, prompts, model, tmp_path, monkeypatch, edited
):
    """Its images would be stored under keys of the file that was there before, for every later run."""
    lora, function = tmp_path / "style.safetensors", tmp_path / "prep.py"
    name = "transformer_blocks.0.attn.to_q"
    width = load_file(next((model / "transformer").glob("*.safetensors")))[f"{name}.weight"].shape[0]
    save_file(
        {
            f"transformer.{name}.lora_A.weight": torch.ones(1, width),
            f"transformer.{name}.lora_B.weight": torch.ones(width, 1),
        },
        lora,
    )
    function.write_text("def f(pipeline): pass\n")
    path = {"the model": next((model / "vae").glob("*.safetensors")), "a LoRA": lora, "the function": function}[edited]
    content, status = path.read_bytes(), path.stat()
    other = content.replace(b"pass", b"f(1)") if edited == "the function" else content[:-1] + b"\1"

    def put(data):
        path.with_name("new").write_bytes(data)
        path.with_name("new").replace(path)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))

    import flows.text2image as module

    fetch = module.fetch
    monkeypatch.setattr(module, "fetch", lambda *arguments: put(other) or fetch(*arguments))
    options = {
        "dataset": prompts("a fox"), "model": str(model), "lora": [str(lora)], "prepare": f"{function}:f",
        "negative_prompt": "", "batch_size": 1,
    }  # fmt: skip
    state = run(**options)
    assert state.name == "Refused"
    assert "run the same command again" in state.message
    assert path.name in state.message
    assert output.stored() == {}
    monkeypatch.undo()
    put(content)
    load.load_model.cache_clear()
    assert run(**options).is_completed()
    assert len(output.stored()) == 1
