"""The command line as people use it: quick answers, one line for what is wrong, exit codes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from flows.cli import main
from t2i_core import __version__
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
        (["--config", "s3://bucket/run.yaml"], "config: cannot read s3://bucket/run.yaml: object storage"),
        (["--config", "~nosuchuser/run.yaml"], "no home folder is known for ~nosuchuser"),
        (["--output", "s3://bucket/out"], "output: object storage and other URLs are not supported yet"),
        (["--output=~nosuchuser/out"], "no home folder is known for ~nosuchuser"),
        (["stray"], "stray"),
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

    def parse(*arguments):
        assert main(list(arguments)) == 0
        return seen.pop()

    return parse


def test_flags_may_have_dashes_or_underscores(parsed):
    for flag in ("--batch-size", "--batch_size"):
        assert parsed(flag, "3").batch_size == 3
        assert parsed(f"{flag}=3").batch_size == 3


def test_the_flag_of_the_reference_is_accepted(parsed):
    assert parsed("--first_entry_file_name", "a_b.jsonl").dataset == "a_b.jsonl"


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
