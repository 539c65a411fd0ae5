"""What is loaded is what the files say: a part with weights missing, left over or of another shape is refused."""

import json
import shutil

import pytest
import torch
from diffusers import ModelMixin
from safetensors.torch import load_file, save_file
from transformers import (
    CLIPConfig,
    CLIPModel,
    Gemma2ForCausalLM,
    GlmForCausalLM,
    PreTrainedModel,
    Qwen3ForCausalLM,
    T5ForConditionalGeneration,
)

from t2i_core.bundled import DEMO_MODEL
from t2i_core.engine.load import load_pipeline
from t2i_core.errors import ModelError
from t2i_core.generation.interface import LoadConfig
from tests import tiny_pipelines

FAMILIES = [
    *("stable_diffusion_3", "stable_diffusion_xl", "pixart_sigma", "qwen_image", "z_image", "cogview4", "lumina2"),
]


def load(folder):
    return load_pipeline(LoadConfig(str(folder), "float32", "cpu"))


@pytest.fixture
def model(tmp_path):
    """A copy of the demo model."""
    folder = tmp_path / "model"
    shutil.copytree(DEMO_MODEL, folder)
    return folder


def change_weights(model, part, change):
    """Rewrite the weights of a part as `change(dict of tensors)` leaves them."""
    (file,) = (model / part).glob("*.safetensors")
    weights = load_file(file)
    change(weights)
    save_file(weights, file, metadata={"format": "pt"})


def change_config(model, part, **values):
    file = model / part / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def refusal(model):
    with pytest.raises(ModelError) as error:
        load(model)
    assert len(str(error.value).splitlines()) == 1
    return str(error.value)


def a_layer_less(model, part):
    names = {"text_encoder": "num_hidden_layers", "text_encoder_2": "num_layers", "transformer": "num_layers"}
    config = json.loads((model / part / "config.json").read_text())
    if part == "vae":
        return change_config(model, part, layers_per_block=config["layers_per_block"] - 1)
    return change_config(model, part, **{names[part]: config[names[part]] - 1})


PARTS = ["text_encoder", "text_encoder_2", "transformer", "vae"]


@pytest.mark.parametrize("part", PARTS)
def test_missing_weights_are_refused_in_every_part(model, part):
    gone = []

    def remove_two(weights):
        gone.extend(sorted(name for name in weights if name.endswith(".weight") and "shared" not in name)[:2])
        for name in gone:
            del weights[name]

    change_weights(model, part, remove_two)
    message = refusal(model)
    assert message.startswith(f"{model / part}: weights: 2 of ")
    assert " missing from its files (" in message
    assert "download or convert the model again" in message


@pytest.mark.parametrize("part", PARTS)
def test_prefixed_weights_are_refused_in_every_part(model, part):
    def prefix(weights):
        for name in list(weights):
            weights[f"module.{name}"] = weights.pop(name)

    change_weights(model, part, prefix)
    message = refusal(model)
    assert message.startswith(f"{model / part}: ")
    assert " missing from its files (" in message
    assert " in its files without a place in " in message
    assert "(module." in message
    assert " more)" in message


@pytest.mark.parametrize("part", PARTS)
def test_weights_without_a_place_are_refused_in_every_part(model, part):
    a_layer_less(model, part)
    message = refusal(model)
    assert message.startswith(f"{model / part}: ")
    assert " in its files without a place in " in message


@pytest.mark.parametrize("part", PARTS)
def test_weights_of_another_shape_are_refused_in_every_part(model, part):
    changed = []

    def widen(weights):
        name = sorted(name for name, tensor in weights.items() if tensor.ndim and name.endswith("weight"))[0]
        weights[name] = torch.cat([weights[name], weights[name]])
        changed.append(name)

    change_weights(model, part, widen)
    message = refusal(model)
    assert message.startswith(f"{model / part}: ")
    assert changed[0].removeprefix("text_model.") in message


@pytest.mark.parametrize("part", PARTS)
def test_a_torn_file_is_named(model, part):
    (file,) = (model / part).glob("*.safetensors")
    file.write_bytes(file.read_bytes()[:-1000])
    assert refusal(model).startswith(f"{file}: cannot be read (")


@pytest.mark.parametrize("shard_size", ["10GB", "10KB"])
@pytest.mark.parametrize("family", FAMILIES)
def test_complete_models_of_every_family_load_with_the_weights_that_were_saved(family, shard_size, tmp_path):
    saved = getattr(tiny_pipelines, family)()
    saved.save_pretrained(tmp_path, max_shard_size=shard_size)
    loaded = load(tmp_path)
    for name, part in saved.components.items():
        if isinstance(part, torch.nn.Module):
            weights = getattr(loaded, name).state_dict()
            assert weights.keys() == part.state_dict().keys()
            assert all(torch.equal(weights[key], tensor) for key, tensor in part.state_dict().items())


def test_a_shard_that_lacks_a_weight_is_refused(tmp_path):
    tiny_pipelines.z_image().save_pretrained(tmp_path, max_shard_size="10KB")
    file = sorted((tmp_path / "text_encoder").glob("*.safetensors"))[1]
    weights = load_file(file)
    gone, _ = weights.popitem()
    index = tmp_path / "text_encoder" / "model.safetensors.index.json"
    listed = json.loads(index.read_text())
    del listed["weight_map"][gone]
    index.write_text(json.dumps(listed))
    save_file(weights, file, metadata={"format": "pt"})
    assert gone.removeprefix("model.") in refusal(tmp_path)


def test_a_head_that_the_pipeline_does_not_take_is_no_fault_where_the_files_say_so(tmp_path):
    tiny_pipelines.z_image().save_pretrained(tmp_path)

    def add_head(weights):
        weights["lm_head.weight"] = torch.zeros(3, 3)

    change_weights(tmp_path, "text_encoder", add_head)
    assert "lm_head.weight" in refusal(tmp_path)
    change_config(tmp_path, "text_encoder", architectures=["Qwen3ForCausalLM"])
    load(tmp_path)
    change_config(tmp_path, "text_encoder", num_hidden_layers=2, layer_types=["full_attention"] * 2)
    assert "layers.2." in refusal(tmp_path)


def whole_clip(text_encoder):
    text = text_encoder.config.to_dict()
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision = sizes | {"image_size": 8, "patch_size": 4}
    return CLIPModel(
        CLIPConfig(text_config=text, vision_config=vision, projection_dim=text_encoder.config.projection_dim)
    )


@pytest.mark.parametrize(
    ("family", "part", "larger"),
    [
        ("stable_diffusion_xl", "text_encoder", whole_clip),
        ("stable_diffusion_xl", "text_encoder_2", whole_clip),
        ("pixart_sigma", "text_encoder", lambda encoder: T5ForConditionalGeneration(encoder.config)),
        ("z_image", "text_encoder", lambda encoder: Qwen3ForCausalLM(encoder.config)),
        ("lumina2", "text_encoder", lambda encoder: Gemma2ForCausalLM(encoder.config)),
        ("cogview4", "text_encoder", lambda encoder: GlmForCausalLM(encoder.config)),
    ],
)
def test_files_of_a_larger_model_are_complete_for_the_part_that_the_pipeline_takes(family, part, larger, tmp_path):
    pipeline = getattr(tiny_pipelines, family)()
    pipeline.save_pretrained(tmp_path)
    larger(getattr(pipeline, part)).save_pretrained(tmp_path / part)
    load(tmp_path)


@pytest.mark.parametrize("name", ["encoder.embed_tokens.weight", "shared.weight"])
def test_tied_weights_need_to_be_in_the_files_once(name, tmp_path):
    tiny_pipelines.pixart_sigma().save_pretrained(tmp_path)
    change_weights(
        tmp_path, "text_encoder", lambda weights: weights.update({name: weights.pop("shared.weight").clone()})
    )
    load(tmp_path)


@pytest.mark.parametrize(
    ("family", "part", "older"),
    [
        ("qwen_image", "text_encoder", {"model.language_model.": "model.", "model.visual.": "visual."}),
        ("stable_diffusion_xl", "vae", {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}),
    ],
)
def test_names_of_older_versions_are_those_of_a_complete_model(family, part, older, tmp_path):
    getattr(tiny_pipelines, family)().save_pretrained(tmp_path)

    def rename(weights):
        for name in list(weights):
            new = name
            for now, then in older.items():
                new = new.replace(now, then)
            weights[new] = weights.pop(name)

    change_weights(tmp_path, part, rename)
    load(tmp_path)


def test_an_old_text_encoder_with_position_ids_is_complete(model):
    change_weights(
        model, "text_encoder", lambda weights: weights.update({"text_model.embeddings.position_ids": torch.arange(24)})
    )
    load(model)


def test_a_refusal_is_the_only_line(model, capfd):
    a_layer_less(model, "transformer")
    refusal(model)
    assert "not used when initializing" not in capfd.readouterr().err


def test_the_libraries_are_as_before_once_a_pipeline_is_loaded_or_refused(model):
    before = [vars(base)["from_pretrained"] for base in (PreTrainedModel, ModelMixin)]
    load(model)
    a_layer_less(model, "vae")
    refusal(model)
    assert [vars(base)["from_pretrained"] for base in (PreTrainedModel, ModelMixin)] == before
