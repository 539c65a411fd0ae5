"""The command line's arguments: flags, other tools' names of flags, the YAML file, the help."""

import os
import subprocess
import sys

import pytest
import yaml

from flows.cli import command_line
from flows.commands import run_command
from t2i_core.config import Config
from t2i_core.errors import ConfigError
from tests.conftest import ROOT


def parsed(*arguments):
    """The configuration that a command line asks for."""
    return command_line().parse(list(arguments)).options


def test_flags_may_have_dashes_or_underscores():
    for flag in ("--batch-size", "--batch_size"):
        assert parsed(flag, "3").batch_size == 3
        assert parsed(f"{flag}=3").batch_size == 3


@pytest.mark.parametrize(
    ("flag", "value", "field"),
    [
        ("--first_entry_file_name", "a_b.jsonl", "dataset"),
        ("--first-entry-file-name", "a_b.jsonl", "dataset"),
        ("--prompt-file", "a.txt", "dataset"),
        ("--hf_model_name_or_path", "owner/name", "model"),
        ("--pretrained_model_name_or_path", "owner/name", "model"),
        ("--hf_cache_dir", "cache", "cache_dir"),
        ("--hf_local_dir", "models", "local_dir"),
        ("--output-dir", "out", "output"),
        ("--torch-dtype", "float16", "dtype"),
        ("--num-inference-steps", 3, "steps"),
        ("--num_images_per_prompt", 2, "images_per_prompt"),
    ],
)
def test_what_diffusers_and_the_reference_call_an_option_is_accepted(flag, value, field):
    assert getattr(parsed(flag, str(value)), field) == value
    assert getattr(parsed(f"{flag}={value}"), field) == value


def test_a_value_that_looks_like_a_name_of_another_tool_is_a_value():
    assert parsed("--negative-prompt=--prompt").negative_prompt == "--prompt"
    assert parsed("--prompt-key", "prompt_file").prompt_key == "prompt_file"


def test_the_data_set_needs_no_flag_and_may_be_several_files():
    assert parsed("a.jsonl").dataset == "a.jsonl"
    assert parsed("a.jsonl", "--steps", "3").steps == 3
    assert parsed("--steps", "3", "a.jsonl").dataset == "a.jsonl"
    several = ["a.jsonl", "b.jsonl"]
    assert parsed(*several).dataset == several
    assert parsed("--dataset", *several).dataset == several
    assert parsed("--dataset", "a.jsonl", "--dataset=b.jsonl").dataset == several
    assert parsed().dataset == "example"


def test_flags_go_before_the_file(tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump({"steps": 3, "seed": 5, "roles": ["user", "human"]}))
    config = parsed("--config", str(file), "--steps", "4")
    assert (config.steps, config.seed, config.roles) == (4, 5, ["user", "human"])


def test_a_tilde_is_the_home_folder_in_flags_in_the_file_and_in_its_name(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "run.yaml").write_text("dataset: ~/prompts.txt\n")
    config = parsed("--config=~/run.yaml", "--output=~/out")
    assert (config.dataset, config.output) == (f"{tmp_path}/prompts.txt", f"{tmp_path}/out")


def test_lists_are_given_by_repeating_or_in_a_row():
    assert parsed("--sizes", "64x64", "72x64").sizes == ["64x64", "72x64"]
    assert parsed("--sizes", "64x64", "--sizes", "72x64").sizes == ["64x64", "72x64"]


def test_a_yaml_file_is_read_once(tmp_path, monkeypatch):
    """What is edited later is of no run: the values go on, not the file's name."""
    file, load = tmp_path / "run.yaml", yaml.safe_load
    file.write_text("steps: 3\n")

    def load_edited(text):
        file.write_text("steps: 7\n")
        return load(text)

    monkeypatch.setattr(yaml, "safe_load", load_edited)
    config = parsed("--config", str(file))
    assert config.steps == 3
    assert "config" not in config.model_dump()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("stpes: 3\n", "{file}: stpes: unknown option; did you mean steps?"),
        ("num_inference_steps: 3\n", "{file}: num_inference_steps: unknown option; did you mean steps?"),
        ("- a\n- b\n", "config: {file} is no mapping of options"),
        ("1: 2\n", "config: {file} is no mapping of options"),
        ("a: [", "config: cannot read {file}: "),
        ("a: " + "[" * 5000, "config: cannot read {file}: "),
        ("a: \x00", "config: cannot read {file}: "),
        ("a: caf\udce9", "config: cannot read {file}: "),
    ],
)
def test_a_yaml_file_names_itself_in_errors(tmp_path, text, message):
    file = tmp_path / "run.yaml"
    file.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(ConfigError) as error:
        parsed("--config", str(file))
    assert str(error.value).startswith(message.format(file=file))
    assert "\n" not in str(error.value)


def test_an_empty_yaml_file_sets_nothing(tmp_path):
    (tmp_path / "run.yaml").write_text("# nothing\n")
    assert parsed("--config", str(tmp_path / "run.yaml")) == Config()


def test_help_lists_every_field(capsys):
    from t2i_core.config import Config

    assert command_line().parse(["--help"]) is None
    text = capsys.readouterr().out
    assert all(f"--{name.replace('_', '-')}" in text for name in Config.model_fields)


@pytest.mark.parametrize("columns", [80, 120])
def test_the_help_fits_the_terminal_and_has_a_box_for_each_heading(columns):
    done = subprocess.run(
        [sys.executable, "-m", "flows.text2image", "--help"],
        cwd=ROOT, env=os.environ | {"COLUMNS": str(columns)}, capture_output=True, text=True, timeout=100, check=True,
    )  # fmt: skip
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= columns
    boxes = [line.strip("╭╮─ ") for line in lines if line.startswith("╭")]
    sampling, speed = "Sampling (default: the model's own)", "Speed and memory"
    assert boxes == ["Data set", "Model", sampling, speed, "Run", "Output", "Prefect", "Command"]
    assert "[default: 0]" in done.stdout
    assert "[default: False]" not in done.stdout
    assert "[default: user]" in done.stdout


def test_a_required_option_that_is_missing_is_one_line_and_shows_no_default(capsys):
    assert run_command("export", []) == 2
    error = capsys.readouterr().err
    assert "format: is required; see --help" in error
    assert "got" not in error
    assert run_command("export", ["--help"]) == 0
    assert "default: None" not in capsys.readouterr().out
