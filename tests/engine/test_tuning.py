"""Settings that trade memory, speed and exactness: what one needs and does not find is one line; what changes pixels
changes the key.
"""

import sys

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from t2i_core.config import Config
from t2i_core.engine import load as module_of_load
from t2i_core.engine import tuning
from t2i_core.engine.load import load_model
from t2i_core.engine.tuning import quantization_config
from t2i_core.errors import ConfigError
from t2i_core.models.prepare import prepare_digest
from t2i_core.spec import ImageSpec
from tests.engine.demo import first_image, load_config


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Write a module that Python finds: `module(source)` -> its file."""

    def write(source, name="my_settings"):
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, name, raising=False)
        file = tmp_path / f"{name}.py"
        file.write_text(source)
        return file

    return write


def test_the_users_own_function_gets_the_loaded_pipeline(module):
    module("def brighter(pipeline):\n    pipeline.vae.decoder.conv_out.bias.data += 0.5\n")
    plain = first_image(load_model(load_config()))
    changed = first_image(load_model(load_config(prepare="my_settings:brighter")))
    assert changed.mean() > plain.mean() + 0.1


def test_a_function_in_a_file_gets_the_pipeline_as_one_in_a_module_does(module):
    file = module("def brighter(pipeline):\n    pipeline.vae.decoder.conv_out.bias.data += 0.5\n")
    by_module = first_image(load_model(load_config(prepare="my_settings:brighter")))
    by_file = first_image(load_model(load_config(prepare=f"{file}:brighter")))
    assert np.array_equal(by_module, by_file)


@pytest.mark.parametrize("form", ["module", "file"])
def test_a_function_whose_file_changed_since_it_was_hashed_is_not_run(module, form):
    file = module("def f(pipeline):\n    raise SystemExit('run')\n")
    name = "my_settings:f" if form == "module" else f"{file}:f"
    load = load_config(prepare=name, prepare_sha256=prepare_digest(name))
    file.write_text("def f(pipeline):\n    raise SystemExit('RUN')\n")
    with pytest.raises(ConfigError, match=f"^prepare: {file} changed since the run began; run the same command again"):
        load_model(load)


def test_another_source_of_the_function_is_another_image_and_its_name_is_recorded(module, run, output, prompts):
    keys = set()
    for amount in (0.25, 0.5):
        module(f"def brighter(pipeline):\n    pipeline.vae.decoder.conv_out.bias.data += {amount}\n")
        assert run(dataset=prompts("a fox"), prepare="my_settings:brighter").is_completed()
        assert output.counts()["images_generated"] == 1
        (row,) = pq.read_table(output.folder / "images.parquet").to_pylist()
        keys.add(row["key"])
        assert row["tuning"] == '{"prepare": "my_settings:brighter"}'
    assert len(keys) == 2


@pytest.mark.parametrize(
    ("source", "name", "reason"),
    [
        ("", "nowhere_to_be_found:f", "Python finds no module 'nowhere_to_be_found'"),
        ("def g(p): pass\ndef h(p): pass", "my_settings:f", "defines no function 'f' (it defines g, h)"),
        ("def f(:", "my_settings:f", "is no Python source"),
    ],
)
def test_a_function_that_does_not_exist_is_refused_before_any_work(module, run, prompts, source, name, reason):
    module(source)
    state = run(dataset=prompts("a fox"), prepare=name)
    assert state.name == "Refused"
    assert reason in state.message
    assert len(state.message.splitlines()) == 1


@pytest.mark.parametrize(
    ("source", "line", "kind"),
    [
        ("def f(pipeline):\n    pipeline.nothing()\n", 2, "AttributeError"),
        ("import no_such_library\ndef f(pipeline): pass\n", 1, "ModuleNotFoundError"),
        ("raise SystemExit(3)\ndef f(pipeline): pass\n", 1, "SystemExit: 3"),
        ("class Odd(BaseException): pass\nraise Odd\ndef f(pipeline): pass\n", 2, "Odd"),
        ("def f(pipeline):\n    raise ValueError('two\\nlines')\n", 2, "ValueError: two lines"),
    ],
)
@pytest.mark.parametrize("form", ["module", "file", "relative file"])
def test_an_error_in_the_function_is_one_line_with_file_and_line(module, monkeypatch, source, line, kind, form):
    file = module(source)
    monkeypatch.chdir(file.parent)
    name = {"module": "my_settings", "file": str(file), "relative file": "./my_settings.py"}[form]
    with pytest.raises(ConfigError) as error:
        load_model(load_config(prepare=f"{name}:f"))
    assert str(error.value).startswith(f"prepare: {name}:f raised {kind}")
    assert str(error.value).endswith(f" ({file}, line {line})")
    assert "\n" not in str(error.value)


def test_a_function_that_returns_something_else_than_the_pipeline_is_refused(module):
    file = module("def f(pipeline):\n    return pipeline.transformer\n")
    with pytest.raises(ConfigError) as error:
        load_model(load_config(prepare="my_settings:f"))
    assert str(error.value).startswith("prepare: my_settings:f returned a FluxTransformer2DModel; ")
    assert str(error.value).endswith(f"let it return the pipeline, or nothing ({file})")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("capability", "reason"),
    [((8, 0), "fp8 needs a GPU of compute capability 8.9, and Old Card has 8.0; use int8 or nf4"), ((8, 9), None)],
)
def test_fp8_needs_a_card_that_calculates_in_it(monkeypatch, capability, reason):
    monkeypatch.setattr(tuning, "check_library", lambda quantization: None)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Old Card")
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    card = torch.device("cuda", 0)
    tuning.check_quantization("int8", card, "bfloat16")
    if reason is None:
        tuning.check_quantization("fp8", card, "bfloat16")
    else:
        with pytest.raises(ConfigError, match=reason):
            tuning.check_quantization("fp8", card, "bfloat16")


@pytest.mark.parametrize(
    ("quantization", "device", "dtype", "reason"),
    [
        ("fp8", "cuda", "float32", "fp8 needs bfloat16, and the dtype is float32; add --dtype bfloat16"),
        ("fp8", "cuda", "float16", "fp8 needs bfloat16, and the dtype is float16; add --dtype bfloat16"),
        ("nf4", "cpu", "bfloat16", "nf4 needs a GPU, and the device is cpu; use int8"),
        ("nf4", "mps", "bfloat16", "nf4 needs a GPU, and the device is mps; use int8"),
    ],
)
def test_a_device_or_a_dtype_that_a_quantization_does_not_take_is_refused(
    monkeypatch, quantization, device, dtype, reason
):
    monkeypatch.setattr(tuning, "check_library", lambda quantization: None)
    with pytest.raises(ConfigError, match=f"^quantization: {reason}$"):
        tuning.check_quantization(quantization, device, dtype)


def test_fp8_on_the_cpu_is_refused_before_anything_is_loaded(monkeypatch):
    monkeypatch.setattr(tuning, "check_library", lambda quantization: None)
    with pytest.raises(ConfigError, match="fp8 needs a GPU, and the device is cpu; use int8"):
        load_model(load_config(quantization="fp8"))


def test_the_module_is_not_run_to_be_hashed(module):
    file = module("raise SystemExit('run')\ndef f(pipeline): pass\n")
    assert len(prepare_digest("my_settings:f")) == 64
    before = prepare_digest("my_settings:f")
    file.write_text(file.read_text() + "# changed\n")
    assert prepare_digest("my_settings:f") != before


@pytest.mark.parametrize(("kind", "library"), [("nf4", "bitsandbytes"), ("int8", "torchao"), ("fp8", "torchao")])
def test_a_library_that_is_not_installed_is_one_line(monkeypatch, kind, library):
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ConfigError) as error:
        quantization_config(load_config(quantization=kind))
    assert str(error.value).startswith(f"quantization: {kind} needs {library}")
    assert "pip install" in str(error.value)


def test_quantization_is_part_of_the_key_and_offloading_is_not():
    size = {"height": 64, "width": 64, "steps": 2, "dtype": "float32"}
    plain = ImageSpec(model="m", prompt="a", seed=1, **size)
    assert ImageSpec(model="m", prompt="a", seed=1, quantization="int8", **size).key != plain.key
    assert load_config(offload="model", compile=True).tuning() == {"offload": "model", "compile": True}
    assert load_config(compile_mode="max-autotune").tuning() == {"compile_mode": "max-autotune"}
    assert load_config().tuning() == {}


@pytest.mark.parametrize("kind", ["model", "group"])
def test_offloading_without_a_device_is_refused(kind):
    with pytest.raises(ConfigError, match=f"offload: {kind} needs a device other than the CPU"):
        load_model(load_config(offload=kind))


def test_offloading_and_staging_exclude_each_other():
    with pytest.raises(ConfigError, match="offload moves the text encoders, too"):
        Config.from_values({"offload": "model", "text_encoder": "staged"})


@pytest.mark.parametrize(
    ("device", "dtype", "reason"),
    [
        ("cpu", "float32", "tf32: it needs a CUDA card, and the device is cpu"),
        ("cuda:1", "bfloat16", "tf32: it is for float32 weights, and these are bfloat16"),
    ],
)
def test_tf32_is_refused_where_nothing_would_be_multiplied_in_it(device, dtype, reason):
    tuning.check_tf32(False, device, dtype)
    tuning.check_tf32(True, "cuda", "float32")
    with pytest.raises(ConfigError, match=reason):
        tuning.check_tf32(True, device, dtype)


def test_tf32_holds_for_one_model_and_not_for_the_next(monkeypatch):
    monkeypatch.setattr(module_of_load, "check_tf32", lambda tf32, device, dtype: None)
    try:
        for tf32, precision in ((True, "high"), (False, "highest")):
            load_model(load_config(tf32=tf32))
            assert torch.get_float32_matmul_precision() == precision
    finally:
        torch.set_float32_matmul_precision("highest")
