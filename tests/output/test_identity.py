"""Whose folder an output is: one data set's, and nobody is let in by mistake."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from filelock import Timeout

from t2i_core.errors import OutputError
from t2i_core.output import identity as module
from t2i_core.output.identity import (
    OutputIdentity,
    claim_output,
    manifest_form,
    note_manifest_form,
    open_output,
)
from t2i_core.output.layout import ManifestForm
from t2i_core.output.own_files import OwnFiles
from t2i_core.storage.workspace import Workspace

FORM = ManifestForm("manifest.jsonl", "out/", "images")


@pytest.fixture
def free(tmp_path):
    """An output that nobody has claimed."""
    return Workspace(tmp_path / "free")


@pytest.fixture
def dataset(tmp_path):
    path = tmp_path / "prompts.jsonl"
    path.write_text("{}\n")
    return path


@pytest.fixture
def claimed(free, dataset):
    """The identity of `free` once a run over `dataset`, of fingerprint "one", has claimed it."""
    identity = OutputIdentity(str(dataset), "one", {"owner/name": "c" * 40})
    claim_output(free, identity)
    return identity


def stored(workspace):
    return json.loads((workspace.hidden / "output.json").read_text())


def test_a_new_folder_is_for_the_data_set_and_nothing_is_written(free, config, dataset):
    identity = open_output(free, config(dataset=str(dataset)), "one")
    assert identity == OutputIdentity(str(dataset), "one")
    assert not free.root.exists()


def test_what_was_claimed_is_found_again(free, config, dataset, claimed):
    assert open_output(free, config(dataset=str(dataset)), "one") == claimed


def test_the_same_file_edited_is_the_same_data_set(free, config, dataset, claimed):
    assert open_output(free, config(dataset=str(dataset)), "two") == replace(claimed, fingerprint="two")


def test_the_same_content_elsewhere_is_the_same_data_set(free, config, dataset, claimed):
    moved = dataset.rename(dataset.with_name("moved.jsonl"))
    assert open_output(free, config(dataset=str(moved)), "one") == replace(claimed, dataset=str(moved))


def test_another_data_set_is_refused_by_name_and_changes_nothing(free, config, dataset, claimed):
    other = dataset.with_name("other.jsonl")
    other.write_text("{}\n{}\n")
    with pytest.raises(
        OutputError,
        match=r"holds the images of .*prompts\.jsonl; choose another --output, or add --replace to let .* over$",
    ):
        open_output(free, config(dataset=str(other)), "two")
    assert stored(free)["dataset"] == str(dataset)


def test_with_replace_another_data_set_takes_the_folder_over(free, config, dataset, claimed):
    other = dataset.with_name("other.jsonl")
    other.write_text("{}\n{}\n")
    identity = open_output(free, config(dataset=str(other), replace=True), "two")
    assert identity == replace(claimed, dataset=str(other), fingerprint="two")
    assert stored(free)["dataset"] == str(dataset)  # until it is claimed
    claim_output(free, identity, take_over=True)
    assert stored(free)["dataset"] == str(other)


def test_of_two_data_sets_that_begin_in_a_new_folder_at_once_the_second_is_refused(free, config, dataset):
    other = dataset.with_name("other.jsonl")
    other.write_text("{}\n{}\n")
    first = open_output(free, config(dataset=str(dataset)), "one")
    second = open_output(free, config(dataset=str(other)), "two")
    edited = open_output(free, config(dataset=str(dataset)), "three")
    claim_output(free, first)
    with pytest.raises(OutputError, match=r"holds the images of .*prompts\.jsonl; choose another --output"):
        claim_output(free, second)
    assert stored(free)["dataset"] == str(dataset)
    claim_output(free, edited)
    claim_output(free, second, take_over=True)
    assert stored(free)["dataset"] == str(other)


def test_a_data_set_may_get_more_files_and_may_lose_none(free, config, dataset, claimed):
    other = dataset.with_name("other.jsonl")
    other.write_text("{}\n{}\n")
    both = open_output(free, config(dataset=[str(dataset), str(other)]), "two")
    assert both.dataset == [str(dataset), str(other)]
    claim_output(free, both)
    assert open_output(free, config(dataset=[str(other), str(dataset)]), "three").fingerprint == "three"
    with pytest.raises(OutputError, match=r"holds the images of .*prompts\.jsonl and 1 more; choose another"):
        open_output(free, config(dataset=str(dataset)), "four")


def test_a_relative_path_is_the_same_data_set_from_another_folder(free, config, dataset, claimed, monkeypatch):
    monkeypatch.chdir(dataset.parent)
    assert open_output(free, config(dataset="prompts.jsonl"), "two").dataset == str(dataset)


def test_a_data_set_of_the_hub_is_known_by_its_name_whatever_lies_here(free, config, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "hf:owner").mkdir()
    (tmp_path / "hf:owner/name:train").write_text("a file")
    assert open_output(free, config(dataset="hf:owner/name:train"), "one").dataset == "hf:owner/name:train"


@pytest.fixture
def manifest(free, claimed):
    """The manifest of five rows that a run over `dataset` has left in `free`."""
    with free.lock():
        note_manifest_form(free, FORM)
    with OwnFiles(free).write(FORM.name) as file:
        file.write(b"{}\n" * 5)
    return free.root / FORM.name


@pytest.mark.parametrize("limit", [5, 6, None])
def test_a_run_over_as_many_rows_may_replace_the_manifest(free, config, dataset, manifest, limit):
    open_output(free, config(dataset=str(dataset), limit=limit), "one")


def test_a_limited_run_does_not_take_rows_from_a_larger_manifest_unless_it_may_replace_it(
    free, config, dataset, manifest
):
    with pytest.raises(OutputError, match=r"has 5 rows, and --limit 3 would take 2 of them away; use --preview 3 or "):
        open_output(free, config(dataset=str(dataset), limit=3), "one")
    open_output(free, config(dataset=str(dataset), limit=3, replace=True), "one")


def test_without_a_manifest_there_is_nothing_to_take_away(free, config, dataset, manifest):
    manifest.unlink()
    open_output(free, config(dataset=str(dataset), limit=1), "one")


@pytest.mark.parametrize(
    "theirs", ["manifest.jsonl", "failures.jsonl", "images.parquet", "run.json", "sample0_condition0"]
)
def test_files_of_another_tool_are_refused_unless_they_may_be_replaced(free, config, theirs):
    free.root.mkdir()
    (free.root / theirs).write_text("theirs")
    with pytest.raises(
        OutputError,
        match=f"holds {theirs}, which this tool did not write; choose another --output, or add --replace to .* it$",
    ):
        open_output(free, config(), "one")
    assert open_output(free, config(replace=True), "one") == OutputIdentity("prompts.jsonl", "one")


def test_the_name_of_the_manifest_is_the_one_of_this_run(free, config):
    free.root.mkdir()
    (free.root / "rows.jsonl").write_text("theirs")
    open_output(free, config(), "one")
    with pytest.raises(OutputError, match=r"holds rows\.jsonl"):
        open_output(free, config(manifest_name="rows.jsonl"), "one")


@pytest.mark.parametrize("harmless", ["notes.txt", "sample_condition0", "my_sample0_condition0", "images.parquet.bak"])
def test_files_that_a_run_does_not_write_are_no_obstacle(free, config, harmless):
    free.root.mkdir()
    (free.root / harmless).write_text("theirs")
    open_output(free, config(), "one")


def test_an_output_that_is_a_file_is_refused(free, config):
    free.root.write_text("a file")
    with pytest.raises(OutputError, match="is a file; name a folder"):
        open_output(free, config(), "one")


@pytest.mark.parametrize("file", ["manifest.jsonl", "failures.jsonl", "images.parquet", "run.json"])
def test_the_data_set_is_no_file_that_the_run_writes(free, config, file, monkeypatch):
    free.root.mkdir()
    monkeypatch.chdir(free.root)
    for dataset in (str(free.root / file), file, f"../free/{file}"):
        with pytest.raises(OutputError, match=r"the run itself writes; choose another --output"):
            open_output(free, config(dataset=dataset, replace=True), "one")


@pytest.mark.parametrize(
    "broken", ["", "{", "[]", "5", '{"dataset": "x"}', '{"dataset": "x", "fingerprint": "y", "a": 1}']
)
def test_a_broken_file_is_an_error_that_names_it(free, config, broken):
    free.hidden.mkdir(parents=True)
    (free.hidden / "output.json").write_text(broken)
    with pytest.raises(OutputError, match=r"cannot read .*output\.json .*remove that file"):
        open_output(free, config(), "one")


def test_a_file_of_the_first_version_is_read(free):
    free.hidden.mkdir(parents=True)
    values = {"dataset": "/d", "fingerprint": "f", "commits": {"a/b": "c"}}
    manifest = {"name": "manifest.jsonl", "prefix": "out/", "image_key": "images"}
    (free.hidden / "output.json").write_text(json.dumps(values | {"manifest": manifest}))
    assert manifest_form(free) == FORM
    claim_output(free, OutputIdentity(**values))
    assert stored(free) == values | {"manifest": manifest}


def test_the_file_can_be_read_by_a_person(free):
    claim_output(free, OutputIdentity("狐.jsonl", "f"))
    text = (free.hidden / "output.json").read_text("utf-8")
    assert text == '{\n "dataset": "狐.jsonl",\n "fingerprint": "f",\n "commits": {},\n "manifest": null\n}\n'


def test_a_claim_keeps_the_form_of_a_manifest_that_another_run_wrote_in_between(free, config, dataset, claimed):
    mine = open_output(free, config(dataset=str(dataset)), "two")
    with free.lock():
        note_manifest_form(free, FORM)
    claim_output(free, mine)
    assert manifest_form(free) == FORM
    assert stored(free)["fingerprint"] == "two"


def test_a_claim_is_written_under_the_lock(free, claimed, monkeypatch):
    write, probed = module.write_text, []

    def write_text(*both):
        with pytest.raises(Timeout):
            Workspace(free.root).lock().acquire(timeout=0)
        probed.append(True)
        write(*both)

    monkeypatch.setattr(module, "write_text", write_text)
    claim_output(free, claimed)
    assert probed


def test_the_form_of_a_manifest_is_noted_once(free, claimed):
    assert manifest_form(free) is None
    note_manifest_form(free, FORM)
    assert manifest_form(free) == FORM
    file = free.hidden / "output.json"
    before = file.stat().st_ino
    note_manifest_form(free, FORM)
    assert file.stat().st_ino == before
    note_manifest_form(free, replace(FORM, prefix="other/"))
    assert manifest_form(free).prefix == "other/"
    assert stored(free)["commits"] == dict(claimed.commits)


def test_a_folder_that_nobody_claimed_has_no_manifest(free):
    assert manifest_form(free) is None
    assert not Path(free.root).exists()


def test_a_data_set_behind_a_link_that_moves_stays_the_same(free, config, dataset):
    latest = dataset.with_name("latest.jsonl")
    latest.symlink_to(dataset.name)
    claim_output(free, open_output(free, config(dataset=str(latest)), "one"))
    assert stored(free)["dataset"] == str(latest)
    dataset.with_name("day2.jsonl").write_text("{}\n{}\n")
    latest.unlink()
    latest.symlink_to("day2.jsonl")
    assert open_output(free, config(dataset=str(latest)), "two").dataset == str(latest)


def test_a_folder_behind_a_link_that_moves_stays_the_same(free, config, dataset, monkeypatch):
    for day in ("day1", "day2"):
        (dataset.parent / day).mkdir()
        (dataset.parent / day / "a.jsonl").write_text(day)
    current = dataset.with_name("current")
    current.symlink_to("day1")
    claim_output(free, open_output(free, config(dataset=f"{current}/a.jsonl"), "one"))
    current.unlink()
    current.symlink_to("day2")
    monkeypatch.chdir(dataset.parent)
    assert open_output(free, config(dataset="./current/a.jsonl"), "two").dataset == f"{current}/a.jsonl"


def test_the_path_that_release_0_1_0_stored_is_the_same_data_set(free, config, dataset):
    link = dataset.with_name("link.jsonl")
    link.symlink_to(dataset.name)
    claim_output(free, OutputIdentity(str(dataset.resolve()), "one"))
    identity = open_output(free, config(dataset=str(link)), "two")
    assert identity.dataset == str(link)


def test_more_files_are_the_same_data_set_and_fewer_are_not(free, config, dataset, monkeypatch):
    monkeypatch.chdir(dataset.parent)
    names = ["prompts.jsonl", "b.jsonl", "c.jsonl"]
    for name in names:
        Path(name).write_text(name)
    absolute = [str(Path(name).absolute()) for name in names]
    claim_output(free, open_output(free, config(dataset=names[0]), "one"))
    two = open_output(free, config(dataset=[names[1], str(dataset)]), "two")
    assert two.dataset == [absolute[1], str(dataset)]
    claim_output(free, two)
    assert open_output(free, config(dataset=names), "three").dataset == absolute
    with pytest.raises(
        OutputError, match=r"holds the images of .*b\.jsonl and 1 more; choose another --output, or add"
    ):
        open_output(free, config(dataset=[names[0], names[2]]), "four")
    assert open_output(free, config(dataset=names[2]), "two").dataset == absolute[2]  # by its content


def test_a_folder_or_a_glob_is_the_same_data_set_whatever_is_in_it(free, config, dataset, monkeypatch):
    monkeypatch.chdir(dataset.parent)
    for name in (".", "*.jsonl", "s3://bucket/night"):
        workspace = Workspace(free.root / name.partition("*")[0].partition(":")[0])
        claim_output(workspace, open_output(workspace, config(dataset=name), "one"))
        assert stored(workspace)["dataset"] == (name if "s3" in name else str(dataset.parent / name).removesuffix("/."))
        open_output(workspace, config(dataset=name), "two")


def test_a_data_set_that_holds_a_file_that_the_run_writes_is_refused(free, config, monkeypatch):
    free.root.mkdir()
    (free.root / "prompts.jsonl").write_text("{}\n")
    monkeypatch.chdir(free.root.parent)
    for name in ("free", "free/*.jsonl", ["free/prompts.jsonl", "free/failures.jsonl"]):
        with pytest.raises(
            OutputError, match=r"is or holds a file that the run itself writes; choose another --output"
        ):
            open_output(free, config(dataset=name, replace=True), "one")
    open_output(free, config(dataset="free/prompts.jsonl"), "one")
