"""Disks that are full, only for reading, or lack something: one line and exit code 2, and the next run goes on."""

import errno
import os
import shutil
from pathlib import Path

import pytest

from flows.outcomes import exit_code
from t2i_core.storage import promises
from tests.conftest import header_of

pytestmark = pytest.mark.timeout(300)

# Part of a path that is written in a stage of a run -> the stage.
STAGES = {
    ".rows.parquet": "plan",
    ".specs.parquet": "plan, second pass",
    "/output.json": "claim",
    "/records/": "records",
    "/.t2i/images/": "images",
    "sample1_condition0_0.png": "names",
    "sample1_condition0": "folders of names",
    "/written/manifest.jsonl": "notes",
    "/images.parquet": "provenance",
    "/failures.jsonl": "failures",
    "/manifest.jsonl": "manifest",
    "/contact_sheet.jpg": "report",
    "/run.json": "report, last",
}


@pytest.fixture
def disk(monkeypatch):
    """Break calls of the operating system: `disk("replace", "/run.json", errno.ENOSPC)` until `disk.undo()`."""

    def fail(call, part, number, named=True):
        original = getattr(os, call)

        def failing(*arguments, **values):
            paths = [str(argument) for argument in arguments if isinstance(argument, str | os.PathLike)]
            if any(part in path for path in paths):
                raise OSError(number, os.strerror(number), *(paths[:1] if named else []))
            return original(*arguments, **values)

        monkeypatch.setattr(os, call, failing)

    fail.undo = monkeypatch.undo
    return fail


def refused(state, *words):
    assert exit_code(state) == 2, state
    assert "\n" not in state.message
    for word in words:
        assert word in state.message
    return state.message


@pytest.mark.parametrize("part", STAGES, ids=STAGES.get)
def test_a_full_disk_is_one_line_in_each_stage_and_the_next_run_goes_on(run, output, prompts, disk, part):
    dataset = prompts("a fox", "a cat")
    if part == "sample1_condition0":
        disk("mkdir", part, errno.ENOSPC)
    else:
        for call in ("replace", "link"):
            disk(call, part, errno.ENOSPC, named=call == "link")
    message = refused(run(dataset=dataset), "output: ", "No space left on device", "run the same command again")
    assert ".tmp" not in message
    made = len(output.stored())
    disk.undo()
    assert run(dataset=dataset).is_completed()
    assert output.counts().get("images_generated", 0) == 2 - made
    assert output.manifest_is_true()
    assert not list(output.folder.rglob("*.tmp"))


@pytest.mark.parametrize("moment", ["retiring the old manifest", "first name", "second name", "new manifest"])
def test_a_full_disk_while_names_change_leaves_a_manifest_that_is_true_or_none(run, output, prompts, disk, moment):
    run(dataset=prompts("a fox", "a cat", "a house"))
    part = {
        "retiring the old manifest": "/manifests/",
        "first name": "sample0_condition0_0.png",
        "second name": "sample2_condition0_0.png",
        "new manifest": "/manifest.jsonl",
    }[moment]
    disk("replace", part, errno.ENOSPC)
    refused(run(dataset=prompts("a cat", "a fox", "a moon")), "No space left on device")
    manifest = output.folder / "manifest.jsonl"
    assert manifest.exists() == (moment == "retiring the old manifest")
    if manifest.exists():
        assert output.manifest_is_true()
    refused(run(dataset=prompts("a cat", "a fox", "a moon")), "No space left on device")
    disk.undo()
    assert run(dataset=prompts("a cat", "a fox", "a moon")).is_completed()
    assert output.manifest_is_true()


@pytest.fixture
def read_only(disk, output, monkeypatch):
    """Make the output a mount that is only for reading."""

    def mount():
        access, root = os.access, str(output.folder)
        for call in ("replace", "link", "mkdir", "unlink", "rename"):
            disk(call, root, errno.EROFS)
        monkeypatch.setattr(
            os, "access", lambda path, mode: access(path, mode) and not (mode & os.W_OK and str(path).startswith(root))
        )

    return mount


def everything(folder):
    return {path: path.lstat().st_mtime_ns for path in folder.rglob("*")}


@pytest.mark.parametrize("option", ["dry_run", "status"])
def test_a_dry_run_over_a_changed_data_set_works_where_nothing_can_be_written(
    run, output, prompts, read_only, option, caplog
):
    run(dataset=prompts("a fox", "a cat"))
    before = everything(output.folder)
    read_only()
    dataset = prompts("a fox", "a cat", "a house")
    refused(run(dataset=dataset), "cannot be written: it is read-only, or another user's; name another folder")
    caplog.clear()
    state = run(dataset=dataset, **{option: True})
    assert state.is_completed(), state.message
    assert ("1 of them to make" if option == "dry_run" else "2 made, 0 failed, 1 missing") in state.message
    assert f"a run would be refused: {output.folder} cannot be written" in caplog.text
    assert everything(output.folder) == before


def test_an_estimate_over_an_output_that_cannot_be_written_needs_no_marks_in_it(run, output, prompts, read_only):
    dataset = prompts("a fox", "a cat")
    (output.folder / ".t2i" / "running").mkdir(parents=True)  # as runs leave it
    run(dataset=dataset)
    before = everything(output.folder)
    read_only()
    state = run(dataset=prompts("a fox", "a cat", "a house"), dry_run=True, estimate=True, workers=1)
    assert state.is_completed(), state.message
    assert "1 of them to make" in state.message
    assert everything(output.folder) == before


def test_a_dry_run_for_an_output_that_cannot_be_made_says_so_and_what_there_is_to_do(run, prompts, disk, caplog):
    disk("mkdir", "/proc", errno.EPERM)
    dataset = prompts("a fox")
    refused(run(dataset=dataset, output="/proc/out"), "output: /proc/out cannot be made in /proc")
    assert "1 of them to make" in run(dataset=dataset, output="/proc/out", dry_run=True).message
    assert "a run would be refused: /proc/out cannot be made" in caplog.text
    refused(run(dataset=dataset, output="/dev/null", dry_run=True), "is a device")


LACKING = {
    "fchmod": errno.EPERM,
    "fsync": errno.EINVAL,
    "link": errno.ENOTSUP,
    "utime": errno.EPERM,
    "flock": errno.ENOLCK,
}


@pytest.mark.parametrize("number", [None, errno.ENOSYS, errno.ENOTSUP], ids=["as usual", "ENOSYS", "ENOTSUP"])
def test_a_file_system_that_lacks_everything_is_said_once_and_keeps_the_images(
    run, output, prompts, monkeypatch, number, caplog
):
    import fcntl

    def fail(call):
        def failing(*arguments, **values):
            raise OSError(number or LACKING[call], os.strerror(number or LACKING[call]))

        return failing

    for call in LACKING:
        monkeypatch.setattr(fcntl if call == "flock" else os, call, fail(call))
    monkeypatch.setattr(promises, "_said", set())
    for texts in (("a fox", "a cat"), ("a cat", "a fox", "a house")):
        assert run(dataset=prompts(*texts)).is_completed()
        assert output.manifest_is_true()
    assert output.counts()["images_reused"] == 2
    for promise in promises.PROMISES.values():
        assert caplog.text.count(promise) == 1
    name = output.folder / "sample0_condition0/sample0_condition0_0.png"
    assert header_of(name)["spec"]["prompt"] == "a cat"


# What of an output may be deleted, all but the images themselves.
DELETED = (
    *(".t2i/output.json", ".t2i/written", ".t2i/plans", ".t2i/results", ".t2i/records", ".t2i/manifests", ".t2i/lock"),
    *("manifest.jsonl", "failures.jsonl", "images.parquet", "run.json", "contact_sheet.jpg", "sample0_condition0"),
)
COMBINATIONS = [
    *((one,) for one in DELETED),
    DELETED,
    tuple(name for name in DELETED if name.startswith(".t2i")),
    tuple(name for name in DELETED if not name.startswith(".t2i")),
    (".t2i/output.json", "run.json"),
    (".t2i/output.json", ".t2i/written", "run.json", "manifest.jsonl"),
]


@pytest.mark.parametrize("names", COMBINATIONS, ids="+".join)
def test_everything_but_the_images_may_be_deleted(run, output, prompts, names, request):
    dataset = prompts("a fox", "a cat", "a house", {"conversations": 5})
    run(dataset=dataset, max_failures=1.0)
    files = {path.relative_to(output.folder) for path in output.folder.rglob("*")}
    for name in names:
        path = output.folder / name
        if path.exists():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    request.getfixturevalue("no_model")
    assert run(dataset=dataset, max_failures=1.0).is_completed()
    assert output.counts()["images_reused"] == 3
    assert output.manifest_is_true()
    now = {path.relative_to(output.folder) for path in output.folder.rglob("*")}
    again = {
        path for path in files - now if path.parts[1:2] not in (("results",), ("records",), ("data",), ("details",))
    }
    assert again <= {Path(".t2i/manifests")}
    # And it is still known whose the folder is, and which manifest has to go before names change.
    assert run(dataset=prompts("a cat", "a fox", "a house")).is_completed()
    assert output.manifest_is_true()
