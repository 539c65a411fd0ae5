"""The main job, run in this process with the demo model."""

import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.conftest import QUICK, Output, header_of

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


@pytest.mark.parametrize("name", ["run-10:00", "s3:", "#1 50%", "~", "日本 語"])
def test_an_output_may_have_any_name(run, prompts, tmp_path, monkeypatch, name):
    """pyarrow takes `word:` in a path for a URL."""
    monkeypatch.chdir(tmp_path)
    for texts, reused in [(["a fox"], 0), (["a fox"], 1), (["a cat", "a fox"], 1)]:
        assert run(dataset=prompts(*texts), output=f"./{name}").is_completed()
        output = Output(name)
        assert output.counts().get("images_reused", 0) == reused
        assert output.manifest_is_true()
        assert len(pq.read_table(pa.OSFile(f"{name}/images.parquet"))) == len(texts)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([name, "prompts.jsonl"])


def test_a_tilde_in_a_parameter_of_the_flow_is_the_home_folder(run, prompts, tmp_path, monkeypatch):
    """As in a deployment, where no shell expands it."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    prompts("a fox")
    assert run(dataset="~/prompts.jsonl", output="~/out").is_completed()
    assert Output(tmp_path / "out").manifest_is_true()
    assert not (tmp_path / "~").exists()


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
    for row in rows:
        header = header_of(Path(row["images"][0]))
        assert header["spec"]["prompt"] == row["conversations"][0]["content"]


def test_appending_rows_keeps_the_old_manifest_in_place(run, output, prompts):
    run(dataset=prompts("a fox"))
    run(dataset=prompts("a fox", "a cat"))
    assert not (output.folder / ".t2i/manifests").exists()


def test_the_same_image_whatever_batch_it_shares(run, output, prompts, tmp_path):
    """Bit for bit: other batch mates, another slot, another order, another shard, after a resume."""
    run(dataset=prompts("a fox", "a cat", "a house", "a moon", "a kite"), batch_size=4)
    first = output.pixels()
    other = type(output)(tmp_path / "other")
    requests = [["a kite", "a fox"], ["a kite", "a moon", "a house", "a cat", "a fox"]]
    for texts in requests:
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


def test_another_data_set_needs_replace(run, output, prompts):
    run(dataset=prompts("a fox", name="one.jsonl"))
    other = prompts("a cat", name="two.jsonl")
    state = run(dataset=other)
    assert state.name == "Refused"
    assert "one.jsonl" in state.message
    assert "--replace" in state.message
    assert run(dataset=other, replace=True).is_completed()
    assert output.manifest_is_true()


def test_dry_run_writes_no_manifest_and_loads_no_model(run, output, prompts, no_model, caplog):
    state = run(dataset=prompts("a fox", "a cat", "a house"), dry_run=True)
    assert state.is_completed()
    assert "3 images, 3 of them to make" in state.message
    assert "in 2 batches of 2, 1 shards" in caplog.text
    assert not (output.folder / "manifest.jsonl").exists()


def test_the_settings_of_a_model_without_a_preset_are_told_whatever_the_run_does(
    run, prompts, no_model, stable_diffusion, caplog
):
    assert run(dataset=prompts("a fox"), model=stable_diffusion, steps=None, dry_run=True).is_completed()
    assert (
        f"settings of StableDiffusionPipeline's own code are taken for {stable_diffusion}: steps 50, "
        "guidance_scale 7.5, size 32x32, dtype float32 (no preset is of its class; the dtype is that of its files)"
    ) in caplog.text
    assert f"model     {stable_diffusion} (settings of StableDiffusionPipeline's own code)" in caplog.text


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


def test_the_run_says_that_the_demo_model_is_a_demo(run, output, prompts, caplog):
    run(dataset=prompts("a fox"))
    assert "demo model, 64x64, for trying the tool" in caplog.text
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
        ({"scheduler": "EulerDiscreteScheduler"}, "EulerDiscreteScheduler has no form for flow matching"),
        (
            {"scheduler_options": {"use_karras_sigmas": "yes"}},
            "scheduler_options.use_karras_sigmas: write true or false",
        ),
        ({"lora": ["/nowhere/style.safetensors"]}, "/nowhere/style.safetensors"),
    ],
)
def test_wrong_use_is_refused_in_one_line(run, prompts, values, message):
    state = run(**({"dataset": prompts("a fox")} | values))
    assert state.name == "Refused"
    assert message in state.message
    assert len(state.message.splitlines()) == 1
