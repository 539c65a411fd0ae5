"""The main job, run in this process with the demo model."""

import json
import os
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.conftest import QUICK

pytestmark = pytest.mark.timeout(300)

BAD_LINES = [
    b"not json",
    b"[1, 2]",
    b'{"prompt": "no conversation"}',
    b'{"conversations": []}',
    b'{"conversations": [{"role": "user", "content": "  "}]}',
    b'{"conversations": [{"role": "user", "content": 7}]}',
    b'{"conversations": [{"role": "assistant", "content": "only an answer"}]}',
    b'{"conversations": [{"role": "user", "content": "nul \\u0000"}]}',
    b'{"conversations": [{"role": "user", "content": "\xff\xfe"}]}',
    b'{"conversations": "a fox", "generation": {"steps": 0}}',
    b'{"conversations": "a fox", "generation": {"height": 65}}',
    b'{"conversations": "a fox", "generation": {"stpes": 1}}',
    b'{"conversations": "a fox", "images": 5}',
]


@pytest.fixture
def no_model(monkeypatch):
    """Loading a model fails the test."""

    def fail(settings):
        pytest.fail("the model was loaded")

    monkeypatch.setattr("t2i_core.engine.load.load_model", fail)


def test_ids_paths_and_manifest_are_those_of_the_reference(run, output, tmp_path, monkeypatch):
    rows = [
        {"conversations": [{"content": "a fox darting between snow-covered pines at dusk", "role": "user"}]},
        {"conversations": [{"content": "a kite surfer riding emerald waves under a cloudy sky", "role": "user"}]},
    ]
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.chdir(tmp_path)
    state = run(dataset="prompts.jsonl", output="./cache_local/text2image_local")
    assert state.is_completed(), state.message
    assert (tmp_path / "cache_local/text2image_local/manifest.jsonl").read_text() == (
        '{"conversations": [{"content": "a fox darting between snow-covered pines at dusk", "role": "user"}], '
        '"images": ["./cache_local/text2image_local/sample0_condition0/sample0_condition0_0.png"]}\n'
        '{"conversations": [{"content": "a kite surfer riding emerald waves under a cloudy sky", "role": "user"}], '
        '"images": ["./cache_local/text2image_local/sample1_condition0/sample1_condition0_0.png"]}\n'
    )
    assert Path("cache_local/text2image_local/sample0_condition0/sample0_condition0_0.png").is_file()


def test_every_row_is_accounted_for(run, output, tmp_path):
    good = [
        b'{"conversations": [{"role": "user", "content": "a fox"}, {"content": "a cat"}], "note": "\xe7\x8b\x90"}',
        b'{"conversations": "a house", "images": ["mine.png"]}',
        b"",
        b'{"conversations": "a moon", "images": [""], "z": 1, "a": {"y": 1, "b": 2}}',
    ]
    (tmp_path / "mixed.jsonl").write_bytes(b"\n".join([*good, *BAD_LINES]) + b"\n")
    state = run(dataset=str(tmp_path / "mixed.jsonl"))
    assert state.name == "TooManyFailures"
    assert "failures.jsonl" in state.message
    counts = output.run()["accounting"]
    bad = len(BAD_LINES)
    assert counts["rows"] == 3 + bad
    assert (counts["rows_generated"], counts["rows_skipped"], counts["rows_failed"]) == (2, 1, bad)
    assert counts["images"] == counts["images_generated"] == 3
    assert counts["rows"] == sum(counts[f"rows_{s}"] for s in ("generated", "reused", "skipped", "failed", "pending"))
    failures = output.failures()
    assert [f["row"] for f in failures] == list(range(3, 3 + bad))
    assert [f["line"] for f in failures] == list(range(5, 5 + bad))  # the blank line is counted as a line, not as a row
    assert all(f["reason"] and f["field"] and f["file"] for f in failures)
    manifest = output.manifest()
    assert list(manifest[2]) == ["conversations", "images", "z", "a"]
    assert list(manifest[2]["a"]) == ["y", "b"]
    assert manifest[1]["images"] == ["mine.png"]
    assert run(dataset=str(tmp_path / "mixed.jsonl"), max_failures=bad).is_completed()


def test_a_rerun_makes_nothing_and_loads_no_model(run, output, prompts, request):
    dataset = prompts("a fox", "a cat", "a house")
    assert run(dataset=dataset).is_completed()
    files = {path: path.stat().st_mtime_ns for path in output.folder.rglob("*.*") if path.suffix in (".png", ".jsonl")}
    request.getfixturevalue("no_model")
    for _ in range(2):
        assert run(dataset=dataset).is_completed()
        assert output.counts()["images_reused"] == output.counts()["rows_reused"] == 3
        assert files == {path: path.stat().st_mtime_ns for path in files}


@pytest.mark.parametrize(
    ("edited", "made"),
    [
        (["a fox", "a boat", "a cat", "a house"], 1),
        (["a fox", "a house"], 0),
        (["a house", "a cat", "a fox"], 0),
        (["a fox", "a white cat", "a house"], 1),
        (["a fox", "a fox", "a cat", "a house"], 1),
    ],
    ids=["inserted", "removed", "reordered", "edited", "repeated"],
)
def test_only_what_is_new_is_made(run, output, prompts, edited, made):
    run(dataset=prompts("a fox", "a cat", "a house"))
    state = run(dataset=prompts(*edited))
    assert state.is_completed(), state.message
    counts = output.counts()
    assert counts.get("images_generated", 0) == made
    assert counts["images"] == len(edited)
    assert output.manifest_is_true()
    assert [row["conversations"][0]["content"] for row in output.manifest()] == edited
    named = sorted(p.name for p in output.folder.glob("sample*"))
    assert named == [f"sample{i}_condition0" for i in range(len(edited))]


def test_names_that_changed_meaning_leave_an_old_manifest_that_stays_true(run, output, prompts):
    run(dataset=prompts("a fox", "a cat"))
    run(dataset=prompts("a boat", "a fox", "a cat"))
    (old,) = (output.folder / ".t2i/manifests").glob("*.jsonl")
    rows = [json.loads(line) for line in old.read_text().splitlines()]
    from t2i_core.images import read_header

    for row in rows:
        header = read_header(Path(row["images"][0]))
        assert header["spec"]["prompt"] == row["conversations"][0]["content"]


def test_appending_rows_keeps_the_old_manifest_in_place(run, output, prompts):
    run(dataset=prompts("a fox"))
    run(dataset=prompts("a fox", "a cat"))
    assert not (output.folder / ".t2i/manifests").exists()


@pytest.mark.parametrize("damage", ["deleted", "torn", "foreign", "edited in place", "name deleted"])
def test_a_damaged_image_is_healed_again_and_again(run, output, prompts, damage):
    dataset = prompts("a fox", "a cat", "a house")
    run(dataset=dataset)
    before = output.pixels()
    name = output.folder / "sample1_condition0/sample1_condition0_0.png"
    from t2i_core.images import read_header

    key = read_header(name)["key"]
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

    from t2i_core.weights import BUNDLED

    folder = tmp_path / "nan_model"
    shutil.copytree(BUNDLED, folder)
    file = folder / "vae/diffusion_pytorch_model.safetensors"
    weights = load_file(file)
    weights["decoder.conv_out.bias"] = torch.full_like(weights["decoder.conv_out.bias"], float("nan"))
    save_file(weights, file, metadata={"format": "pt"})
    return str(folder)


def test_what_fails_for_good_is_remembered_until_asked(run, output, prompts, nan_model, monkeypatch):
    # Another FLUX as far as the tool can tell, so it is told what the demo preset would say.
    small = {"height": 64, "width": 64, "dtype": "float32", "max_sequence_length": 24}
    settings = {"dataset": prompts("a fox", "a cat"), "model": nan_model} | small
    assert run(**settings).name == "TooManyFailures"
    assert "NaN" in output.failures()[0]["reason"]
    results = {p: p.stat().st_mtime_ns for p in (output.folder / ".t2i/results/shard-v1").iterdir()}
    for _ in range(2):  # the next two nights: not tried again, and not forgotten
        assert run(**settings).name == "TooManyFailures"
        assert output.counts()["images_failed"] == 2
        assert results == {p: p.stat().st_mtime_ns for p in (output.folder / ".t2i/results/shard-v1").iterdir()}
    assert run(**settings, max_failures=0.5).name == "TooManyFailures"
    assert run(**settings, max_failures=2.0).is_completed()
    run(**settings, retry_failed=True)
    assert all(p.stat().st_mtime_ns > mtime for p, mtime in results.items())


def test_a_new_seed_stands_in_for_a_failed_image(run, output, prompts, monkeypatch):
    from t2i_core import generate
    from t2i_core.errors import ImageFailure

    dataset = prompts("a fox", "a cat")
    original = generate.to_bytes
    monkeypatch.setattr(generate, "to_bytes", lambda image: (_ for _ in ()).throw(ImageFailure("black")))
    assert run(dataset=dataset).name == "TooManyFailures"
    monkeypatch.setattr(generate, "to_bytes", original)
    assert run(dataset=dataset, retry_failed=True, reseed=True).is_completed()
    assert output.counts()["images_generated"] == 2
    assert run(dataset=dataset).is_completed()  # and it is remembered
    assert output.counts()["images_reused"] == 2
    provenance = pq.read_table(output.folder / "images.parquet").to_pylist()
    from t2i_core.images import read_header

    for row in provenance:
        header = read_header(Path(row["path"]))
        assert (header["key"], header["spec"]["seed"]) == (row["key"], row["seed"])
        assert row["replaces"]


def test_what_may_pass_is_tried_again_in_the_next_run(run, output, prompts, monkeypatch):
    from t2i_core.engine import load

    dataset = prompts("a fox", "a cat", "a house")
    original = load.load_model

    def flaky(settings):
        from dataclasses import replace

        model = original(settings)

        def call(specs, batch_size, should_stop):
            if any("cat" in spec.prompt for spec in specs):
                raise RuntimeError("the card is busy")
            return model.call(specs, batch_size, should_stop)

        return replace(model, call=call)

    monkeypatch.setattr(load, "load_model", flaky)
    assert run(dataset=dataset, batch_size=1).name == "TooManyFailures"
    assert output.counts()["images_generated"] == 2
    assert "the card is busy" in output.failures()[0]["reason"]
    monkeypatch.setattr(load, "load_model", original)
    assert run(dataset=dataset, batch_size=1).is_completed()
    assert output.counts() == {"rows": 3, "rows_generated": 1, "rows_reused": 2} | {
        "images": 3, "images_generated": 1, "images_reused": 2,
    }  # fmt: skip


def test_a_passing_failure_is_retried_within_the_run(run, output, prompts, monkeypatch):
    from t2i_core.engine import load

    original, calls = load.load_model, []

    def once_busy(settings):
        calls.append(1)
        if len(calls) == 1:
            raise RuntimeError("the card is busy")
        return original(settings)

    monkeypatch.setattr(load, "load_model", once_busy)
    monkeypatch.setattr("tasks.generation.generate_shard_task.retry_delay_seconds", [0.1])
    assert run(dataset=prompts("a fox"), retries=1).is_completed()
    assert len(calls) == 2


def test_the_same_image_whatever_batch_it_shares(run, output, prompts, tmp_path):
    """Bit for bit: other mates, another slot, another order, another shard, after a resume."""
    run(dataset=prompts("a fox", "a cat", "a house", "a moon", "a kite"), batch_size=4)
    first = output.pixels()
    other = type(output)(tmp_path / "other")
    orders = [["a kite", "a fox"], ["a kite", "a moon", "a house", "a cat", "a fox"]]
    for texts in orders:
        state = run(dataset=prompts(*texts, name="o.jsonl"), batch_size=4, save_interval=1, output=str(other.folder))
        assert state.is_completed()
    assert other.pixels() == first


def test_models_dtypes_steps_and_guidance_never_share_an_image(run, output, prompts):
    dataset = prompts("a fox")
    variants = [{}, {"steps": 2}, {"dtype": "bfloat16"}, {"true_cfg_scale": 1.5}, {"height": 72}]
    for count, variant in enumerate(variants, start=1):
        assert run(dataset=dataset, **variant).is_completed()
        assert output.counts()["images_generated"] == 1
        assert len(output.stored()) == count


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


def test_another_data_set_needs_replace(run, output, prompts):
    run(dataset=prompts("a fox", name="one.jsonl"))
    other = prompts("a cat", name="two.jsonl")
    state = run(dataset=other)
    assert state.name == "Refused"
    assert "one.jsonl" in state.message
    assert "--replace" in state.message
    assert run(dataset=other, replace=True).is_completed()
    assert output.manifest_is_true()


def test_dry_run_writes_no_manifest_and_loads_no_model(run, output, prompts, no_model, capsys):
    state = run(dataset=prompts("a fox", "a cat", "a house"), dry_run=True)
    assert state.is_completed()
    assert "3 images, 3 of them to make, in 2 batches, 1 shards" in state.message
    assert not (output.folder / "manifest.jsonl").exists()


def test_without_names_the_manifest_gives_paths_by_key(run, output, prompts):
    dataset = prompts("a fox", "a cat")
    run(dataset=dataset)
    assert run(dataset=dataset, named_images="never", manifest_name="m.jsonl").is_completed()
    assert list(output.folder.glob("sample*")) == []
    for row in output.manifest("m.jsonl"):
        assert "/.t2i/images/" in row["images"][0]
        assert Path(row["images"][0]).is_file()


def test_a_users_own_files_in_the_output_are_left_alone(run, output, prompts):
    dataset = prompts("a fox", "a cat")
    run(dataset=dataset)
    mine = output.folder / "sample1_condition0" / "notes.txt"
    mine.write_text("mine")
    own = output.folder / "sample9_condition0" / "sample9_condition0_0.png"
    own.parent.mkdir()
    shutil.copy(output.folder / "contact_sheet.jpg", own)
    run(dataset=prompts("a fox"))
    assert mine.exists()
    assert own.exists()
    assert not (output.folder / "sample1_condition0/sample1_condition0_0.png").exists()


def test_provenance_has_a_row_an_image(run, output, prompts):
    settings = {"seed": 7, "images_per_prompt": 2, "negative_prompt": "blurry"}
    run(dataset=prompts({"conversations": "a fox", "generation": settings}, "a cat"), prompt_template="{prompt}, photo")
    rows = pq.read_table(output.folder / "images.parquet").to_pylist()
    assert [(r["row"], r["condition"], r["image"]) for r in rows] == [(0, 0, 0), (0, 0, 1), (1, 0, 0)]
    assert [r["seed"] for r in rows[:2]] == [7, 8]
    assert (rows[0]["prompt"], rows[0]["source_prompt"]) == ("a fox, photo", "a fox")
    assert rows[0]["negative_prompt"] == "blurry"
    for row in rows:
        assert Path(row["path"]).is_file()
        assert json.loads(row["versions"])["torch"]
        assert row["status"] == "generated"
        assert row["batch_size"] == QUICK["batch_size"]


def test_the_run_says_that_the_demo_model_is_a_demo(run, output, prompts, capsys):
    run(dataset=prompts("a fox"))
    assert "demo model, 64x64, for trying the tool" in capsys.readouterr().out
    assert output.run()["model"]["about"] == "demo model, 64x64, for trying the tool"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"dataset": "/nowhere/x.jsonl"}, "/nowhere/x.jsonl"),
        ({"model": "/nowhere/model"}, "/nowhere/model"),
        ({"guidance_scale": 3.0}, "guidance_scale: demo does not use it; leave it out"),
        ({"height": 100}, "height: demo takes multiples of 8; use 96 or 104 (got 100)"),
        ({"device": "cuda"}, "finds no cuda here; use cpu or auto"),
        ({"scheduler": "NoSuchScheduler"}, "has no NoSuchScheduler"),
        ({"lora": ["/nowhere/style.safetensors"]}, "/nowhere/style.safetensors"),
    ],
)
def test_wrong_use_is_refused_in_one_line(run, prompts, values, message):
    state = run(**({"dataset": prompts("a fox")} | values))
    assert state.name == "Refused"
    assert message in state.message
    assert len(state.message.splitlines()) == 1
