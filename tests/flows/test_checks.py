"""What a run says and refuses before it costs minutes, gigabytes, or a folder."""

import logging
from dataclasses import replace
from types import SimpleNamespace

import pytest

from flows import checks
from flows.checks import announce_download, announce_guess, check_machine, check_output_folder, device_of, warn_of_disk
from flows.resolve import Resolved
from t2i_core.config import Config
from t2i_core.errors import ConfigError, OutputError
from t2i_core.models.identity import ModelFile, ResolvedModel
from t2i_core.models.pipeline_signature import call_defaults
from t2i_core.models.presets import PRESETS
from t2i_core.models.sampling import resolve_sampling
from t2i_core.spec import GenerationSettings

GB = 10**9


def resolved(preset="demo", weights=24 * GB, **values):
    """A run of a hub model whose weights have that many bytes; `model=None`: nobody named one."""
    options = {"dataset": "prompts.jsonl", "model": preset} | values
    config = Config.from_values({name: value for name, value in options.items() if value is not None})
    model = ResolvedModel(
        name="owner/name",
        source="hub",
        location="owner/name",
        commit="a" * 40,
        identity="1" * 64,
        pipeline_class=PRESETS[preset].pipeline_class,
        files=(ModelFile("a.safetensors", "2" * 64, weights), ModelFile("config.json", "3" * 64, 5 * GB)),
        licence="mit",
    )
    quantization = None if config.quantization == "none" else config.quantization
    settings = GenerationSettings(
        model=model.identity,
        dtype="float32",
        sampling=resolve_sampling(config, PRESETS[preset]),
        quantization=quantization,
    )
    return Resolved(config, model, (), PRESETS[preset], settings)


@pytest.fixture
def machine(monkeypatch):
    """Set the device that `auto` is, and the bytes that are free on it: `machine("cuda", 80 * GB)`."""

    def make(device, free):
        monkeypatch.setattr("t2i_core.engine.device.resolve_device", lambda name: device if name == "auto" else name)
        monkeypatch.setattr("t2i_core.engine.device.free_memory", lambda device: free)
        monkeypatch.setattr("t2i_core.engine.tuning.check_library", lambda quantization: None)

    return make


@pytest.fixture
def said(caplog):
    """What a function logs: `said(announce_guess, resolved())` -> its lines."""

    def call(function, *arguments):
        caplog.clear()
        with caplog.at_level(logging.INFO, "flows.checks"):
            function(*arguments)
        return [record.getMessage() for record in caplog.records]

    return call


@pytest.mark.parametrize(
    ("folder", "output", "deployment", "refused"),
    [
        ("tmpab12cdprefect", "out", "d", True),
        ("tmpab12cdprefect", "./out", "d", True),
        ("tmpab12cdprefect", "/absolute/out", "d", False),
        ("tmpab12cdprefect", "out", None, False),  # from the command line
        ("my project", "out", "d", False),
        ("tmpab12cdprefect-mine", "out", "d", False),
        ("tmpprefect", "out", "d", False),
    ],
)
def test_a_relative_output_in_a_folder_that_is_deleted_is_refused(
    tmp_path, monkeypatch, folder, output, deployment, refused
):
    (tmp_path / folder).mkdir()
    monkeypatch.chdir(tmp_path / folder)
    monkeypatch.setattr(checks, "deployment", SimpleNamespace(id=deployment))
    config = Config.from_values({"output": output})
    if refused:
        with pytest.raises(OutputError, match=rf"output: {output} is relative, .*{folder}.* is deleted .*absolute"):
            check_output_folder(config)
    else:
        check_output_folder(config)


def test_the_device_is_the_one_named_else_the_best_there_is(machine):
    machine("cuda", None)
    assert device_of(Config.from_values({})) == "cuda"
    assert device_of(Config.from_values({"device": "cpu"})) == "cpu"


def test_a_machine_with_room_for_the_model_is_told_nothing(machine):
    machine("cuda", 24 * GB)
    assert check_machine(resolved(), 1) == []


def test_where_the_free_memory_is_not_known_nothing_is_said(machine):
    machine("mps", None)
    assert check_machine(resolved(), 1) == []


@pytest.mark.parametrize(
    ("preset", "device", "values", "advice"),
    [
        ("demo", "cpu", {}, "--quantization takes less"),
        ("sdxl", "cuda", {}, "--quantization and --offload take less"),
        (
            "flux-schnell",
            "cuda",
            {},
            "the text encoders come only to encode; --quantization and --offload take less",
        ),
        ("flux-schnell", "cuda", {"text_encoder": "resident"}, "--quantization and --offload take less"),
    ],
)
def test_weights_that_are_larger_than_the_free_memory_are_told_with_what_helps(machine, preset, device, values, advice):
    machine(device, 10 * GB)
    assert check_machine(resolved(preset, **values), 1) == [
        f"memory    the weights are 24.0 GB, {device} has 10.0 GB free: {advice}"
    ]


@pytest.mark.parametrize("option", [{"offload": "group"}, {"quantization": "int8"}])
def test_where_an_option_makes_up_for_it_nothing_is_said(machine, option):
    machine("cuda", 10 * GB)
    assert check_machine(resolved("sdxl", **option), 1) == []


def test_the_default_model_is_refused_without_a_gpu_unless_somebody_asked_for_it(machine):
    machine("cpu", 500 * GB)
    with pytest.raises(ConfigError, match=r"this machine has no GPU for it \(24 GB of weights\)") as caught:
        check_machine(resolved("flux-dev", model=None), 1)
    assert "--device cpu --model flux-dev" in str(caught.value)
    check_machine(resolved("flux-dev"), 1)
    check_machine(resolved("demo", model=None, dataset="example"), 1)
    machine("cuda", 500 * GB)
    check_machine(resolved("flux-dev", model=None), 1)


def test_offload_on_the_cpu_is_refused(machine):
    machine("cpu", 500 * GB)
    with pytest.raises(ConfigError, match="offload: group needs a device other than the CPU"):
        check_machine(resolved(offload="group"), 1)


def test_a_quantization_whose_library_is_missing_is_refused(machine, monkeypatch):
    machine("cuda", 500 * GB)
    asked = []
    monkeypatch.setattr("t2i_core.engine.tuning.check_library", asked.append)
    check_machine(resolved(quantization="nf4"), 1)
    check_machine(resolved(), 1)
    assert asked == ["nf4", None]


def test_fp8_on_a_device_that_cannot_calculate_in_it_is_refused_before_a_download(machine):
    machine("cpu", 500 * GB)
    with pytest.raises(ConfigError, match="quantization: fp8 needs a GPU, and the device is cpu; use int8"):
        check_machine(resolved(quantization="fp8"), 1)


FLUX = {"transformer": {"_class_name": "FluxTransformer2DModel", "num_layers": 1, "num_single_layers": 1}}
SDXL = {"unet": {"_class_name": "UNet2DConditionModel"}}
WITHOUT_BLOCKS = {"transformer": {"_class_name": "SD3Transformer2DModel", "num_layers": 1}}


@pytest.mark.parametrize(
    ("options", "device", "configs", "reason"),
    [
        ({"attention": "cudnn"}, "cpu", FLUX, "attention: cudnn needs a CUDA card"),
        ({"attention": "flash3"}, "cuda", FLUX, "attention: flash3 is not installed"),
        ({"attention": "flash3"}, "cuda", {}, "attention: flash3 is not installed"),
        ({"attention": "cudnn"}, "cuda", SDXL, "one kind of attention only for UNet2DConditionModel"),
        ({"tf32": True}, "cpu", {}, "tf32: it needs a CUDA card"),
        ({"tf32": True}, "cuda", {}, "tf32: it is for float32 weights"),
        ({"step_cache": "magcache"}, "cpu", FLUX, "step_cache: magcache needs ratios"),
        ({"step_cache": "taylorseer"}, "cpu", SDXL, "step_cache: taylorseer was tried with"),
        ({"compile": True}, "cpu", WITHOUT_BLOCKS, "compile: FluxPipeline has no blocks"),
        ({"step_cache": "taylorseer"}, "cpu", FLUX, None),
        ({"step_cache": "taylorseer"}, "cpu", {}, None),
        ({"compile": True}, "cpu", SDXL, None),
    ],
)
def test_what_makes_a_denoiser_faster_is_refused_before_weights_are_fetched(machine, options, device, configs, reason):
    machine(device, 500 * GB)
    found = resolved(**options)
    step_cache = options.get("step_cache")
    settings = replace(
        found.settings,
        dtype="bfloat16",
        attention=options.get("attention"),
        tf32=options.get("tf32", False),
        step_cache=step_cache,
    )
    found = replace(found, settings=settings, model=replace(found.model, configs=configs))
    if reason is None:
        check_machine(found, 1)
    else:
        with pytest.raises(ConfigError, match=reason) as error:
            check_machine(found, 1)
        assert len(str(error.value).splitlines()) == 1


def test_a_download_is_announced_with_its_size_and_licence(said, tmp_path):
    cache_dir = str(tmp_path)
    assert said(announce_download, resolved("sdxl", cache_dir=cache_dir)) == [
        "download  owner/name, 24.0 GB; licence: CreativeML Open RAIL++-M"
    ]
    other = resolved(cache_dir=cache_dir)
    assert said(announce_download, replace(other, preset=replace(other.preset, licence_note=""))) == [
        "download  owner/name, 24.0 GB; licence: mit"
    ]
    unknown = replace(other, preset=replace(other.preset, licence_note=""), model=replace(other.model, licence=None))
    assert said(announce_download, unknown) == ["download  owner/name, 24.0 GB; licence: not stated"]


def test_weights_that_are_there_need_no_announcement(said, monkeypatch):
    monkeypatch.setattr(Resolved, "weights_are_local", lambda self: True)
    assert said(announce_download, resolved()) == []


def guessed(preset="sdxl", **values):
    """A run of ./my_model with the settings of a preset, which takes every argument of its call."""
    known = resolved(preset, **values)
    guess = replace(
        known.preset,
        repository="",
        about=f"settings of preset {preset}",
        reason="both are alike",
        optional=tuple(call_defaults(known.preset.pipeline_class)),
    )
    config = known.config.model_copy(update={"model": "./my_model"})
    settings = replace(known.settings, sampling=resolve_sampling(config, guess))
    return replace(known, config=config, preset=guess, settings=settings)


def test_what_is_guessed_is_told_with_the_values_that_are_taken(said):
    assert said(announce_guess, guessed()) == [
        "model     settings of preset sdxl are taken for ./my_model: steps 50, guidance_scale 5, size 1024x1024, "
        "dtype float32 (both are alike)"
    ]
    assert said(announce_guess, guessed(steps=3, guidance_scale=1.5, dtype="float32", sizes=["64x64"])) == []
    assert said(announce_guess, resolved("sdxl")) == []


def test_settings_that_a_guess_does_not_refuse_but_may_have_no_effect_are_warned_of(said):
    def doubts(found):
        return [line for line in said(announce_guess, found) if line.startswith("settings")]

    klein = guessed("flux2-klein")
    klein = replace(klein, config=klein.config.model_copy(update={"guidance_scale": 4.0}))
    assert doubts(klein) == [
        "settings  guidance_scale: the settings of preset flux2-klein have none; it is passed, and may have no effect"
    ]
    turbo = guessed("sdxl-turbo")
    sampling = replace(turbo.settings.sampling, negative_prompt="x")
    turbo = replace(turbo, settings=replace(turbo.settings, sampling=sampling))
    assert doubts(turbo) == [
        "settings  negative_prompt: StableDiffusionXLPipeline uses it only with guidance_scale above 1 (it is 0); "
        "set guidance_scale"
    ]
    assert doubts(guessed()) == []


def test_a_machine_whose_gpu_is_not_found_says_so_unless_its_cpu_was_asked_for(machine):
    machine("cpu", 500 * GB)
    (line,) = check_machine(resolved("sdxl"), 1)
    assert line.startswith("device    torch finds no GPU on this machine: its CPU makes the images; --device cpu says")
    assert check_machine(resolved("sdxl", device="cpu"), 1) == []
    assert check_machine(resolved("demo"), 1) == []
    machine("cuda", 500 * GB)
    assert check_machine(resolved("sdxl"), 1) == []


def test_several_processes_on_a_cpu_each_need_memory_for_the_weights(machine):
    machine("cpu", 50 * GB)
    assert check_machine(resolved("sdxl", device="cpu"), 2) == []
    (line,) = check_machine(resolved("sdxl", device="cpu"), 3)
    assert line.startswith("memory    the weights are 24.0 GB in each of 3 processes, cpu has 50.0 GB free: ")
    machine("cuda", 50 * GB)  # each has a card
    assert check_machine(resolved("sdxl"), 3) == []


def test_float16_on_a_cpu_is_warned_of(machine):
    machine("cpu", None)
    half = resolved()
    half = replace(half, settings=replace(half.settings, dtype="float16"))
    assert [line.split()[0] for line in check_machine(half, 1)] == ["dtype"]
    machine("cuda", None)
    assert check_machine(half, 1) == []


def test_a_disk_that_is_too_small_is_told(said):
    assert said(warn_of_disk, 3 * GB, 2 * GB) == ["disk      about 3.0 GB are needed, 2.0 GB are free"]
    assert said(warn_of_disk, 2 * GB, 2 * GB) == []


def test_an_engine_that_another_thread_imports_is_waited_for(machine, monkeypatch):
    """diffusers puts another module into its place: who asks for its names meanwhile finds none of them."""
    machine("cuda", 24 * GB)
    asked = []

    def import_engine():
        monkeypatch.setattr("t2i_core.engine.tuning.check_tf32", lambda *arguments: asked.append("checks"))
        asked.append("import")

    monkeypatch.setattr(checks, "import_engine", import_engine)
    check_machine(resolved(), 1)
    assert asked == ["import", "checks"]
