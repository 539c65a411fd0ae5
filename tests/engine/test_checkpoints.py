"""What checkpoints supply is what the files say; the images are those of the folder that they were made from."""

import json
import re
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file

from t2i_core.bundled import DEMO_MODEL
from t2i_core.engine.load import library_versions, load_model, load_pipeline
from t2i_core.errors import ConfigError, ModelError
from t2i_core.generation.interface import LoadConfig, LocalCheckpoint
from t2i_core.spec import ImageSpec
from tests import single_files, tiny_pipelines
from tests.engine.float_images import float_images

ENCODERS = ("text_encoder", "text_encoder_2")


def load_config(path, *checkpoints, **values):
    return LoadConfig(str(path), "float32", "cpu", checkpoints=checkpoints, **values)


def image(config, **values):
    """The pixels of one image of the model."""
    load_model.cache_clear()
    settings = {"height": 64, "width": 64, "steps": 2, "dtype": "float32"} | values
    spec = ImageSpec(model="tiny", prompt="a fox in the snow", seed=3, **settings)
    (made,) = float_images(load_model(config), [[spec]], 1)
    return made


def weights_of(pipeline, component):
    return getattr(pipeline, component).state_dict()


def has_weights_of(component, one, other):
    mine, others = weights_of(one, component), weights_of(other, component)
    return mine.keys() == others.keys() and all(torch.equal(mine[name], others[name]) for name in mine)


def forget_weights(folder):
    """Leave of a model's folder what is small: configurations, tokenizers."""
    for file in folder.rglob("*.safetensors"):
        file.unlink()


@pytest.fixture(scope="module")
def sdxl(tmp_path_factory):
    """(a pipeline, its folder, the same weights in a single file)."""
    folder = tmp_path_factory.mktemp("sdxl")
    pipeline = tiny_pipelines.stable_diffusion_xl()
    pipeline.save_pretrained(folder / "base")
    file = single_files.save(single_files.stable_diffusion_xl_tensors(pipeline), folder / "model.safetensors")
    return pipeline, folder / "base", file


def test_a_single_file_of_sdxl_makes_the_images_of_its_folder(sdxl, tmp_path):
    _, folder, file = sdxl
    base = shutil.copytree(folder, tmp_path / "base")
    forget_weights(base)
    whole = LocalCheckpoint(file, ("unet", "vae", *ENCODERS))
    assert (image(load_config(base, whole)) == image(load_config(folder))).all()


def test_a_single_file_of_stable_diffusion_makes_the_images_of_its_folder(stable_diffusion, tmp_path):
    pipeline = StableDiffusionPipeline.from_pretrained(stable_diffusion)
    file = single_files.save(single_files.stable_diffusion_tensors(pipeline), tmp_path / "model.safetensors")
    whole = LocalCheckpoint(file, ("unet", "vae", "text_encoder"))
    assert (image(load_config(stable_diffusion, whole)) == image(load_config(stable_diffusion))).all()


def test_what_a_file_lacks_comes_from_the_folder(sdxl, tmp_path):
    pipeline, folder, _ = sdxl
    other = tiny_pipelines.stable_diffusion_xl()
    with torch.no_grad():
        for tensor in [*other.unet.parameters(), *other.vae.parameters()]:
            tensor.mul_(1.5)
    tensors = single_files.stable_diffusion_xl_tensors(other)
    without_encoders = {name: tensor for name, tensor in tensors.items() if not name.startswith("conditioner.")}
    file = single_files.save(without_encoders, tmp_path / "model.safetensors")
    loaded = load_pipeline(load_config(folder, LocalCheckpoint(file, ("unet", "vae"))))
    assert all(has_weights_of(component, loaded, other) for component in ("unet", "vae"))
    assert all(has_weights_of(component, loaded, pipeline) for component in ENCODERS)


def test_a_single_file_of_sd3_is_read_with_its_text_encoders(tmp_path):
    pipeline = tiny_pipelines.stable_diffusion_3()
    # As in all models of this family: the first encoder does not project.
    torch.nn.init.eye_(pipeline.text_encoder.text_projection.weight)
    pipeline.save_pretrained(tmp_path / "base")
    t5 = pipeline.text_encoder_3.state_dict()
    projection = pipeline.text_encoder_2.text_projection.weight
    tensors = {
        **single_files.sd3_tensors(pipeline.transformer),
        **single_files.vae_tensors(pipeline.vae),
        **single_files.clip_tensors(pipeline.text_encoder, "text_encoders.clip_l.transformer."),
        **single_files.clip_tensors(pipeline.text_encoder_2, "text_encoders.clip_g.transformer."),
        "text_encoders.clip_g.transformer.text_projection.weight": projection,
        **{f"text_encoders.t5xxl.transformer.{name}": t5[name] for name in t5 if "embed_tokens" not in name},
    }
    file = single_files.save(tensors, tmp_path / "model.safetensors")
    supplied = ("transformer", "vae", *ENCODERS, "text_encoder_3")
    loaded = load_pipeline(load_config(tmp_path / "base", LocalCheckpoint(file, supplied)))
    assert all(has_weights_of(component, loaded, pipeline) for component in supplied)


def damage(tensors, how):
    name = next(name for name in tensors if name.endswith("attn1.to_q.weight"))
    if how == "missing":
        del tensors[name]
    elif how == "unused":
        tensors[name.replace("to_q", "to_x")] = tensors[name]
    else:
        tensors[name] = tensors[name][:-1]


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("missing", "1 of UNet2DConditionModel missing from its files (mid_block.attentions.0"),
        ("unused", "1 in its files without a place in UNet2DConditionModel (mid_block.attentions.0"),
        ("shape", "1 of another shape than in UNet2DConditionModel"),
    ],
)
def test_weights_that_a_file_lacks_or_has_too_many_are_refused(sdxl, tmp_path, how, said):
    pipeline, folder, _ = sdxl
    tensors = dict(sorted(single_files.stable_diffusion_xl_tensors(pipeline).items(), reverse=True))
    tensors = {name: tensor for name, tensor in tensors.items() if "put_blocks" not in name} | tensors
    damage(tensors, how)
    file = single_files.save(tensors, tmp_path / "model.safetensors")
    with pytest.raises(ModelError) as error:
        load_pipeline(load_config(folder, LocalCheckpoint(file, ("unet",))))
    assert said in str(error.value)
    assert str(error.value).startswith(file)
    assert len(str(error.value).splitlines()) == 1


def test_a_tensor_that_the_conversion_loses_is_refused(sdxl, tmp_path):
    pipeline, folder, _ = sdxl
    tensors = single_files.stable_diffusion_xl_tensors(pipeline)
    tensors["model.diffusion_model.new_kind_of_layer.weight"] = torch.ones(3, 5)
    file = single_files.save(tensors, tmp_path / "model.safetensors")
    with pytest.raises(ModelError) as error:
        load_pipeline(load_config(folder, LocalCheckpoint(file, ("unet",))))
    held, taken = re.search(
        r"it holds ([\d,]+) values, and UNet2DConditionModel has a place for ([\d,]+)", str(error.value)
    ).groups()
    assert int(held.replace(",", "")) - int(taken.replace(",", "")) == 15
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("component", "tensor"),
    [
        ("text_encoder", "conditioner.embedders.0.transformer.text_model.final_layer_norm.weight"),
        ("text_encoder_2", "conditioner.embedders.1.model.text_projection"),
        ("vae", "first_stage_model.decoder.conv_in.weight"),
    ],
)
def test_every_part_that_a_file_supplies_is_checked(sdxl, tmp_path, component, tensor):
    pipeline, folder, _ = sdxl
    tensors = single_files.stable_diffusion_xl_tensors(pipeline)
    del tensors[tensor]
    file = single_files.save(tensors, tmp_path / "model.safetensors")
    with pytest.raises(ModelError, match=r"1 of \w+ missing from its files"):
        load_pipeline(load_config(folder, LocalCheckpoint(file, (component,))))


def test_a_part_that_a_file_does_not_hold_at_all_is_refused(sdxl, tmp_path):
    pipeline, folder, _ = sdxl
    tensors = single_files.vae_tensors(pipeline.vae)
    file = single_files.save(tensors, tmp_path / "model.safetensors")
    with pytest.raises(ModelError, match=r"^.*: UNet2DConditionModel cannot be loaded: .*") as error:
        load_pipeline(load_config(folder, LocalCheckpoint(file, ("unet",))))
    assert len(str(error.value).splitlines()) == 1


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    """The folder of a fine-tuned transformer of the demo model."""
    folder = tmp_path_factory.mktemp("tuned")
    transformer = load_pipeline(load_config(DEMO_MODEL)).transformer
    with torch.no_grad():
        for tensor in transformer.parameters():
            tensor.mul_(1.02)
    transformer.save_pretrained(folder)
    return folder


def test_a_transformer_takes_the_place_of_the_models_own_as_a_folder_and_as_a_file(tuned, tmp_path):
    in_place = shutil.copytree(DEMO_MODEL, tmp_path / "in_place")
    shutil.rmtree(in_place / "transformer")
    base = shutil.copytree(in_place, tmp_path / "base")  # without the transformer that is not loaded
    shutil.copytree(tuned, in_place / "transformer")
    expected = image(load_config(in_place))
    assert (expected != image(load_config(DEMO_MODEL))).any()
    assert (image(load_config(base, LocalCheckpoint(str(tuned), ("transformer",)))) == expected).all()
    (file,) = tuned.glob("*.safetensors")
    assert (image(load_config(DEMO_MODEL, LocalCheckpoint(str(file), ("transformer",)))) == expected).all()


def test_the_folder_of_a_transformer_is_loaded_in_its_variant(tuned, tmp_path):
    load_pipeline(load_config(DEMO_MODEL)).transformer.save_pretrained(tmp_path)
    plain = load_pipeline(load_config(DEMO_MODEL, LocalCheckpoint(str(tmp_path), ("transformer",))))
    shutil.copy(next(tuned.glob("*.safetensors")), tmp_path / "diffusion_pytorch_model.fp16.safetensors")
    variant = load_pipeline(load_config(DEMO_MODEL, LocalCheckpoint(str(tmp_path), ("transformer",), "fp16")))
    assert not has_weights_of("transformer", plain, variant)


def test_a_gguf_file_makes_nearly_the_image_of_the_weights_that_it_was_made_from(tmp_path):
    (weights,) = (DEMO_MODEL / "transformer").glob("*.safetensors")
    file = single_files.save_gguf(load_file(weights), tmp_path / "flux.gguf")
    config = load_config(DEMO_MODEL, LocalCheckpoint(file, ("transformer",)))
    settings = {"true_cfg_scale": 2.5, "negative_prompt": "", "max_sequence_length": 24, "steps": 6}
    difference = np.abs(image(config, **settings) - image(load_config(DEMO_MODEL), **settings))
    assert 0 < difference.mean() < 0.02
    assert "gguf" in library_versions(config)
    tensors = load_file(weights)
    del tensors["proj_out.bias"]
    file = single_files.save_gguf(tensors, tmp_path / "torn.gguf")
    with pytest.raises(ModelError, match=r"1 of FluxTransformer2DModel missing from its files \(proj_out\.bias\)"):
        load_pipeline(load_config(DEMO_MODEL, LocalCheckpoint(file, ("transformer",))))


def test_a_text_encoder_of_a_single_file_is_not_quantized(monkeypatch, sdxl):
    _, folder, file = sdxl

    quantization = SimpleNamespace(quant_mapping={"text_encoder": object()})
    monkeypatch.setattr("t2i_core.engine.load.quantization_config", lambda load_config: quantization)
    with pytest.raises(ConfigError, match=r"^quantization: text_encoder comes from .* leave quantization out"):
        load_pipeline(load_config(folder, LocalCheckpoint(file, ("text_encoder",)), quantization="int8"))


def test_a_config_of_another_model_is_refused(sdxl, tmp_path):
    _, folder, file = sdxl
    base = shutil.copytree(folder, tmp_path / "base")
    config = base / "unet" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"block_out_channels": [16, 64]}))
    with pytest.raises(ModelError, match="of another shape than in UNet2DConditionModel"):
        load_pipeline(load_config(base, LocalCheckpoint(file, ("unet",))))
