"""A LoRA changes what its file says, all of it, or is refused; files of several trainers are read."""

import logging
import struct

import numpy as np
import pytest
import torch
from diffusers import FluxPipeline
from peft import LoraConfig, get_peft_model_state_dict
from safetensors.torch import load_file, save_file

from t2i_core.bundled import DEMO_MODEL
from t2i_core.engine.load import load_pipeline
from t2i_core.engine.lora import NamedTensor, add_loras
from t2i_core.errors import ModelError
from t2i_core.generation.interface import LoadConfig
from tests import tiny_pipelines

RANK = 4
FAMILIES = ("stable_diffusion_3", "stable_diffusion_xl", "qwen_image", "z_image", "cogview4", "lumina2")
WITH_CLIP = ("stable_diffusion_3", "stable_diffusion_xl")


def pipeline(*adapters, **values):
    """The demo model with LoRAs."""
    return load_pipeline(LoadConfig(str(DEMO_MODEL), "float32", "cpu", adapters=adapters, **values))


def image(loaded):
    call = {"num_inference_steps": 1, "height": 64, "width": 64, "max_sequence_length": 24, "output_type": "np"}
    return loaded("a fox", generator=torch.Generator("cpu").manual_seed(1), **call).images[0]


@pytest.fixture(scope="module")
def attention():
    """The names of some linear layers of the demo's transformer -> (inputs, outputs)."""
    transformer = FluxPipeline.from_pretrained(DEMO_MODEL, dtype=torch.float32).transformer
    names = [name for name, _ in transformer.named_modules() if name.endswith(("attn.to_q", "attn.to_v"))]
    layers = [transformer.get_submodule(name) for name in names]
    return {name: (layer.in_features, layer.out_features) for name, layer in zip(names, layers, strict=True)}


@pytest.fixture
def own(attention):
    """The weights of a LoRA of all these layers, under the names of diffusers."""
    torch.manual_seed(0)
    weights = {}
    for name, (inputs, outputs) in attention.items():
        weights[f"transformer.{name}.lora_A.weight"] = torch.randn(RANK, inputs) * 0.1
        weights[f"transformer.{name}.lora_B.weight"] = torch.randn(outputs, RANK) * 0.1
    return weights


@pytest.fixture
def write(tmp_path):
    """Write weights to a file: `write(weights)` -> its name."""

    def call(weights, name="style.safetensors"):
        save_file({key: tensor.contiguous() for key, tensor in weights.items()}, tmp_path / name)
        return str(tmp_path / name)

    return call


def refusal(file, **values):
    with pytest.raises(ModelError) as error:
        pipeline((file, 1.0), **values)
    assert str(error.value).startswith(f"{file}: ")
    assert len(str(error.value).splitlines()) == 1
    return str(error.value)


def renamed(weights, *changes):
    result = {}
    for name, tensor in weights.items():
        for old, new in changes:
            name = name.replace(old, new)
        result[name] = tensor
    return result


def bfl(width, down, up, head, separator):
    """The weights of a LoRA of FLUX's joint projection, which diffusers splits into three."""
    torch.manual_seed(0)
    name = f"{head}double_blocks{separator}0{separator}img_attn{separator}qkv"
    return {
        f"{name}.{down}.weight": torch.randn(RANK, width) * 0.1,
        f"{name}.{up}.weight": torch.randn(3 * width, RANK) * 0.1,
    }


def test_a_lora_makes_the_images_that_diffusers_makes_with_it(own, write):
    file = write(own)
    theirs = FluxPipeline.from_pretrained(DEMO_MODEL, dtype=torch.float32)
    theirs.set_progress_bar_config(disable=True)
    theirs.load_lora_weights(file, adapter_name="style")
    theirs.set_adapters(["style"], [0.7])
    ours = pipeline((file, 0.7))
    assert np.array_equal(image(ours), image(theirs))
    assert not any(isinstance(parameter, NamedTensor) for parameter in ours.transformer.parameters())


def test_two_loras_load_together_and_both_count(own, write):
    one, other = write(own), write({name: -2 * tensor for name, tensor in own.items()}, "other.safetensors")
    images = [image(pipeline(*adapters)) for adapters in ([(one, 1.0)], [(other, 1.0)], [(one, 1.0), (other, 1.0)])]
    assert np.abs(images[0] - images[2]).max() > 1 / 255
    assert np.abs(images[1] - images[2]).max() > 1 / 255
    # One of weight 0 leaves the image to the other.
    assert np.allclose(image(pipeline((one, 1.0), (other, 0.0))), images[0], atol=1e-5)


@pytest.mark.parametrize("head", ["", "diffusion_model.", "model.diffusion_model.", "base_model.model."])
def test_the_denoisers_own_names_are_read_with_the_prefixes_of_other_trainers(own, write, head):
    expected = image(pipeline((write(own), 1.0)))
    file = write(
        renamed(own, ("transformer.trans", f"{head}trans"), ("transformer.single", f"{head}single")), "b.safetensors"
    )
    assert np.array_equal(image(pipeline((file, 1.0))), expected)


@pytest.mark.parametrize(
    ("down", "up", "head", "separator"),
    [
        ("lora_A", "lora_B", "diffusion_model.", "."),
        ("lora_A", "lora_B", "", "."),
        ("lora_down", "lora_up", "diffusion_model.", "."),
    ],
)
def test_names_of_flux_itself_mean_the_same_in_every_form(attention, write, down, up, head, separator):
    width = attention["transformer_blocks.0.attn.to_q"][0]
    expected = image(pipeline((write(bfl(width, "lora_down", "lora_up", "lora_unet_", "_")), 1.0)))
    file = write(bfl(width, down, up, head, separator), "other.safetensors")
    assert np.array_equal(image(pipeline((file, 1.0))), expected)


def test_a_complete_file_is_announced_as_such_and_without_noise(own, write, caplog, capfd):
    file = write(own)
    with caplog.at_level(logging.INFO):
        pipeline((file, 1.0))
    assert f"{file}: all {len(own)} tensors used" in caplog.text
    assert "No LoRA keys" not in capfd.readouterr().err


def extra(own, **tensors):
    first = next(iter(own)).removesuffix(".lora_A.weight")
    return own | {f"{first}.{name}": tensor for name, tensor in tensors.items()}


T5 = "encoder.block.0.layer.0.SelfAttention.q"
PARTIAL = {
    "one module of all": lambda own: {
        name.replace("blocks.", "nowhere.") if index > 1 else name: tensor
        for index, (name, tensor) in enumerate(own.items())
    },
    "dora_scale": lambda own: extra(own, dora_scale=torch.ones(1, 4)),
    "LoKr": lambda own: extra(own, lokr_w1=torch.ones(4, 4), lokr_w2=torch.ones(4, 4)),
    "T5": lambda own: own | {f"text_encoder_2.{T5}.lora_{side}.weight": torch.ones(RANK, RANK) for side in "AB"},
    "biases": lambda own: extra(own, diff_b=torch.ones(4)),
}


@pytest.mark.parametrize("kind", PARTIAL)
def test_a_file_that_is_not_used_as_a_whole_is_refused(own, write, kind):
    message = refusal(write(PARTIAL[kind](own)))
    assert f" of {len(PARTIAL[kind](own))} tensors used by FluxPipeline, left out: " in message
    assert message.endswith("convert the file, or accept that with --lora-partial")


def test_what_was_left_of_a_file_is_named(own, write):
    name = next(iter(own)).replace("lora_A.weight", "dora_scale")
    file = write(own | {name: torch.ones(1, 4)})
    assert f"{len(own)} of {len(own) + 1} tensors used by FluxPipeline, left out: {name};" in refusal(file)


def test_a_file_is_used_in_part_where_that_is_asked_for(own, write, caplog):
    expected = image(pipeline((write(own), 1.0)))
    file = write(PARTIAL["T5"](own), "part.safetensors")
    assert np.array_equal(image(pipeline((file, 1.0), lora_partial=True)), expected)
    assert f"{file}: {len(own)} of {len(own) + 2} tensors used; left out: text_encoder_2." in caplog.text


def test_a_lora_of_another_width_is_refused_with_both_widths(own, attention, write):
    wide = {name: torch.cat([tensor, tensor], 1) if "lora_A" in name else tensor for name, tensor in own.items()}
    name, (width, _) = next(iter(attention.items()))
    message = refusal(write(wide))
    assert f"it is for a model of another width, {2 * width} for {width} in transformer.{name}" in message


@pytest.mark.parametrize(
    "weights",
    [
        {"transformer.nowhere.lora_A.weight": torch.ones(4, 4), "transformer.nowhere.lora_B.weight": torch.ones(4, 4)},
        {"lokr_w1": torch.ones(4, 4)},
        {"a": torch.ones(4)},
    ],
    ids=str,
)
def test_a_file_without_any_use_is_refused_whatever_is_allowed(write, weights):
    assert "does not fit FluxPipeline: " in refusal(write(weights), lora_partial=True)


def test_a_torn_file_is_one_line(tmp_path):
    file = tmp_path / "torn.safetensors"
    file.write_bytes(struct.pack("<Q", 900) + b"{")
    assert "cannot be read" in refusal(str(file))


@pytest.fixture(scope="module", params=FAMILIES)
def family(request, tmp_path_factory):
    """(name, part, file): a LoRA of a tiny pipeline of a family, as diffusers saves it, text encoders included."""
    saved = getattr(tiny_pipelines, request.param)()
    part = "unet" if hasattr(saved, "unet") else "transformer"
    targets = {part: ["to_q", "to_v"]}
    if request.param in WITH_CLIP:
        targets |= {name: ["q_proj", "v_proj"] for name in ("text_encoder", "text_encoder_2")}
    layers = {}
    for name, modules in targets.items():
        component = getattr(saved, name)
        component.add_adapter(LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules=modules))
        layers[f"{name}_lora_layers"] = get_peft_model_state_dict(component)
    folder = tmp_path_factory.mktemp(request.param)
    type(saved).save_lora_weights(folder, weight_name="style.safetensors", **layers)
    return request.param, part, str(folder / "style.safetensors")


def test_complete_files_of_every_family_are_used_as_a_whole(family):
    name, _, file = family
    loaded = getattr(tiny_pipelines, name)()
    add_loras(loaded, [(file, 0.5), (file, 1.0)], partial=False)
    assert {adapter for names in loaded.get_list_adapters().values() for adapter in names} == {"lora0", "lora1"}


def test_files_of_every_family_without_the_denoisers_prefix_are_used_as_a_whole(family, write):
    name, part, file = family
    bare = write({key.removeprefix(f"{part}."): tensor for key, tensor in load_file(file).items()})
    add_loras(getattr(tiny_pipelines, name)(), [(bare, 1.0)], partial=False)


def test_a_wider_file_is_refused_in_every_family_with_the_reason(family, write, capfd):
    name, _, file = family
    wide = {k: torch.cat([t, t], 1) if "lora_A" in k else t for k, t in load_file(file).items()}
    with pytest.raises(ModelError, match=r"does not fit .*Pipeline: .*size mismatch for "):
        add_loras(getattr(tiny_pipelines, name)(), [(write(wide), 1.0)], partial=False)
    assert "size mismatch" not in capfd.readouterr().err


def test_a_file_with_an_unknown_module_is_refused_in_every_family(family, write):
    name, part, file = family
    weights = load_file(file) | {f"{part}.nowhere.to_q.lora_{side}.weight": torch.ones(RANK, RANK) for side in "AB"}
    with pytest.raises(ModelError, match=rf"left out: {part}\.nowhere\.to_q\.lora_A\.weight"):
        add_loras(getattr(tiny_pipelines, name)(), [(write(weights), 1.0)], partial=False)


def test_a_pipeline_that_takes_no_lora_says_so(own, write):
    with pytest.raises(ModelError, match="PixArtSigmaPipeline takes no LoRA; leave --lora out"):
        add_loras(tiny_pipelines.pixart_sigma(), [(write(own), 1.0)], partial=False)


def kohya(module, head, suffixes):
    """The weights of a LoRA of some linear layers of a module, as kohya's trainer writes them."""
    weights = {}
    for name, layer in module.named_modules():
        if isinstance(layer, torch.nn.Linear) and name.endswith(suffixes):
            # Newer versions of transformers have no module of this name in every text encoder; trainers write it.
            key = f"{head}{name.removeprefix('text_model.').replace('.', '_')}"
            weights[f"{key}.lora_down.weight"] = torch.ones(RANK, layer.in_features)
            weights[f"{key}.lora_up.weight"] = torch.ones(layer.out_features, RANK)
            weights[f"{key}.alpha"] = torch.tensor(2.0)
    return weights


CLIP = ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2")


def test_kohyas_files_with_text_encoders_are_used_as_a_whole(attention, write):
    sdxl = tiny_pipelines.stable_diffusion_xl()
    weights = kohya(sdxl.unet, "lora_unet_", ("to_q", "to_k", "to_v"))
    weights |= kohya(sdxl.text_encoder, "lora_te1_text_model_", CLIP)
    weights |= kohya(sdxl.text_encoder_2, "lora_te2_text_model_", CLIP)
    add_loras(sdxl, [(write(weights), 1.0)], partial=False)
    assert set(sdxl.get_list_adapters()) == {"unet", "text_encoder", "text_encoder_2"}

    flux = pipeline()
    width = attention["transformer_blocks.0.attn.to_q"][0]
    weights = bfl(width, "lora_down", "lora_up", "lora_unet_", "_")
    weights |= kohya(flux.text_encoder, "lora_te1_text_model_", CLIP)
    add_loras(flux, [(write(weights), 1.0)], partial=False)
    assert set(flux.get_list_adapters()) == {"transformer", "text_encoder"}
