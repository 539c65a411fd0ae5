"""Each prompt of a batch gets its own image, whatever shares the batch; LoRA; pipelines without a preset."""

import gc
import shutil
import weakref
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import save_file

from t2i_core.bundled import DEMO_MODEL
from t2i_core.engine import load as module
from t2i_core.engine.load import load_model, load_pipeline
from t2i_core.errors import ModelError, Stopped
from t2i_core.generation.interface import Timings
from t2i_core.hashing import file_sha256
from t2i_core.models.loaded_files import LoadedFile, file_state
from t2i_core.spec import ImageSpec
from tests import tiny_pipelines
from tests.engine.demo import load_config
from tests.engine.float_images import float_images

# As in the images that the demo model was trained on (examples/bundled_model/world.py).
COLOURS = {
    "red": (220, 40, 40), "green": (40, 165, 70), "blue": (45, 85, 225), "yellow": (245, 215, 50),
    "orange": (245, 140, 30), "purple": (140, 60, 180), "white": (245, 245, 245), "black": (25, 25, 25),
    "gray": (150, 150, 150), "pink": (250, 190, 205),
}  # fmt: skip


@pytest.fixture(scope="module")
def demo():
    return load_model(load_config())


def spec(prompt, seed=0, **values):
    defaults = {"height": 64, "width": 64, "steps": 8, "dtype": "float32", "true_cfg_scale": 2.5}
    defaults |= {"negative_prompt": "", "max_sequence_length": 24}
    return ImageSpec(model="demo", prompt=prompt, seed=seed, **defaults | values)


def generate(model, specs, batch_size=4):
    """The pixels of images that share a call group."""
    batches = [specs[i : i + batch_size] for i in range(0, len(specs), batch_size)]
    return float_images(model, batches, batch_size)


def colour_of(pixels):
    """The nearest colour to the median of some pixels in 0..1."""
    middle = np.median(pixels.reshape(-1, 3), axis=0) * 255
    return min(COLOURS, key=lambda name: np.abs(np.array(COLOURS[name]) - middle).sum())


def read(image):
    """(colour of the shape, wherever it is, colour of the background)."""
    ground = np.median(image.reshape(-1, 3), axis=0)  # a shape takes a third at most
    return colour_of(image[np.abs(image - ground).sum(-1) > 0.4]), colour_of(ground)


@pytest.mark.parametrize("batch_size", [1, 3, 6])
def test_each_image_of_a_batch_shows_its_own_prompt_in_any_order_and_batch_size(demo, batch_size):
    wanted = [("red", "white"), ("blue", "yellow"), ("green", "pink"), ("purple", "black"), ("orange", "gray")]
    for order in (wanted, wanted[::-1]):
        specs = [spec(f"a {shape} circle on a {ground} background", seed=i) for i, (shape, ground) in enumerate(order)]
        assert [read(image) for image in generate(demo, specs, batch_size)] == order


def test_the_same_seed_gives_the_same_image_after_save_and_load(demo, tmp_path):
    load_pipeline(load_config()).save_pretrained(tmp_path / "copy")
    again = load_model(load_config(path=str(tmp_path / "copy")))
    one = [spec("a fox in the snow at night", seed=5, steps=2)]
    assert (generate(again, one)[0] == generate(demo, one)[0]).all()


def test_an_image_is_bit_identical_whatever_its_batch_mates_and_index(demo):
    one = spec("a cat in a meadow by day", seed=11, steps=2)
    batch_mates = [spec(f"mate {i}", seed=i, steps=2) for i in range(3)]
    alone = generate(demo, [one])[0]
    for index in range(4):
        batch = [*batch_mates[:index], one, *batch_mates[index:]]
        assert (generate(demo, batch)[index] == alone).all()


def test_seed_guidance_and_negative_prompt_change_the_image(demo):
    def first(**values):
        return generate(demo, [spec("a fox", **{"steps": 2} | values)], 1)[0]

    plain = first()
    assert (first() == plain).all()
    for change in ({"seed": 1}, {"true_cfg_scale": 5.0}, {"negative_prompt": "a fox"}, {"steps": 3}):
        assert np.abs(first(**change) - plain).max() > 1 / 255, change


def test_a_stop_ends_within_a_step(demo):
    asked = []

    def stop_at_third():
        asked.append(1)
        return len(asked) == 3

    with pytest.raises(Stopped):
        list(demo.generate([[spec("a fox", steps=12)]], 1, stop_at_third, Timings()))
    assert len(asked) == 3


def test_a_broken_weights_file_is_one_line(tmp_path):
    folder = tmp_path / "broken"
    shutil.copytree(DEMO_MODEL, folder)
    (folder / "vae" / "diffusion_pytorch_model.safetensors").write_bytes(b"no")
    with pytest.raises(ModelError) as error:
        load_pipeline(load_config(path=str(folder)))
    assert str(folder) in str(error.value)
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize("shards", [{}, {"max_shard_size": "40KB"}])
def test_the_variant_is_what_is_loaded_where_a_part_has_it(tmp_path, shards):
    pipeline = tiny_pipelines.stable_diffusion_xl()
    pipeline.save_pretrained(tmp_path)
    for part in (pipeline.unet, pipeline.text_encoder_2):
        with torch.no_grad():
            for tensor in part.parameters():
                tensor.zero_()
        part.save_pretrained(
            tmp_path / ("unet" if part is pipeline.unet else "text_encoder_2"), variant="fp16", **shards
        )
    loaded = load_pipeline(load_config(path=str(tmp_path), variant="fp16"))
    for name, is_zero in {"unet": True, "text_encoder_2": True, "text_encoder": False, "vae": False}.items():
        assert all(not tensor.any() for tensor in getattr(loaded, name).parameters()) == is_zero, name


def test_a_model_leaves_memory_before_another_is_loaded(monkeypatch, stable_diffusion):
    """The two together would not fit on a GPU."""
    load_model.cache_clear()
    before = weakref.ref(load_model(load_config()))
    original, alive = module.load_pipeline, []

    def load_pipeline_and_look(load_config):
        alive.append(before() is not None)
        return original(load_config)

    monkeypatch.setattr(module, "load_pipeline", load_pipeline_and_look)
    load_model(load_config(path=stable_diffusion))
    assert alive == [False]


def test_an_error_of_a_failed_load_holds_nothing_that_was_loaded(monkeypatch):
    held = []

    def fail(pipeline, *arguments):
        held.append(weakref.ref(pipeline))
        raise AssertionError

    monkeypatch.setattr(module, "_place", fail)
    with pytest.raises(ModelError, match="cannot be loaded: AssertionError") as error:
        load_model(load_config(dtype="bfloat16"))
    assert error.value.__cause__ is None
    gc.collect()
    assert held[0]() is None


def test_fp8_asks_to_be_compiled(monkeypatch, caplog):
    monkeypatch.setattr(module, "check_quantization", lambda *settings: None)
    monkeypatch.setattr(module, "load_pipeline", lambda load_config: None)
    monkeypatch.setattr(module, "generator_of", lambda *arguments: 1 / 0)
    for compiled in (True, False):
        with pytest.raises(ModelError):
            load_model(load_config(quantization="fp8", compile=compiled))
        assert ("add --compile" in caplog.text) is not compiled


def test_a_loaded_pipeline_is_in_evaluation_mode_and_counts_tokens(demo):
    pipeline = load_pipeline(load_config())
    assert not any(module._modules(pipeline)[name].training for name in ("text_encoder_2", "transformer", "vae"))
    (image,) = next(demo.generate([[spec("a fox", steps=1)]], 1, lambda: False, Timings()))
    assert [(length.encoder, length.tokens) for length in image.prompt_lengths] == [
        ("CLIPTextModel", 3),
        ("T5EncoderModel", 3),
    ]


@pytest.mark.parametrize(
    ("pipeline_class", "options"),
    [("StableDiffusionXLPipeline", {"add_watermarker": False}), ("FluxPipeline", {})],
)
def test_no_pipeline_marks_its_images(monkeypatch, pipeline_class, options):
    monkeypatch.setattr(module.DiffusionPipeline, "load_config", lambda path: {"_class_name": pipeline_class})
    assert module._watermark_options("anywhere") == options


@pytest.mark.parametrize(("spare", "fits"), [(0, True), (-1, False)])
def test_a_pipeline_fits_on_a_card_with_room_to_work(monkeypatch, spare, fits):
    pipeline = load_pipeline(load_config())
    weight_bytes = sum(
        parameter.nbytes for part in module._modules(pipeline).values() for parameter in part.parameters()
    )
    free = weight_bytes + module.ROOM_TO_WORK + spare
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 2 * free))
    assert module._fits(pipeline, torch.device("cuda")) is fits
    assert module._fits(pipeline, torch.device("cpu"))


@pytest.mark.parametrize(
    ("text_encoder", "fits", "staged"),
    [("auto", True, False), ("auto", False, True), ("staged", True, True), ("resident", False, False)],
)
def test_text_encoders_are_staged_where_that_is_asked_for_or_needed(monkeypatch, text_encoder, fits, staged):
    monkeypatch.setattr(module, "_fits", lambda pipeline, device: fits)
    pipeline = load_pipeline(load_config())
    moved = []
    for name, part in module._modules(pipeline).items():
        monkeypatch.setattr(part, "to", lambda device, name=name: moved.append(name))
    stages = module._place(pipeline, torch.device("cpu"), load_config(text_encoder=text_encoder))
    assert stages.staged is staged
    assert set(moved) == {"transformer", "vae"} | (set() if staged else {"text_encoder", "text_encoder_2"})


def test_a_lora_changes_the_image_and_the_key_and_its_weight_counts(run, output, prompts, lora):
    dataset = prompts("a fox")
    pixels, keys = set(), set()
    for entries in ([], [f"{lora}:1.0"], [f"{lora}:0.5"]):
        assert run(dataset=dataset, lora=entries, steps=4).is_completed()
        assert output.counts()["images_generated"] == 1
        (row,) = pq.read_table(output.folder / "images.parquet").to_pylist()
        pixels.add(row["pixels_sha256"])
        keys.add(row["key"])
    assert len(pixels) == len(keys) == 3


def test_a_file_that_is_no_lora_is_refused(run, prompts):
    state = run(dataset=prompts("a fox"), lora=[str(DEMO_MODEL / "vae" / "diffusion_pytorch_model.safetensors")])
    assert state.name == "Refused"
    assert len(state.message.splitlines()) == 1
    assert "LoRA" in state.message or "does not fit" in state.message


def test_a_lora_of_another_model_is_refused(tmp_path):
    file = tmp_path / "other.safetensors"
    save_file({f"transformer.no.such.layer.lora_{side}.weight": torch.ones(4, 4) for side in "AB"}, file)
    with pytest.raises(ModelError) as error:
        load_pipeline(load_config(adapters=((str(file), 1.0),)))
    assert str(error.value).startswith(f"{file}: ")
    assert len(str(error.value).splitlines()) == 1


def test_a_pipeline_without_a_preset_runs_with_its_own_defaults_and_says_so(
    run, output, prompts, stable_diffusion, caplog
):
    state = run(dataset=prompts("a fox", "a cat", "a house"), model=stable_diffusion, steps=2, negative_prompt="blurry")
    assert state.is_completed(), state.message
    whose = "settings of StableDiffusionPipeline's own code"
    assert f"{whose} are taken for {stable_diffusion}: guidance_scale 7.5" in caplog.text
    rows = pq.read_table(output.folder / "images.parquet").to_pylist()
    assert {(r["width"], r["height"], r["guidance_scale"]) for r in rows} == {(32, 32, 7.5)}
    assert output.manifest_is_true()


def test_another_scheduler_makes_another_image(run, output, prompts, stable_diffusion):
    keys = set()
    for scheduler in (None, "DDPMScheduler"):
        run(dataset=prompts("a fox"), model=stable_diffusion, steps=2, scheduler=scheduler)
        keys |= output.pixels().keys()
    assert len(set(output.pixels().values())) == len(keys) == 2


def test_options_of_the_scheduler_make_other_images_only_where_they_change_something(run, output, prompts):
    common = {"dataset": prompts("a fox"), "model": "demo", "steps": 3}
    run(**common)
    (first,) = output.pixels().items()
    run(**common, scheduler_options={"shift": 3, "use_karras_sigmas": False})  # as the model has it
    assert output.pixels() == dict([first])
    run(**common, scheduler_options={"shift": 1})
    (other,) = output.pixels().items() - dict([first]).items()
    assert (other[0] != first[0], other[1] != first[1]) == (True, True)
    (row,) = pq.read_table(output.folder / "images.parquet").to_pylist()
    assert (row["scheduler"], row["scheduler_options"]) == (None, '{"shift": 1.0}')
    run(**common, scheduler="FlowMatchEulerDiscreteScheduler", scheduler_options={"stochastic_sampling": True})
    assert len(output.pixels()) == 3


@pytest.fixture
def copied(tmp_path):
    """A folder with the demo model, whose files may be edited, and how it is loaded."""
    folder = tmp_path / "model"
    shutil.copytree(DEMO_MODEL, folder)
    paths = [path for path in folder.rglob("*.safetensors") if path.is_file()]
    files = tuple(LoadedFile(str(path), file_sha256(path), file_state(path)) for path in sorted(paths))
    return files, load_config(path=str(folder), files=files)


def test_a_model_whose_files_were_replaced_since_they_were_hashed_is_not_loaded(copied, monkeypatch):
    files, config = copied
    monkeypatch.setattr(module, "load_pipeline", lambda config: pytest.fail("loaded"))
    path = Path(files[0].path)
    path.with_name("new").write_bytes(path.read_bytes()[:-1] + b"\1")
    path.with_name("new").replace(path)
    with pytest.raises(ModelError, match=f"^{path}: changed or vanished while it was read; run the same command"):
        load_model(config)


def test_a_model_whose_files_are_replaced_while_they_are_loaded_is_not_used(copied, monkeypatch):
    files, config = copied
    path, load = Path(files[0].path), module.load_pipeline

    def load_replaced(config):
        path.with_name("new").write_bytes(path.read_bytes())
        path.with_name("new").replace(path)
        return load(config)

    monkeypatch.setattr(module, "load_pipeline", load_replaced)
    with pytest.raises(ModelError, match="changed or vanished while it was read"):
        load_model(config)


def test_a_process_that_lives_on_loads_a_folder_again_whose_files_are_others(copied):
    """The folder has the same name, and the run's keys are those of the files that are there now."""
    files, config = copied
    before = load_model(config)
    assert load_model(config) is before
    others = tuple(replace(file, sha256="0" * 64) for file in files)
    assert load_model(replace(config, files=others)) is not before
