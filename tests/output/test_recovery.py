"""Whose an output is, and which manifest lies in it, where `.t2i/output.json` was deleted."""

import itertools
import json
import shutil
import tarfile
from pathlib import Path

import pytest

from t2i_core.config import Config
from t2i_core.errors import OutputError
from t2i_core.output.identity import check_files, claim_output, manifest_form, open_output
from t2i_core.output.layout import ManifestForm
from t2i_core.output.own_files import OwnFiles
from t2i_core.output.recovery import recover
from t2i_core.storage.workspace import Workspace
from tests.builders import image_spec, store_image
from tests.make_output import SETTINGS, TWO_STEPS

RELEASES = sorted((Path(__file__).parents[1] / "data").glob("*.tar.gz"))
NAMES = ("manifest.jsonl", "failures.jsonl", "images.parquet", "run.json", ".t2i/output.json", ".t2i/results")


@pytest.mark.parametrize("release", RELEASES, ids=lambda path: path.name)
def test_whatever_is_deleted_of_an_earlier_release_s_output_it_is_still_ours(release, tmp_path, monkeypatch):
    with tarfile.open(release) as archive:
        archive.extractall(tmp_path, filter="data")
    monkeypatch.chdir(tmp_path)
    config = Config.from_values(SETTINGS | TWO_STEPS)
    known = json.loads(Path("out/.t2i/output.json").read_text())
    for count in range(len(NAMES) + 1):
        for names in itertools.combinations(NAMES, count):
            shutil.rmtree("copy", ignore_errors=True)
            shutil.copytree("out", "copy", symlinks=True)
            for name in names:
                path = Path("copy", name)
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
            workspace = Workspace("copy")
            claim_output(workspace, open_output(workspace, config, known["fingerprint"]))
            check_files(workspace, config)
            form = manifest_form(workspace)
            if "manifest.jsonl" not in names:
                assert form == ManifestForm(**known["manifest"]), names


@pytest.fixture
def made(workspace, config):
    """Images by two commits of a model, most of them by the first, and no output.json."""
    for number, commit in enumerate("aab"):
        store_image(workspace, image_spec(number), commit=commit * 40, model_name="owner/name")
    (workspace.hidden / "output.json").unlink()
    return config(model="owner/name")


def test_without_run_json_the_headers_tell_the_commit_and_the_folder_is_for_any_data_set(workspace, made):
    identity = open_output(workspace, made, "one")
    assert dict(identity.commits) == {"owner/name": "a" * 40}
    assert (identity.dataset, identity.fingerprint, identity.manifest) == ("prompts.jsonl", "one", None)
    assert dict(open_output(workspace, made.model_copy(update={"model": "demo"}), "one").commits) == {}


def run_json(workspace, **values):
    known = {"dataset": "/data/prompts.jsonl", "fingerprint": "f", "commits": {"owner/name": "c"}, "manifest": None}
    run = {"state": "finished", "run": "r", "configuration": {"dataset": "prompts.jsonl"}, "accounting": {}}
    with OwnFiles(workspace).write("run.json") as file:
        file.write(json.dumps(run | {"output": known} | values).encode())


def test_run_json_tells_the_data_set_and_another_is_refused(workspace, made):
    run_json(workspace)
    with pytest.raises(OutputError, match=r"holds the images of /data/prompts\.jsonl; choose another --output, or"):
        open_output(workspace, made, "another")
    assert dict(open_output(workspace, made, "f").commits) == {"owner/name": "c"}


def test_a_run_json_of_an_earlier_version_tells_the_data_set_by_its_name(workspace, made):
    run_json(workspace, output=None)
    assert open_output(workspace, made, "edited since").fingerprint == "edited since"
    with pytest.raises(OutputError, match=r"holds the images of prompts\.jsonl"):
        open_output(workspace, made.model_copy(update={"dataset": "other.jsonl"}), "another")


@pytest.mark.parametrize(
    "broken",
    [
        {"output": {"dataset": 5, "fingerprint": [], "commits": "x", "manifest": {"name": 5}}},
        {"output": {"dataset": "a", "fingerprint": "f", "manifest": {"name": "../a", "prefix": "", "image_key": "i"}}},
        {"output": 5, "configuration": {"dataset": {"a": 1}, "manifest_name": []}},
    ],
)
def test_a_run_json_that_was_edited_by_hand_is_no_traceback(workspace, made, broken):
    run_json(workspace, **broken)
    open_output(workspace, made.model_copy(update={"replace": True}), "one")


@pytest.mark.parametrize("prefix", ["", "out/", "/data/out/", "./x y/"])
@pytest.mark.parametrize(
    "name", ["sample3_condition0/sample3_condition0_1.png", ".t2i/images/ab/cd/" + "0" * 64 + ".png"]
)
def test_a_manifest_tells_its_own_form(workspace, made, prefix, name):
    rows = [{"conversations": "a fox", "images": []}, {"tags": ["x"], "pictures": ["mine.png", prefix + name]}]
    with OwnFiles(workspace).write("manifest.jsonl") as file:
        file.write("".join(json.dumps(row) + "\n" for row in rows).encode())
    assert recover(workspace, made)["manifest"] == {"name": "manifest.jsonl", "prefix": prefix, "image_key": "pictures"}


def test_a_folder_without_images_of_ours_is_for_nothing(tmp_path, config):
    workspace = Workspace(tmp_path / "new")
    run_json(workspace)
    assert recover(workspace, config()) is None
    (workspace.hidden / "images/00/00").mkdir(parents=True)
    (workspace.hidden / "images/00/00" / f"{'0' * 64}.png").write_bytes(b"theirs")
    assert recover(workspace, config()) is None
