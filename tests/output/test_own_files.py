"""A file that this tool did not write is never overwritten: by its notes, else by what a file says of itself."""

import itertools
import json
import os
import shutil
import time

import pytest

from t2i_core.errors import OutputError
from t2i_core.output import own_files
from t2i_core.output.identity import OutputIdentity, check_files, claim_output
from t2i_core.output.own_files import MARKER, OwnFiles, claim_folder
from t2i_core.storage.workspace import Workspace
from tests.builders import image_spec, store_image

NAMES = ("manifest.jsonl", "failures.jsonl", "images.parquet", "run.json", "contact_sheet.jpg", "preview.jpg")


@pytest.fixture
def files(workspace):
    return OwnFiles(workspace)


def write(files, name, content=b"ours"):
    with files.write(name) as file:
        file.write(content)


def refused(name):
    return pytest.raises(OutputError, match=f"holds {name}, which this tool did not write; choose another --output, or")


@pytest.mark.parametrize("name", [*NAMES, "gallery/index.html"])
def test_what_was_written_is_ours_and_what_somebody_put_in_its_place_is_not(workspace, files, name):
    for content in (b"one", b"another"):
        write(files, name, content)
        files.check([name])
    path = workspace.root / name
    path.unlink()
    files.check([name])
    path.write_bytes(b"theirs!")
    with refused(name):
        files.check([name])
    with refused(name):
        write(files, name)
    assert path.read_bytes() == b"theirs!"
    assert [one.name for one in path.parent.iterdir() if one.name.endswith(".tmp")] == []
    files.remove(name)
    assert path.read_bytes() == b"theirs!"


def test_what_may_be_replaced_is_overwritten_and_then_ours(workspace, files):
    (workspace.root / "run.json").write_text("theirs")
    write(OwnFiles(workspace, replace=True), "run.json")
    files.check(["run.json"])


@pytest.mark.parametrize("kind", ["link", "link to ours", "dangling link", "folder", "pipe", "file above"])
def test_what_is_no_file_is_not_ours(workspace, files, kind):
    write(files, "run.json")
    name = "x/run.json" if kind == "file above" else "a.json"
    path = workspace.root / "a.json"
    if kind == "link":
        (workspace.root / "theirs").write_text("theirs")
        path.symlink_to("theirs")
    elif kind == "link to ours":
        path.symlink_to("run.json")
    elif kind == "dangling link":
        path.symlink_to("nowhere")
    elif kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        (workspace.root / "x").write_text("a file")
    with refused(name):
        files.check([name])


def test_a_kill_between_note_and_name_leaves_the_old_file_ours(workspace, files, monkeypatch):
    write(files, "manifest.jsonl", b"one")

    def killed(source, target):
        if str(target).endswith("/manifest.jsonl") and ".t2i" not in str(target):
            raise KeyboardInterrupt
        original(source, target)

    original = os.replace
    monkeypatch.setattr(os, "replace", killed)
    for _ in range(3):  # killed again and again: the file that is there stays noted
        with pytest.raises(KeyboardInterrupt):
            write(files, "manifest.jsonl", b"two")
    monkeypatch.undo()
    files.check(["manifest.jsonl"])
    write(files, "manifest.jsonl", b"three")
    assert (workspace.root / "manifest.jsonl").read_bytes() == b"three"


def test_a_file_that_a_power_cut_left_empty_is_ours_and_one_that_was_never_written_is_not(workspace, files):
    write(files, "run.json")
    (workspace.root / "run.json").write_bytes(b"")
    files.check(["run.json"])
    (workspace.root / "manifest.jsonl").write_bytes(b"")
    with refused("manifest.jsonl"):
        files.check(["manifest.jsonl"])


def test_a_copy_of_a_manifest_under_a_name_of_the_user_s_own_is_theirs(workspace, files):
    row = {"conversations": "a fox", "images": [f"{workspace.root}/sample0_condition0/sample0_condition0_0.png"]}
    store_image(workspace, image_spec(0))
    write(files, "manifest.jsonl", json.dumps(row).encode())
    shutil.copy(workspace.root / "manifest.jsonl", workspace.root / "foxes.jsonl")
    with refused("foxes.jsonl"):
        files.check(["foxes.jsonl"])
    with (workspace.root / "manifest.jsonl").open("a") as file:  # ours, edited by hand
        file.write("\n\n")
    files.check(["manifest.jsonl"])
    files.forget("manifest.jsonl")
    with refused("manifest.jsonl"):
        files.check(["manifest.jsonl"])


@pytest.fixture
def unclaimed(tmp_path):
    return Workspace(tmp_path / "unclaimed")


def test_of_runs_that_begin_at_the_same_moment_without_locks_the_first_one_counts(unclaimed):
    def meanwhile():
        OwnFiles(unclaimed).begin([])
        (unclaimed.written / "run.json").write_text("of the first one")
        yield "manifest.jsonl"

    OwnFiles(unclaimed).begin(meanwhile())
    assert [path.name for path in unclaimed.written.iterdir()] == ["run.json"]
    assert [path.name for path in unclaimed.hidden.iterdir()] == ["written"]


@pytest.mark.parametrize(("hours", "left"), [(0, [".written.7-7.tmp", "written"]), (2, ["written"])])
def test_what_a_killed_process_had_begun_is_removed_once_it_is_old(unclaimed, hours, left):
    files = OwnFiles(unclaimed)
    files.begin([])
    begun = unclaimed.hidden / ".written.7-7.tmp"
    begun.mkdir()
    (begun / "run.json").touch()
    then = time.time() - 3600 * hours
    os.utime(begun, (then, then))
    files.begin([])
    assert sorted(path.name for path in unclaimed.hidden.iterdir()) == left


def test_what_gets_its_name_while_a_run_begins_refuses_nothing(unclaimed, monkeypatch):
    (unclaimed.hidden / ".written.7-7.tmp").mkdir(parents=True)

    def gone(path):
        raise FileNotFoundError(path)

    monkeypatch.setattr(own_files, "is_stale", gone)
    OwnFiles(unclaimed).begin([])
    assert unclaimed.written.is_dir()


@pytest.fixture
def earlier(tmp_path, config):
    """An output of a version that noted nothing: files that say nothing of themselves."""
    workspace = Workspace(tmp_path / "earlier")
    claim_output(workspace, OutputIdentity("prompts.jsonl", "one", manifest=None))
    shutil.rmtree(workspace.hidden / "written")
    for name in NAMES:
        (workspace.root / name).write_text(f"of an earlier version: {name}")
    values = json.loads((workspace.hidden / "output.json").read_text())
    values["manifest"] = {"name": "manifest.jsonl", "prefix": "out/", "image_key": "images"}
    (workspace.hidden / "output.json").write_text(json.dumps(values))
    return workspace


def test_the_names_of_an_earlier_version_s_output_are_ours_until_and_after_it_is_claimed(earlier, config):
    run = config(output=str(earlier.root), dataset="prompts.jsonl")
    claim_output(earlier, check_files(earlier, run))
    check_files(earlier, run)
    OwnFiles(earlier).check(NAMES)
    (earlier.root / "run.json").write_text("theirs")
    with refused("run.json"):
        check_files(earlier, run)


def test_a_name_that_an_earlier_version_never_wrote_is_not_ours(earlier, config):
    (earlier.root / "notes.jsonl").write_text("{}\n")
    with refused("notes.jsonl"):
        check_files(earlier, config(output=str(earlier.root), manifest_name="notes.jsonl"))


@pytest.mark.parametrize("name", NAMES)
def test_without_notes_output_json_and_images_nothing_is_ours(tmp_path, config, name):
    root = tmp_path / "new"
    root.mkdir()
    (root / name).write_text("")
    run = config(output=str(root), preview=4 if name == "preview.jpg" else None)
    with refused(name):
        check_files(Workspace(root), run)
    check_files(Workspace(root), run.model_copy(update={"replace": True}))
    assert sorted(path.name for path in root.iterdir()) == [name]


def test_a_preview_and_a_part_are_only_refused_for_what_they_write(tmp_path, config):
    root = tmp_path / "new"
    root.mkdir()
    (root / "manifest.jsonl").write_text("theirs")
    for options in ({"preview": 4}, {"part": "1/2"}):
        check_files(Workspace(root), config(output=str(root), **options))


def test_a_folder_is_claimed_once_and_a_folder_of_others_never(tmp_path):
    for _, folder in itertools.product(range(2), (tmp_path / "new/one", tmp_path / "empty")):
        if folder.name == "empty":
            folder.mkdir(exist_ok=True)
        claim_folder(folder)
        assert (folder / MARKER).is_file()
        (folder / "page.html").write_text("ours")
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "page.html").write_text("theirs")
    with pytest.raises(OutputError, match=r"theirs holds files that this tool did not write; name another folder"):
        claim_folder(theirs)
    assert [path.name for path in theirs.iterdir()] == ["page.html"]
    claim_folder(theirs, replace=True)
