"""A data set of several files: one manifest, failures that name their file, and a new file costs only itself."""

import gzip
from pathlib import Path

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey

OTHER = '{"conversations": "a cat"}\n'


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "night"
    path.mkdir()
    (path / "a.jsonl").write_text('{"conversations": "a fox"}\nbroken\n')
    with gzip.open(path / "b.jsonl.gz", "wt") as file:
        file.write(OTHER + "\n" + "broken\n")
    return path


def test_rows_are_counted_on_and_failures_name_their_file(run, output, folder):
    state = run(dataset=str(folder))
    assert state.name == "TooManyFailures"
    counts = output.run()["accounting"]
    assert (counts["rows"], counts["rows_generated"], counts["rows_rejected"]) == (4, 2, 2)
    assert [row["conversations"] for row in output.manifest()] == ["a fox", "a cat"]
    assert [Path(row["images"][0]).name for row in output.manifest()] == [
        "sample0_condition0_0.png",
        "sample2_condition0_0.png",
    ]
    where = [(failure["file"], failure["row"], failure["line"]) for failure in output.failures()]
    assert where == [(str(folder / "a.jsonl"), 1, 2), (str(folder / "b.jsonl.gz"), 3, 3)]
    with get_client(sync_client=True) as client:
        wanted = ArtifactFilter(key=ArtifactFilterKey(any_=["summary-night"]))
        assert client.read_artifacts(artifact_filter=wanted)


def test_a_new_file_in_the_folder_costs_only_its_own_images(run, output, folder):
    run(dataset=str(folder), max_failures=9)
    before = output.stored()
    (folder / "c.jsonl").write_text('{"conversations": "a dog"}\n')
    assert run(dataset=str(folder), max_failures=9).is_completed()
    assert output.run()["accounting"]["images_generated"] == 1
    assert before.items() <= output.stored().items()
    assert output.manifest_is_true()


def test_the_same_files_moved_make_nothing_and_are_named_anew(run, output, folder):
    run(dataset=str(folder), max_failures=9)
    moved = folder.rename(folder.with_name("moved"))
    assert run(dataset=f"{moved}/*.jsonl*", max_failures=9).is_completed()
    assert output.run()["accounting"]["images_generated"] == 0
    assert [failure["file"] for failure in output.failures()] == [str(moved / "a.jsonl"), str(moved / "b.jsonl.gz")]


def test_several_names_are_one_data_set(run, output, folder, prompts):
    names = [prompts("a dog"), str(folder / "b.jsonl.gz")]
    assert run(dataset=names, max_failures=9).is_completed()
    assert output.manifest()[1]["conversations"] == "a cat"
    assert output.run()["data_set"]["name"] == output.run()["configuration"]["dataset"] == names


def test_a_data_set_that_is_edited_before_it_is_read_is_never_stored_as_what_it_was(run, output, prompts, monkeypatch):
    """Else every later run over the old version would find the plan, and the manifest, of the new one."""
    import flows.text2image as module

    dataset, resolve = prompts("a fox"), module.resolve

    def edited(*arguments):
        prompts("a cat")
        return resolve(*arguments)

    monkeypatch.setattr(module, "resolve", edited)
    state = run(dataset=dataset)
    assert state.is_failed()
    assert "prompts.jsonl: changed while it was read; run the same command again" in state.message
    monkeypatch.undo()
    prompts("a fox")
    assert run(dataset=dataset).is_completed()
    assert [row["conversations"][0]["content"] for row in output.manifest()] == ["a fox"]
    assert output.manifest_is_true()
