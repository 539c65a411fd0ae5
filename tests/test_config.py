"""The configuration: one object in four forms."""

import inspect
from pathlib import Path

import pytest
import yaml

from t2i_core.config import Config, RowSettings, parameters, parse_lora, parse_size
from t2i_core.errors import ConfigError

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"stpes": 3}, "stpes: unknown option; did you mean steps?"),
        ({"zzz": 3}, "zzz: unknown option; see --help for the options"),
        ({"steps": "20"}, "steps: input should be a valid integer (got '20')"),
        ({"steps": True}, "steps: input should be a valid integer (got True)"),
        ({"steps": 0}, "steps: input should be greater than or equal to 1 (got 0)"),
        ({"seed": 2**53}, "seed: input should be less than"),
        ({"guidance_scale": float("nan")}, "guidance_scale: input should be a finite number"),
        ({"dtype": "half"}, "dtype: input should be 'auto', 'bfloat16', 'float16' or 'float32' (got 'half')"),
        ({"device": "gpu"}, "device: write auto, cpu, mps, cuda, cuda:1 or xpu (got 'gpu')"),
        ({"sizes": ["512"]}, "sizes: write WIDTHxHEIGHT"),
        ({"sizes": ["512x512"], "height": 512}, "sizes excludes height and width"),
        ({"reseed": True}, "add retry_failed"),
        ({"prompt_template": "a photo"}, "has no {prompt}"),
        ({"max_failures": 1.5}, "write a whole number, or a share below 1"),
        ({"lora": ["a:b"]}, "ends in no number"),
        ({"lora": ["a:nan"]}, "ends in no number"),
        ({"sizes": ["64x99984"]}, "64x99984 has a side outside 8 to 16384"),
        ({"image_key": "conversations"}, "name two different columns"),
        ({"prompt_key": "generation"}, "name two different columns"),
        ({"manifest_name": "../m.jsonl"}, "write a plain file name that ends in .jsonl"),
        ({"manifest_name": "failures.jsonl"}, "choose another name"),
        ({"scheduler": "euler"}, "write the name of a diffusers scheduler class"),
        ({"roles": []}, "roles:"),
        ({"batch_size": 0}, "batch_size: input should be greater than or equal to 1, or 'auto' (got 0)"),
        ({"batch_size": "all"}, "batch_size: input should be a valid integer, or 'auto' (got 'all')"),
    ],
)
def test_wrong_values_are_refused_in_one_line_that_names_field_value_and_fix(values, message):
    with pytest.raises(ConfigError) as error:
        Config.from_values(values, "run.yaml")
    assert len(error.value.problems) == 1
    assert error.value.problems[0].startswith("run.yaml: ")
    assert message in error.value.problems[0]


def test_every_wrong_field_has_its_own_line():
    with pytest.raises(ConfigError) as error:
        Config.from_values({"steps": 0, "height": "x", "nonsense": 1})
    assert len(error.value.problems) == 3


def test_without_dataset_and_model_it_is_the_demo():
    config = Config()
    assert (config.dataset, config.model, config.output) == ("example", "demo", "./cache_local/demo")


def test_a_dataset_without_model_is_drawn_by_flux_dev():
    config = Config.from_values({"dataset": "mine.jsonl"})
    assert (config.model, config.output) == ("flux-dev", "./cache_local/text2image_local")
    assert config.model_is_implied
    assert not Config.from_values({"dataset": "mine.jsonl", "model": "flux-dev"}).model_is_implied


def test_none_means_not_set():
    assert Config.from_values({"dataset": None, "model": None, "output": None, "steps": None}) == Config()


def test_every_field_is_described_and_has_a_parameter():
    assert {p.name for p in parameters()} == set(Config.model_fields)
    for name, field in Config.model_fields.items():
        assert field.description, name
    assert all(p.kind is inspect.Parameter.KEYWORD_ONLY for p in parameters())


def test_every_field_is_used_outside_the_configuration():
    code = "".join(
        path.read_text()
        for folder in ("flows", "tasks", "t2i_core")
        for path in (ROOT / folder).rglob("*.py")
        if path.name != "config.py"
    )
    read_by_name = {"steps", "guidance_scale", "true_cfg_scale", "negative_prompt", "max_sequence_length", "scheduler"}
    read_by_name |= {"height", "width"}  # by getattr over the fields of Sampling
    unused = [name for name in Config.model_fields if f"config.{name}" not in code and name not in read_by_name]
    assert unused == []


def test_the_configuration_survives_yaml():
    config = Config.from_values({"dataset": "a.csv", "steps": 3, "sizes": ["64x64"], "lora": ["x.safetensors:0.5"]})
    values = yaml.safe_load(yaml.safe_dump(config.model_dump()))
    assert Config.from_values(values) == config


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ("style.safetensors", ("style.safetensors", 1.0)),
        ("style.safetensors:0.8", ("style.safetensors", 0.8)),
        ("owner/name:-1", ("owner/name", -1.0)),
        ("C:\\loras\\style.safetensors", ("C:\\loras\\style.safetensors", 1.0)),
    ],
)
def test_lora_entries(entry, expected):
    assert parse_lora(entry) == expected


def test_sizes_are_width_then_height():
    assert parse_size("1216x832") == (1216, 832)


def test_row_settings_are_validated_like_the_configuration():
    assert RowSettings.model_validate({"steps": 3}).steps == 3
    for wrong in ({"steps": 0}, {"steps": "3"}, {"model": "x"}):
        with pytest.raises(ValueError, match="validation error"):
            RowSettings.model_validate(wrong)
