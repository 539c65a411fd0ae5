"""What a run does about damage and failures: heal, remember, try again, and never run what is stored."""

import json
import os
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from t2i_core.errors import ImageFailure
from t2i_core.generation import image_writer
from t2i_core.storage.image_store import ImageStore
from t2i_core.storage.workspace import Workspace
from tasks.generation import SHARD_KEY
from tests.conftest import header_of

pytestmark = pytest.mark.timeout(300)


@pytest.mark.parametrize("damage", ["deleted", "torn", "foreign", "edited in place", "name deleted"])
def test_a_damaged_image_is_healed_again_and_again(run, output, prompts, damage):
    dataset = prompts("a fox", "a cat", "a house")
    run(dataset=dataset)
    before = output.pixels()
    name = output.folder / "sample1_condition0/sample1_condition0_0.png"
    key = header_of(name)["key"]
    for _ in range(2):
        path = output.stored()[key]
        path.chmod(0o644)
        if damage == "deleted":
            path.unlink()
        elif damage == "name deleted":
            name.unlink()
        elif damage == "torn":
            with path.open("r+b") as file:
                file.truncate(100)
        elif damage == "foreign":
            path.write_bytes((output.folder / "contact_sheet.jpg").read_bytes())
        else:
            with path.open("r+b") as file:
                file.seek(-30, os.SEEK_END)
                file.write(b"xxxx")
        assert run(dataset=dataset).is_completed()
        assert output.counts().get("images_generated", 0) == (damage != "name deleted")
        assert output.pixels() == before
        assert output.manifest_is_true()
        assert name.stat().st_ino == output.stored()[key].stat().st_ino


def test_deleting_the_results_or_everything_but_the_images_makes_nothing_again(run, output, prompts, request):
    dataset = prompts("a fox", "a cat", "a house")
    run(dataset=dataset)
    request.getfixturevalue("no_model")
    shutil.rmtree(output.folder / ".t2i/results")
    assert run(dataset=dataset).is_completed()
    assert output.counts()["images_reused"] == 3
    for path in output.folder.iterdir():
        if path.name != ".t2i":
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    for name in ("results", "records", "plans"):
        shutil.rmtree(output.folder / ".t2i" / name)
    assert run(dataset=dataset).is_completed()
    assert output.counts()["images_reused"] == 3
    assert output.manifest_is_true()


def test_a_copied_output_goes_on_elsewhere(run, output, prompts, tmp_path, request):
    dataset = prompts("a fox", "a cat")
    run(dataset=dataset)
    shutil.copytree(output.folder, tmp_path / "copy", copy_function=shutil.copy)
    request.getfixturevalue("no_model")
    assert run(dataset=dataset, output=str(tmp_path / "copy")).is_completed()


def test_a_planted_result_runs_nothing(run, output, prompts, tmp_path):
    dataset = prompts("a fox")
    run(dataset=dataset)
    marker = tmp_path / "planted"
    import base64
    import pickle

    class Bomb:
        def __reduce__(self):
            return os.system, (f"touch {marker}",)

    planted = base64.b64encode(pickle.dumps(Bomb())).decode()
    results = [p for p in (output.folder / ".t2i/results").rglob("*") if p.is_file()]
    assert len(results) >= 5
    for path in results:
        stored = json.loads(path.read_text())
        stored["metadata"]["serializer"] = {"type": "pickle"}
        stored["result"] = planted
        path.write_text(json.dumps(stored))
    assert run(dataset=dataset).is_completed()
    assert not marker.exists()
    assert output.counts()["images_reused"] == 1


@pytest.fixture
def nan_model(tmp_path):
    """The demo model with NaN in its decoder: every image fails, tonight as tomorrow."""
    import torch
    from safetensors.torch import load_file, save_file

    from t2i_core.bundled import DEMO_MODEL

    folder = tmp_path / "nan_model"
    shutil.copytree(DEMO_MODEL, folder)
    file = folder / "vae/diffusion_pytorch_model.safetensors"
    weights = load_file(file)
    weights["decoder.conv_out.bias"] = torch.full_like(weights["decoder.conv_out.bias"], float("nan"))
    save_file(weights, file, metadata={"format": "pt"})
    return str(folder)


def test_a_permanent_failure_is_remembered_until_asked(run, output, prompts, nan_model, monkeypatch):
    # Another FLUX as far as the tool can tell, so it is told what the demo preset would say.
    small = {"height": 64, "width": 64, "dtype": "float32", "max_sequence_length": 24}
    settings = {"dataset": prompts("a fox", "a cat"), "model": nan_model} | small
    assert run(**settings).name == "TooManyFailures"
    assert "NaN" in output.failures()[0]["reason"]
    results = {p: p.stat().st_mtime_ns for p in (output.folder / ".t2i/results" / SHARD_KEY).iterdir()}
    for _ in range(2):  # the next two nights: not tried again, and not forgotten
        assert run(**settings).name == "TooManyFailures"
        assert output.counts()["images_failed"] == 2
        assert results == {p: p.stat().st_mtime_ns for p in (output.folder / ".t2i/results" / SHARD_KEY).iterdir()}
    assert run(**settings, max_failures=0.5).name == "TooManyFailures"
    assert run(**settings, max_failures=2.0).is_completed()
    run(**settings, retry_failed=True)
    assert all(p.stat().st_mtime_ns > mtime for p, mtime in results.items())


def test_an_image_with_a_new_seed_replaces_a_failed_one(run, output, prompts, monkeypatch):

    dataset = prompts("a fox", "a cat")
    original = image_writer.checked_pixels
    monkeypatch.setattr(
        image_writer, "checked_pixels", lambda image, spec: (_ for _ in ()).throw(ImageFailure("black"))
    )
    assert run(dataset=dataset).name == "TooManyFailures"
    monkeypatch.setattr(image_writer, "checked_pixels", original)
    assert run(dataset=dataset, retry_failed=True, reseed=True).is_completed()
    assert output.counts()["images_generated"] == 2
    assert run(dataset=dataset).is_completed()  # and it is remembered
    assert output.counts()["images_reused"] == 2
    provenance = pq.read_table(output.folder / "images.parquet").to_pylist()
    for row in provenance:
        header = header_of(Path(row["path"]))
        assert (header["key"], header["spec"]["seed"]) == (row["key"], row["seed"])
        assert row["replaces"]


def test_a_transient_failure_is_tried_again_in_the_next_run(run, output, prompts, monkeypatch):
    from t2i_core.engine.flux import FluxStages

    dataset = prompts("a fox", "a cat", "a house")
    original = FluxStages.denoise

    def denoise(self, specs, on_step):
        if any("cat" in spec.prompt for spec in specs):
            raise RuntimeError("the card is busy")
        return original(self, specs, on_step)

    monkeypatch.setattr(FluxStages, "denoise", denoise)
    assert run(dataset=dataset, batch_size=1).name == "TooManyFailures"
    assert output.counts()["images_generated"] == 2
    assert "the card is busy" in output.failures()[0]["reason"]
    monkeypatch.setattr(FluxStages, "denoise", original)
    assert run(dataset=dataset, batch_size=1).is_completed()
    assert output.counts() == {"rows": 3, "rows_generated": 1, "rows_reused": 2} | {
        "images": 3, "images_generated": 1, "images_reused": 2,
    }  # fmt: skip


def test_a_transient_failure_is_retried_within_the_run(run, output, prompts, monkeypatch):
    from t2i_core.engine import load

    original, calls = load.load_model, []

    def once_busy(settings):
        calls.append(1)
        if len(calls) == 1:
            raise RuntimeError("the card is busy")
        return original(settings)

    monkeypatch.setattr(load, "load_model", once_busy)
    monkeypatch.setattr("tasks.caching.RETRY_SECONDS", [0.1])
    assert run(dataset=prompts("a fox"), retries=1).is_completed()
    assert len(calls) == 2


def test_refresh_makes_everything_again(run, output, prompts):
    dataset = prompts("a fox", "a cat")
    run(dataset=dataset)
    before = output.pixels()
    first_run = output.run()["run"]
    assert run(dataset=dataset, refresh=True).is_completed()
    assert output.counts()["images_generated"] == 2
    assert output.pixels() == before
    assert output.run()["run"] != first_run
    assert run(dataset=dataset).is_completed()
    assert output.counts()["images_reused"] == 2


def test_prune_deletes_what_no_manifest_names(run, output, prompts):
    run(dataset=prompts("a fox", "a cat"))
    dataset = prompts("a fox")
    run(dataset=dataset)
    assert len(output.stored()) == 2
    assert run(dataset=dataset, prune=True).is_completed()
    assert len(output.stored()) == 1
    assert output.manifest_is_true()


def test_an_output_has_one_manifest_and_an_earlier_one_stays_true(run, output, prompts):
    """Another name, another form of the path, a deleted name: the manifest that would lie is moved away."""
    run(dataset=prompts("a fox", "a cat"))
    run(dataset=prompts("a boat", "a cat"), manifest_name="other.jsonl")
    assert not (output.folder / "manifest.jsonl").exists()
    (output.folder / "sample0_condition0/sample0_condition0_0.png").unlink()
    run(dataset=prompts("a moon", "a cat"), manifest_name="other.jsonl", output=f"{output.folder}/.")
    retired = sorted((output.folder / ".t2i/manifests").glob("*.jsonl"))
    assert len(retired) == 2
    for manifest in retired:
        for line in manifest.read_text().splitlines():
            row = json.loads(line)
            for path in row["images"]:
                assert header_of(Path(path))["spec"]["prompt"] == row["conversations"][0]["content"]


def test_a_manifest_broken_by_hand_does_not_stop_the_next_run(run, output, prompts):
    run(dataset=prompts("a fox", "a cat"))
    with (output.folder / "manifest.jsonl").open("a") as file:
        file.write("\n{broken\n")
    assert run(dataset=prompts("a boat", "a fox")).is_completed()
    assert output.manifest_is_true()


def test_rows_that_name_images_of_this_output_are_rejected(run, output, prompts, tmp_path):
    run(dataset=prompts("a fox"))
    rows = [{"conversations": "a boat"}, *output.manifest()]
    state = run(dataset=prompts(*rows))
    assert state.name == "TooManyFailures"
    assert "lies in this run's own output" in output.failures()[0]["reason"]


def test_the_data_set_is_never_a_file_that_the_run_writes(run, output, prompts):
    run(dataset=prompts("a fox"))
    state = run(dataset=str(output.folder / "manifest.jsonl"), replace=True)
    assert state.name == "Refused"
    assert "choose another --output" in state.message


def test_files_of_another_tool_are_not_overwritten(run, output, prompts):
    theirs = output.folder / "sample0_condition0" / "sample0_condition0_0.png"
    theirs.parent.mkdir(parents=True)
    theirs.write_text("theirs")
    dataset = prompts("a fox")
    state = run(dataset=dataset)
    assert state.name == "Refused"
    assert "sample0_condition0, which this tool did not write" in state.message
    assert theirs.read_text() == "theirs"
    assert run(dataset=dataset, replace=True).is_completed()


def test_a_refused_run_does_not_claim_the_folder(run, output, prompts, tmp_path):
    (tmp_path / "typo.jsonl").write_text('{"nothing": 1}\n')
    assert run(dataset=str(tmp_path / "typo.jsonl")).name == "Refused"
    assert run(dataset=prompts("a fox", name="dry.jsonl"), dry_run=True).is_completed()
    assert run(dataset=prompts("a fox")).is_completed()


def test_a_remade_image_is_counted_without_names_too(run, output, prompts):
    dataset = prompts("a fox", "a cat")
    run(dataset=dataset, named_images="never")
    next(iter(output.stored().values())).unlink()
    run(dataset=dataset, named_images="never")
    assert output.counts()["images_generated"] == 1
    run(dataset=dataset, named_images="never", refresh=True)
    assert output.counts()["images_generated"] == 2


def test_a_permanent_failure_beside_a_transient_one_keeps_its_reason(run, output, prompts, monkeypatch):
    from t2i_core.engine.flux import FluxStages

    original, checked_pixels = FluxStages.denoise, image_writer.checked_pixels

    def denoise(self, specs, on_step):
        if specs[0].prompt == "a cat":
            raise RuntimeError("the card is busy")
        return original(self, specs, on_step)

    def black(image, spec):
        raise ImageFailure("black")

    monkeypatch.setattr(FluxStages, "denoise", denoise)
    monkeypatch.setattr(image_writer, "checked_pixels", black)
    assert run(dataset=prompts("a fox", "a cat"), batch_size=1).name == "TooManyFailures"
    assert {f["value"]: f["reason"] for f in output.failures()} == {
        "'a fox'": "black",
        "'a cat'": "RuntimeError: the card is busy",
    }
    monkeypatch.setattr(image_writer, "checked_pixels", checked_pixels)


def test_refresh_remakes_replacements_and_remembers_what_fails_now(run, output, prompts, monkeypatch):

    dataset, checked_pixels = prompts("a fox"), image_writer.checked_pixels

    def black(image, spec):
        raise ImageFailure("black")

    monkeypatch.setattr(image_writer, "checked_pixels", black)
    run(dataset=dataset)
    monkeypatch.setattr(image_writer, "checked_pixels", checked_pixels)
    assert run(dataset=dataset, retry_failed=True, reseed=True).is_completed()
    assert run(dataset=dataset, refresh=True).is_completed()
    assert output.counts()["images_generated"] == 1
    monkeypatch.setattr(image_writer, "checked_pixels", black)
    assert run(dataset=dataset, refresh=True).name == "TooManyFailures"
    assert output.failures()[0]["reason"] == "black"


def test_a_full_disk_ends_the_run_with_one_line_and_the_next_run_goes_on(run, output, prompts, monkeypatch):
    import errno

    dataset = prompts(*(f"a fox number {i}" for i in range(12)))
    original, written = ImageStore.write, []

    def write(store, key, content, format):
        if len(written) >= 3:
            raise OSError(errno.ENOSPC, "No space left on device", key)
        written.append(key)
        return original(store, key, content, format)

    monkeypatch.setattr(ImageStore, "write", write)
    state = run(dataset=dataset, save_interval=1)
    assert state.name == "Refused"
    assert "No space left on device" in state.message
    assert len(state.message.splitlines()) == 1
    kept = len(output.stored())
    assert 3 <= kept < 12
    monkeypatch.setattr(ImageStore, "write", original)
    assert run(dataset=dataset).is_completed()
    assert output.counts()["images_generated"] == 12 - kept


def test_images_are_not_looked_at_again_because_their_names_went(run, output, prompts):
    dataset = prompts("a fox", "a cat")
    run(dataset=dataset, named_images="always")
    run(dataset=dataset, named_images="never")
    assert not list(output.folder.glob("sample*"))
    workspace = Workspace(output.folder)
    assert not workspace.checked_images.marked(workspace.images.scan()).unchecked.any()
