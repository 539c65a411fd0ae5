"""The command line as people use it: quick answers, one line for what is wrong, exit codes."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from flows.cli import main
from t2i_core import __version__
from t2i_core.models.presets import PRESETS
from tests.conftest import ROOT, command, in_process


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--stpes", "3"], "--stpes"),
        (["--steps", "many"], "--steps"),
        (["--steps", "0"], "steps: input should be greater than or equal to 1 (got 0)"),
        (["--dtype", "half"], "--dtype"),
        (["--sizes", "512"], "write WIDTHxHEIGHT"),
        (["--reseed"], "add retry_failed"),
        (["--config", "/nowhere.yaml"], "/nowhere.yaml"),
        (["--config", "s3://bucket/run.yaml"], "config: object storage and other URLs are not supported yet"),
        (["--config", "~nosuchuser/run.yaml"], "no home folder is known for ~nosuchuser"),
        (["--output", "s3://bucket/out"], "output: object storage and other URLs are not supported yet"),
        (["--output=~nosuchuser/out"], "no home folder is known for ~nosuchuser"),
        (["stray"], "stray: no such file"),
        (["a.jsonl", "--dataset", "b.jsonl"], "a.jsonl: to which option? Data files stand together: --dataset a.jsonl"),
        (["--steps", "1", "--steps", "2"], "--steps specified multiple times"),
        (["--dataset"], "dataset: is empty; give at least one"),
        (["--prompt", "a fox"], "--prompt: unknown option; write the prompts into a .txt file, one a line"),
        (["--cfg_scale=3"], "--cfg_scale: unknown option; set guidance_scale"),
        (["--num-inference-steps", "0"], "steps: input should be greater than or equal to 1 (got 0)"),
        (["--model", "flux-dve"], "nor a hub id of the form owner/name; did you mean flux-dev?"),
        (["--model", "demo", "--revision", "main"], "revision: 'main' concerns hub models"),
        (["--scheduler", "EulerDiscrete"], "did you mean EulerDiscreteScheduler?"),
        (["--prepare", "./nowhere.py:f"], "prepare: './nowhere.py' does not exist"),
        (["--prepare", "nowhere:f"], "prepare: Python finds no module 'nowhere'"),
        (["--output", "/etc/passwd"], "output: /etc/passwd is a file; name a folder"),
    ],
)
def test_wrong_use_is_one_line_and_exit_code_2(capsys, arguments, message):
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.strip().splitlines()) == 1


def test_the_version_is_said(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == __version__


@pytest.fixture
def prefect_project(tmp_path):
    """A folder with modules of the names of this project's packages, as every Prefect project has one."""
    (tmp_path / "tasks.py").write_text("raise RuntimeError('theirs')")
    (tmp_path / "flows").mkdir()
    (tmp_path / "flows/__init__.py").write_text("raise RuntimeError('theirs')")
    (tmp_path / "mine.py").write_text("def prepare(pipeline):\n    print('prepared')\n")
    return tmp_path


def test_the_command_runs_in_a_prefect_project_and_finds_the_users_module(server, prefect_project, prompts, output):
    command = [Path(sys.executable).with_name("text2image"), "--model=demo", "--steps=1", "--prepare=mine:prepare"]
    done = subprocess.run(
        [*command, f"--dataset={prompts('a fox')}", f"--output={output.folder}"],
        cwd=prefect_project,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "prepared" in done.stdout
    assert "1 generated" in done.stdout


def test_a_yaml_file_names_itself_in_errors(capsys, tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text("stpes: 3\n")
    assert main(["--config", str(file)]) == 2
    assert f"{file}: stpes: unknown option; did you mean steps?" in capsys.readouterr().err
    for wrong in ("- a\n- b\n", "a: [", "1: 2\n"):
        file.write_text(wrong)
        assert main(["--config", str(file)]) == 2


@pytest.fixture
def parsed(monkeypatch):
    """What the command line makes of its flags, without a run."""
    seen = []
    monkeypatch.setattr("flows.cli._run", lambda config, verbose: seen.append(config) or 0)
    monkeypatch.setattr("flows.cli.check_at_once", lambda config: None)

    def parse(*arguments):
        assert main(list(arguments)) == 0
        return seen.pop()

    return parse


def test_flags_may_have_dashes_or_underscores(parsed):
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
def test_what_diffusers_and_the_reference_call_an_option_is_accepted(parsed, flag, value, field):
    assert getattr(parsed(flag, str(value)), field) == value
    assert getattr(parsed(f"{flag}={value}"), field) == value


def test_a_value_that_looks_like_a_name_of_another_tool_is_a_value(parsed):
    assert parsed("--negative-prompt=--prompt").negative_prompt == "--prompt"
    assert parsed("--prompt-key", "prompt_file").prompt_key == "prompt_file"


def test_the_data_set_needs_no_flag_and_may_be_several_files(parsed):
    assert parsed("a.jsonl").dataset == "a.jsonl"
    assert parsed("a.jsonl", "--steps", "3").steps == 3
    assert parsed("--steps", "3", "a.jsonl").dataset == "a.jsonl"
    several = ["a.jsonl", "b.jsonl"]
    assert parsed(*several).dataset == several
    assert parsed("--dataset", *several).dataset == several
    assert parsed("--dataset", "a.jsonl", "--dataset=b.jsonl").dataset == several
    assert parsed().dataset == "example"


def test_flags_go_before_the_file(parsed, tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump({"steps": 3, "seed": 5, "roles": ["user", "human"]}))
    config = parsed("--config", str(file), "--steps", "4")
    assert (config.steps, config.seed, config.roles) == (4, 5, ["user", "human"])


def test_a_tilde_is_the_home_folder_in_flags_in_the_file_and_in_its_name(parsed, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "run.yaml").write_text("dataset: ~/prompts.txt\n")
    config = parsed("--config=~/run.yaml", "--output=~/out")
    assert (config.dataset, config.output) == (f"{tmp_path}/prompts.txt", f"{tmp_path}/out")


def test_lists_are_given_by_repeating_or_in_a_row(parsed):
    assert parsed("--sizes", "64x64", "72x64").sizes == ["64x64", "72x64"]
    assert parsed("--sizes", "64x64", "--sizes", "72x64").sizes == ["64x64", "72x64"]


def test_help_lists_every_field(capsys):
    from t2i_core.config import Config

    assert main(["--help"]) == 0
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
    assert boxes == ["Data set", "Model", "Sampling (default: the model's own)", "Run", "Output", "Command"]
    assert "[default: 0]" in done.stdout
    assert "[default: False]" not in done.stdout
    assert "[default: user]" in done.stdout


def test_the_presets_are_a_table_that_imports_no_torch():
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "flows.text2image", "--list-models"],
        cwd=ROOT, capture_output=True, text=True, timeout=100, check=True,
    )  # fmt: skip
    assert time.perf_counter() - started < 20
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert not imported & {"torch", "prefect", "diffusers", "transformers"}
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["preset", *PRESETS]
    for column in ("repository", "download", "steps", "size", "licence"):
        start = lines[0].index(column)
        assert all(line[start - 1] == " " != line[start] for line in lines), column


def test_a_wrong_path_is_answered_without_prefect_and_torch():
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "flows.text2image", "nowhere.jsonl"],
        cwd=ROOT, capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert time.perf_counter() - started < 20
    assert done.returncode == 2
    lines = done.stderr.splitlines()
    imported = {line.rpartition("|")[2].strip() for line in lines if line.startswith("import time:")}
    assert not imported & {"torch", "prefect", "diffusers", "transformers"}
    (message,) = [line for line in lines if not line.startswith("import time:")]
    assert message.startswith("error: nowhere.jsonl: no such file")


def test_in_a_folder_that_was_deleted_it_says_so(tmp_path):
    gone = tmp_path / "gone"
    gone.mkdir()
    code = (
        "import os, sys; os.chdir(sys.argv[1]); os.rmdir(sys.argv[1]); from flows.cli import main; sys.exit(main([]))"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code, str(gone)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert (done.returncode, done.stderr) == (2, "error: the current folder was deleted; change to another one\n")


def _imports(*arguments):
    """Modules that a command line leaves imported: a run in a process that tells at its end."""
    code = (
        "import sys\nfrom flows.cli import main\ncode = main(sys.argv[1:])\n"
        "print('IMPORTED', *(m for m in ('torch', 'diffusers', 'transformers') if m in sys.modules))\nsys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return next(line.split()[1:] for line in done.stdout.splitlines() if line.startswith("IMPORTED"))


def test_help_dry_run_and_an_unchanged_rerun_import_no_torch(server, output, prompts):
    arguments = [f"--dataset={prompts('a fox')}", f"--output={output.folder}", "--model=demo", "--steps=1"]
    assert _imports("--help") == []
    assert _imports(*arguments, "--dry-run") == []
    in_process(*arguments, check=0)
    assert _imports(*arguments) == []


def test_the_screen_of_a_good_run_is_quiet(server, output, prompts):
    done = in_process(f"--dataset={prompts('a fox', 'a cat')}", f"--output={output.folder}", check=0)
    assert "Traceback" not in done.stdout + done.stderr
    assert len(done.stdout.splitlines()) < 12
    for word in ("rows      2: 2 generated", "images    2: 2 generated", "manifest", "images/s", "licence"):
        assert word in done.stdout
    assert (output.folder / "contact_sheet.jpg").stat().st_size > 1000


def test_too_many_failures_end_with_exit_code_3(server, output, tmp_path):
    (tmp_path / "x.jsonl").write_text('{"conversations": "a fox"}\nnot json\n')
    done = in_process(f"--dataset={tmp_path / 'x.jsonl'}", f"--output={output.folder}", check=3)
    assert "1 failed" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("exit code 3: more failures than --max-failures 0 allows: ")
    assert last.endswith(f"1 failures: see {output.folder}/failures.jsonl")


def test_a_run_from_any_folder_and_a_missing_file_is_one_line(server, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "flows.text2image", "--dataset", "none.jsonl", "--model", "demo"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.strip().splitlines()) == 1
    assert "none.jsonl" in done.stderr


def test_the_default_model_without_a_gpu_names_two_commands_that_work(server, prompts, output):
    done = subprocess.run(
        [sys.executable, "-m", "flows.text2image", f"--dataset={prompts('a fox')}", f"--output={output.folder}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
    )
    assert done.returncode == 2
    assert "FLUX.1-dev" in done.stderr
    assert done.stderr.count("python -m flows.text2image") == 2
    assert "--model demo" in done.stderr


def test_without_a_server_it_starts_one_quietly(tmp_path, output, prompts):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    done = subprocess.run(
        command(f"--dataset={prompts('a fox')}", f"--output={output.folder}"),
        cwd=tmp_path,
        env=environment | {"PREFECT_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 generated" in done.stdout
    assert "Traceback" not in done.stderr
    noise = [line for line in done.stderr.splitlines() if line.strip() and "image" not in line]
    assert noise == []
