"""The command line as people use it: quick answers, one line for what is wrong, exit codes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

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
        (["--model", "demo", "--scheduler", "DDIMScheduler"], "DDIMScheduler has no form for flow matching"),
        (
            ["--model", "demo", "--scheduler", "UniPCMultistepScheduler"],
            """--scheduler-options '{"prediction_type": "flow_""",
        ),
        (
            ["--model", "demo", "--scheduler-options", '{"shit": 3}'],
            "scheduler_options.shit: FlowMatchEulerDiscreteSch",
        ),
        (["--scheduler=DDIMScheduler", '--scheduler-options={"eta": 1}'], "DDIMScheduler has no such option"),
        (["--scheduler=DPMSolverSDEScheduler"], "draws its noise without the seeds of the images"),
        (
            ["--scheduler-options", "shift=3"],
            "scheduler_options: is not JSON: Expecting value at character 1; write an",
        ),
        (["--scheduler-options", "[3]"], "scheduler_options: is no object; write an object such as"),
        (["--scheduler-options", '{"shift": {}}'], "scheduler_options: shift is no number, text, true or false"),
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


def test_the_presets_are_a_table_that_imports_no_torch():
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "flows.text2image", "--list-models"],
        cwd=ROOT, capture_output=True, text=True, timeout=100, check=True,
    )  # fmt: skip
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert not imported & {"torch", "prefect", "diffusers", "transformers"}
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["preset", *PRESETS]
    for column in ("repository", "download", "steps", "size", "licence"):
        start = lines[0].index(column)
        assert all(line[start - 1] == " " != line[start] for line in lines), column


def test_a_wrong_path_is_answered_without_prefect_and_torch():
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "flows.text2image", "nowhere.jsonl"],
        cwd=ROOT, capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
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


def test_help_dry_run_and_an_unchanged_rerun_import_no_torch(run, output, prompts):
    dataset = prompts("a fox")
    arguments = [f"--dataset={dataset}", f"--output={output.folder}", "--model=demo", "--steps=1"]
    assert _imports("--help") == []
    assert _imports(*arguments, "--dry-run") == []
    assert run(dataset=dataset).is_completed()
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


PROXY = {"http_proxy": "http://127.0.0.1:9", "no_proxy": "intranet"}


@pytest.mark.parametrize(("workers", "proxy"), [(0, {}), (1, PROXY)])
def test_without_a_server_it_starts_one_quietly_and_reaches_it_past_a_proxy(tmp_path, output, prompts, workers, proxy):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    done = subprocess.run(
        command(f"--dataset={prompts('a fox')}", f"--output={output.folder}", f"--workers={workers}"),
        cwd=tmp_path,
        env=environment | {"PREFECT_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1"} | proxy,
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


@pytest.mark.parametrize(("part", "own", "expected"), [("1/2", True, 1), (None, True, 0), ("1/2", False, 0)])
def test_parts_that_start_servers_of_their_own_give_each_a_database(monkeypatch, tmp_path, part, own, expected):
    from flows import cli
    from t2i_core.config import Config
    from tasks import server

    given = []
    monkeypatch.setattr(server, "give_own_database", lambda: given.append(1))
    config = Config.from_values({"dataset": "x.txt", "output": str(tmp_path), "part": part, "dask_scheduler": "a:1"})
    cli._before_run(config, own=own)
    assert len(given) == expected
