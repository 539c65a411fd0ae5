"""Errors of the operating system that end a run: the user's line, or a bug of this tool."""

import errno
import os

import pytest

from flows.system_errors import as_users
from t2i_core.errors import DatasetError


def error(path, number=errno.EACCES):
    return OSError(number, os.strerror(number), path)


def test_the_options_of_a_run_say_whose_path_it_is(tmp_path, monkeypatch):
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    values = {
        "dataset": [str(tmp_path / "a.jsonl"), "s3://bucket/b.jsonl"],
        "model": str(tmp_path / "model"),
        "lora": [f"{tmp_path}/style.safetensors:0.5"],
        "prepare": f"{tmp_path}/mine.py:f",
        "output": str(tmp_path / "out"),
    }
    for path, option in {
        "a.jsonl": f"dataset {tmp_path}/a.jsonl",
        "model/vae/config.json": "model",
        "style.safetensors": f"lora {tmp_path}/style.safetensors:0.5",
        "mine.py": "prepare",
        "out/manifest.jsonl": "output",
        "hub/models/x": "HF_HOME",
        "prefect/prefect.db": "PREFECT_HOME",
    }.items():
        assert str(as_users(error(f"{tmp_path}/{path}"), values)).startswith(f"{option}: {tmp_path}/{path}: Permission")


def test_wrong_use_stays_as_it_is_and_a_bug_is_none_of_the_user_s():
    wrong = DatasetError("no rows")
    assert as_users(wrong, {}) is wrong
    with pytest.raises(OSError, match="of a library"):
        as_users(OSError("of a library"), {})


def test_a_run_ends_with_the_line_and_a_bug_stays_one(run, prompts, monkeypatch):
    def fail(with_error):
        monkeypatch.setattr("flows.text2image.open_output", lambda *arguments: (_ for _ in ()).throw(with_error))
        return run(dataset=prompts("a fox"))

    assert fail(error("/elsewhere/x")).name == "Refused"
    assert fail(OSError("of a library")).name == "Failed"


def test_the_command_line_says_it_before_anything_is_started(monkeypatch, capsys, tmp_path):
    from flows import cli

    def fail(config):
        raise error(str(tmp_path / "x"), errno.ELOOP)

    monkeypatch.setattr(cli, "check_at_once", fail)
    assert cli.main(["--model=demo", f"--output={tmp_path}"]) == 2
    assert capsys.readouterr().err == (
        f"error: output: {tmp_path}/x: Too many levels of symbolic links; its links lead in a circle; correct them\n"
    )


def test_a_command_over_a_finished_output_says_it_too(server, monkeypatch, tmp_path):
    from flows import export

    def fail(options):
        raise error(f"{tmp_path}/to/x", errno.ENOSPC)

    monkeypatch.setattr(export, "_run", fail)
    state = export.export(output=str(tmp_path / "out"), format="captions", to=str(tmp_path / "to"), return_state=True)
    assert state.name == "Refused"
    assert state.message.startswith(f"to: {tmp_path}/to/x: No space left on device")
