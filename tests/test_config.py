"""The configuration: bounds and messages, defaults, paths, and the parameters made from it."""

import pkgutil
import re
import typing
from pathlib import Path

import pytest
import yaml

from flows.commands import COMMANDS
from t2i_core.config import PATHS, Config, RowSettings, parse_lora
from t2i_core.config_errors import PATTERN_FIXES
from t2i_core.errors import ConfigError
from t2i_core.options.selection import SelectionOptions
from t2i_core.options.values import parse_size

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
        ({"prompt_key": "images"}, "name two different columns"),
        ({"prompt_key": "plan", "settings_key": "plan"}, "name two different columns"),
        ({"manifest_name": "../m.jsonl"}, "write a plain file name that ends in .jsonl"),
        ({"manifest_name": "failures.jsonl"}, "choose another name"),
        ({"scheduler": "euler"}, "write the name of a diffusers scheduler class"),
        (
            {"prepare": "my_settings"},
            "prepare: write module:function or file.py:function, for example ./my_models.py:prepare (got",
        ),
        ({"public_url": "localhost"}, "public_url: write an http:// or https:// address (got 'localhost')"),
        ({"lora": [3]}, "lora: input should be a valid string (got 3)"),
        ({"roles": []}, "roles: is empty; give at least one"),
        ({"dataset": []}, "dataset: is empty; give at least one"),
        ({"dataset": ""}, "dataset: string should have at least 1 character"),
        ({"dataset": 3}, "dataset: input should be a valid string, or a valid list (got 3)"),
        ({"manifest_name": "m" * 201 + ".jsonl"}, "manifest_name: string should have at most 200 characters"),
        ({"num_inference_steps": 3}, "num_inference_steps: unknown option; did you mean steps?"),
        ({"hf-model-name-or-path": "x"}, "hf-model-name-or-path: unknown option; did you mean model?"),
        ({"prompt": "a fox"}, "prompt: unknown option; write the prompts into a .txt file, one a line"),
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


def test_a_column_may_have_the_default_name_of_the_settings():
    for column in ("prompt_key", "conversation_key", "image_key"):
        assert Config.from_values({column: "generation", "settings_key": "generation"}).settings_key == "generation"


def test_every_wrong_field_has_its_own_line():
    with pytest.raises(ConfigError) as error:
        Config.from_values({"steps": 0, "height": "x", "nonsense": 1})
    assert len(error.value.problems) == 3


def test_without_dataset_and_model_it_is_the_demo():
    config = Config()
    assert (config.dataset, config.model, config.output) == ("example", "demo", "./cache_local/demo")


def test_a_dataset_without_model_is_for_flux_dev():
    config = Config.from_values({"dataset": "mine.jsonl"})
    assert (config.model, config.output) == ("flux-dev", "./cache_local/text2image_local")
    assert config.model_is_implied
    assert not Config.from_values({"dataset": "mine.jsonl", "model": "flux-dev"}).model_is_implied


def test_none_means_not_set():
    assert Config.from_values({"dataset": None, "model": None, "output": None, "steps": None}) == Config()


def test_every_field_is_described():
    for name, field in Config.model_fields.items():
        assert field.description, name


def test_every_field_with_a_pattern_has_words_for_what_to_write():
    def patterns(annotation):
        if hasattr(annotation, "pattern"):
            return [annotation.pattern] if annotation.pattern else []
        metadata = [item for part in getattr(annotation, "metadata", ()) for item in patterns(part)]
        return metadata + [item for part in typing.get_args(annotation) for item in patterns(part)]

    commands = [pkgutil.resolve_name(command.options) for command in COMMANDS.values()]
    with_pattern = {
        name
        for options in (Config, SelectionOptions, *commands)
        for name, field in options.model_fields.items()
        if patterns(field.annotation) or any(map(patterns, field.metadata))
    }
    assert with_pattern == set(PATTERN_FIXES)


def test_every_field_is_used_outside_the_configuration():
    code = "".join(
        path.read_text()
        for folder in ("flows", "tasks", "t2i_core")
        for path in (ROOT / folder).rglob("*.py")
        if path.name != "config.py"
    )
    read_by_name = {"steps", "guidance_scale", "true_cfg_scale", "negative_prompt", "max_sequence_length", "scheduler"}
    read_by_name |= {"height", "width"}  # by getattr over the fields of Sampling
    read_by_name |= {"server_wait"}  # of every command's options
    unused = [name for name in Config.model_fields if f"config.{name}" not in code and name not in read_by_name]
    assert unused == []


@pytest.mark.parametrize("value", ['{"shift": 3, "x": [1, "a"]}', {"shift": 3, "x": [1, "a"]}])
def test_options_of_the_scheduler_are_an_object_or_its_text(value):
    config = Config.from_values({"scheduler_options": value})
    assert config.scheduler_options == {"shift": 3, "x": [1, "a"]}
    assert Config.from_values(yaml.safe_load(yaml.safe_dump(config.model_dump()))) == config


@pytest.mark.parametrize("value", ["{}", {}, "null", None])
def test_no_options_are_none(value):
    assert Config.from_values({"scheduler_options": value}).scheduler_options is None


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("{'shift': 3}", "is not JSON"),
        ("3", "is no object"),
        (3, "is no object"),
        ([], "is no object"),
        ({"shift": float("inf")}, "shift is not finite"),
        ({"shift": [[1]]}, "shift is no number, text, true or false, nor a list of them"),
    ],
)
def test_other_options_are_refused_with_an_example(value, reason):
    with pytest.raises(ConfigError) as error:
        Config.from_values({"scheduler_options": value})
    (problem,) = error.value.problems
    assert problem.startswith(f"scheduler_options: {reason}")


def test_the_configuration_survives_yaml():
    config = Config.from_values({"dataset": "a.csv", "steps": 3, "sizes": ["64x64"], "lora": ["x.safetensors:0.5"]})
    values = yaml.safe_load(yaml.safe_dump(config.model_dump()))
    assert Config.from_values(values) == config


HOME = "/home/somebody"
# Every option that names a path -> a path below some folder, as this option takes it.
PATH_OPTIONS = {
    "dataset": "{}/rows.jsonl",
    "model": "{}/flux",
    "base": "{}/sdxl",
    "transformer": "{}/transformer.gguf",
    "cache_dir": "{}/cache",
    "local_dir": "{}/models",
    "lora": "{}/style.safetensors",
    "output": "{}/out",
    "prepare": "{}/prepare.py:function",
}


@pytest.fixture
def home(monkeypatch):
    monkeypatch.setenv("HOME", HOME)
    return HOME


def value_of(option, path):
    """The path as the option's value, and back from a configuration."""
    return [path] if option == "lora" else path


def resolved(option, path):
    config = Config.from_values({option: value_of(option, path)})
    return config.lora[0] if option == "lora" else getattr(config, option)


def refusal(option, path):
    with pytest.raises(ConfigError) as error:
        Config.from_values({option: value_of(option, path)})
    (problem,) = error.value.problems
    assert problem.startswith(f"{option}: ")
    assert "\n" not in problem
    return problem


def test_every_option_that_names_a_path_is_known():
    assert set(PATHS) == set(PATH_OPTIONS)
    fields = Config.model_fields.items()
    described = {name for name, field in fields if re.search(r"(?i)\b(file|folder)s?\b", field.description)}
    # An address, a file name, a form of paths, a column, options about the output folder, and names of images.
    others = {"public_url", "manifest_name", "manifest_paths", "id_key", "replace", "batch_size", "only"}
    assert described - others == set(PATHS)


@pytest.mark.parametrize("option", PATH_OPTIONS)
def test_a_tilde_is_the_home_folder(home, option):
    path = PATH_OPTIONS[option]
    assert resolved(option, path.format("~")) == path.format(home)
    assert resolved(option, path.format("~root")) == path.format(Path("~root").expanduser())


@pytest.mark.parametrize("option", sorted(PATH_OPTIONS.keys() - {"prepare"}))
def test_a_tilde_alone_is_the_home_folder(home, option):
    assert resolved(option, "~") == resolved(option, "~/") == home


@pytest.mark.parametrize("option", PATH_OPTIONS)
def test_a_tilde_of_an_unknown_user_is_refused(option):
    problem = refusal(option, PATH_OPTIONS[option].format("~no-such-user"))
    assert "no home folder is known for ~no-such-user; write the whole path, or ./~no-such-user" in problem


@pytest.mark.parametrize("option", PATH_OPTIONS)
@pytest.mark.parametrize("folder", ["a~", "./~", "./~no-such-user", "a/~/b"])
def test_a_tilde_elsewhere_is_a_character(option, folder):
    path = PATH_OPTIONS[option].format(folder)
    assert resolved(option, path) == path


@pytest.mark.parametrize("option", PATH_OPTIONS)
@pytest.mark.parametrize("folder", ["run-10:00", "./s3:", "s3:", "data:x/y", "/mnt/a:b", "C:", "."])
def test_a_path_stays_as_it_was_written_colons_included(option, folder):
    path = PATH_OPTIONS[option].format(folder)
    assert resolved(option, path) == path


@pytest.mark.parametrize("option", sorted(PATH_OPTIONS.keys() - {"dataset"}))
@pytest.mark.parametrize(
    "url",
    ["s3://bucket", "S3://bucket", "gs://bucket", "http://host:80", "https://host", "file:///home", "hf://datasets/a",
     "az+x.y-z://c", "memory://"],
)  # fmt: skip
def test_a_url_is_refused_with_what_to_do(option, url):
    problem = refusal(option, PATH_OPTIONS[option].format(url))
    assert "object storage and other URLs are not supported yet; " in problem
    assert PATHS[option] in problem


@pytest.mark.parametrize("option", sorted(PATH_OPTIONS.keys() - {"prepare"}))
@pytest.mark.parametrize(
    ("path", "reason"), [("", "at least 1 character"), (" ", "is blank"), ("a\0b", "NUL character")]
)
def test_what_can_be_no_path_is_refused(option, path, reason):
    assert reason in refusal(option, path)


def test_a_data_set_may_be_elsewhere():
    for url in ("s3://bucket/a.csv", "https://host:8080/a.csv?token=1", "hf://datasets/a/b/*.parquet", "memory://a"):
        assert Config.from_values({"dataset": url}).dataset == url
    assert "holds a password" in refusal("dataset", "https://me:secret@host/a.csv")


def test_a_data_set_has_one_name_or_several(home):
    assert Config.from_values({"dataset": ["a.jsonl"]}) == Config.from_values({"dataset": "a.jsonl"})
    one, several = (Config.from_values({"dataset": names}) for names in ("~/a.jsonl", ["~/a.jsonl", "s3://b/c.jsonl"]))
    assert (one.dataset_names, one.dataset_title) == ([f"{home}/a.jsonl"], f"{home}/a.jsonl")
    assert several.dataset == several.dataset_names == [f"{home}/a.jsonl", "s3://b/c.jsonl"]
    assert several.dataset_title == f"{home}/a.jsonl and 1 more"
    assert Config.from_values(several.model_dump()) == several
    assert several.model == "flux-dev"
    assert Config.from_values({"dataset": ["example"]}) == Config.from_values({"dataset": "example"})
    for wrong in ([], [""], ["a.jsonl", " "], 5, {"a": 1}):
        with pytest.raises(ConfigError, match=r"^dataset"):
            Config.from_values({"dataset": wrong})


def test_the_message_for_a_url_names_field_value_and_fix():
    assert refusal("output", "s3://bucket/x") == (
        "output: object storage and other URLs are not supported yet; name a local folder (got 's3://bucket/x')"
    )


def test_a_lora_keeps_its_weight(home):
    entries = ["~/a.safetensors:0.5", "dir:1/b.safetensors:-1", "~root/c:d.safetensors", "owner/name:2"]
    assert Config.from_values({"lora": entries}).lora == [
        f"{home}/a.safetensors:0.5",
        "dir:1/b.safetensors:-1",
        f"{Path('~root').expanduser()}/c:d.safetensors",
        "owner/name:2",
    ]
    for url in ("s3://bucket:80", "https://host:8080/style"):  # a port, or a path after one, is no weight
        assert f"'{url}': object storage" in refusal("lora", url)
    assert "':0.5': is blank" in refusal("lora", ":0.5")


@pytest.mark.parametrize(
    ("option", "name"),
    [
        *(("model", name) for name in ("demo", "flux-dev", "owner/name", "sd3.5-large")),
        *(("dataset", name) for name in ("example", "hf:owner/name:train", "hf:name:config:split", "ms:a/b")),
        *(("lora", name) for name in ("owner/name", "owner/name/file.safetensors")),
    ],
)
def test_names_that_are_no_paths_are_left_alone(option, name):
    assert resolved(option, name) == name


@pytest.mark.parametrize(
    "value", [" ", "module", ":function", "module:", "a-b:f", "./module:f", "file.py", "file.py:", ".py:f"]
)
def test_what_names_no_function_of_a_module_or_file_is_refused(value):
    assert "write module:function or file.py:function" in refusal("prepare", value)


def test_the_file_of_a_function_is_a_path():
    assert "holds a NUL character" in refusal("prepare", "a\0.py:f")
    assert Config.from_values({"prepare": "my folder/prep.py:f"}).prepare == "my folder/prep.py:f"
    assert Config.from_values({"prepare": "package.module:f"}).prepare == "package.module:f"


def test_a_url_stays_a_url_where_one_is_wanted():
    assert Config.from_values({"public_url": "https://host:1/~a"}).public_url == "https://host:1/~a"


def test_paths_are_the_same_after_a_second_validation(home):
    config = Config.from_values({option: value_of(option, path.format("~")) for option, path in PATH_OPTIONS.items()})
    assert Config.from_values(config.model_dump()) == config


def test_a_null_path_in_yaml_is_the_default():
    assert Config.from_values(yaml.safe_load("output: ~\ncache_dir: ~\nlora: ~")) == Config()
    assert Config.from_values(yaml.safe_load("output: '~'")).output == str(Path.home())


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
