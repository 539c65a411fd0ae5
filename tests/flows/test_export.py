"""The export as a flow, and on the command line."""

import errno
import json
import re
import subprocess
import sys

import pytest
from datasets import load_dataset

from flows import commands
from flows.export import export
from flows.outcomes import REFUSED
from t2i_core.options.export import ExportOptions
from tests.conftest import ROOT


@pytest.fixture
def exported(server, output):
    """Run the flow in this process: `exported(format="parquet")` -> the final state."""

    def call(**values):
        return export(**({"output": str(output.folder), "format": "webdataset"} | values), return_state=True)

    return call


def test_what_a_run_made_is_exported_and_an_unchanged_export_writes_nothing(run, exported, prompts, output, caplog):
    run(dataset=prompts("a fox", {"conversations": [{"role": "user", "content": "a cat"}], "id": 7}))
    state = exported()
    folder = output.folder / "exports" / "webdataset"
    assert state.is_completed()
    assert state.message == f"2 images in {folder}"
    data = load_dataset(str(folder), split="train", cache_dir=str(output.folder.parent / "datasets"))
    assert data["txt"] == ["a fox", "a cat"]
    assert [row["id"] for row in data["json"]] == [None, 7]
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    caplog.clear()
    assert exported().is_completed()
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    assert f"export    {folder}, unchanged" in caplog.text


def test_an_export_follows_its_output_and_heals(run, exported, prompts, output):
    run(dataset=prompts("a fox", "a cat"))
    exported(shard_size=1)
    folder = output.folder / "exports" / "webdataset"
    first = (folder / "train" / "00000.tar").stat().st_ino
    run(dataset=prompts("a dog", "a fox", "a cat"))
    exported(shard_size=1)
    assert json.loads((folder / "export.json").read_text())["images"] == 3
    assert (folder / "train" / "00000.tar").stat().st_ino == first
    (folder / "train" / "00001.tar").unlink()
    exported(shard_size=1)
    assert (folder / "train" / "00001.tar").exists()


def test_wrong_use_is_refused_in_one_line(run, exported, prompts, output):
    state = exported()
    assert state.name == REFUSED
    assert "is no folder; name the output of a text2image run" in state.message
    run(dataset=prompts("a fox"))
    for values, why in (
        ({"format": "captions", "images": "in-place"}, "images: captions cannot have them in-place"),
        ({"where": "nosuch > 1"}, "where: "),
        ({"caption": "nosuch"}, "caption: no image has a text in the column nosuch"),
        ({"to": str(output.folder)}, "to: .* holds the output itself"),
    ):
        state = exported(**values)
        assert state.name == REFUSED
        assert "\n" not in state.message
        assert re.search(why, state.message), state.message
    assert not (output.folder / "exports").exists() or not list((output.folder / "exports").iterdir())


def test_a_full_disk_is_said_in_one_line_and_nothing_is_left(run, exported, prompts, output, monkeypatch):
    run(dataset=prompts("a fox"))
    folder = output.folder / "exports" / "imagefolder"

    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device", str(folder / "x.png"))

    with monkeypatch.context() as patch:
        patch.setattr("t2i_core.export.placed.Placed.place", full)
        state = exported(format="imagefolder")
    assert state.name == REFUSED
    assert "No space left on device" in state.message
    assert "make room and run the same command again" in state.message
    assert not folder.exists()
    assert exported(format="imagefolder").is_completed()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["out"], "format: is required; see --help"),
        (["out", "--format", "tar"], "--format"),
        (["out", "--format", "parquet", "--split", "train=2"], "split: shares must be above 0 and add up to 1"),
        (["out", "--format", "llava", "--questions", "/nowhere.txt"], "questions: '/nowhere.txt' does not exist"),
        (
            ["out", "--format", "webdataset", "--shard-size", "0"],
            "shard_size: input should be greater than or equal to 1",
        ),
    ],
)
def test_a_mistake_is_answered_before_a_server_is_started(arguments, message, capsys, monkeypatch):
    monkeypatch.setattr(commands, "run_flow", lambda *given, **named: pytest.fail("the flow began"))
    assert commands.run_command("export", arguments) == 2
    said = capsys.readouterr()
    assert said.err.startswith("error: ")
    assert message in said.err
    assert len(said.err.splitlines()) == 1
    assert said.out == ""


def test_the_help_lists_every_option():
    done = subprocess.run(
        [sys.executable, "-m", "flows.export", "--help"],
        cwd=ROOT, capture_output=True, text=True, timeout=200, check=True,
    )  # fmt: skip
    for name in ExportOptions.model_fields:
        assert f"--{name.replace('_', '-')}" in done.stdout
