"""What a dry run and an estimate say, and that they make nothing; a measured batch size is kept."""

from collections import namedtuple

import pytest

from tasks.process import THIS_PROCESS

pytestmark = pytest.mark.timeout(300)


def said(caplog):
    """The lines a run said, by their first word."""
    lines = [line for record in caplog.records for line in record.getMessage().splitlines() if " " in line]
    caplog.clear()
    return dict(line.split(maxsplit=1) for line in lines)


def test_a_dry_run_says_batches_padding_disk_and_weights(run, output, prompts, no_model, caplog):
    rows = [{"conversations": f"p{i}", "generation": {"height": 64 + 8 * (i % 5)}} for i in range(6)]
    assert run(dataset=prompts(*rows), dry_run=True, batch_size=4).is_completed()
    lines = said(caplog)
    assert lines["work"] == "6 images to make, in 5 batches of 4, 1 shards"
    assert lines["padding"].startswith("70% of the model's work fills up batches that are not full")
    assert "are free" in lines["disk"]
    assert "too little" not in lines["disk"]
    assert lines["weights"].endswith("MB, by the size of their files")
    assert "time" not in lines
    assert not (output.folder / ".t2i/output.json").exists()


def test_a_dry_run_says_what_a_shorter_text_would_save(run, prompts, no_model, caplog):
    run(dataset=prompts("a fox"), dry_run=True)
    assert "text" not in said(caplog)
    run(dataset=prompts("a fox"), dry_run=True, max_sequence_length=256)
    told = said(caplog)["text"]
    assert told.startswith("256 of 320 tokens")
    assert "--max-sequence-length 128 would save about" in told
    run(dataset=prompts("a fox", "a cat" * 100), dry_run=True, max_sequence_length=256)
    assert "text" not in said(caplog)


def test_too_little_disk_is_said_before_the_work(run, prompts, monkeypatch, caplog):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("t2i_core.reports.estimate.shutil.disk_usage", lambda path: usage(10**9, 10**9, 100))
    run(dataset=prompts("a fox"), dry_run=True)
    assert said(caplog)["disk"].endswith("too little")
    run(dataset=prompts("a fox"))
    assert "are needed" in said(caplog)["disk"]


def test_too_little_memory_for_the_weights_is_said_before_they_are_loaded(run, prompts, monkeypatch, caplog):
    monkeypatch.setattr("t2i_core.engine.device.free_memory", lambda device: 1000)
    run(dataset=prompts("a fox"))
    assert said(caplog)["memory"].endswith("cpu has 0.0 GB free: --quantization takes less")


def test_the_size_of_files_is_that_of_the_images_which_are_there(run, output, prompts, caplog):
    dataset = prompts("a fox", "a cat", "a house", "a moon")
    run(dataset=dataset, limit=2)
    sizes = [path.stat().st_size for path in output.stored().values()]
    caplog.clear()
    run(dataset=dataset, dry_run=True)
    told = float(said(caplog)["disk"].split()[1])
    assert told == pytest.approx(sum(sizes) / 1e6, abs=0.06)


def test_an_estimate_measures_and_makes_nothing(run, output, prompts, caplog):
    dataset = prompts("a fox", "a cat", "a house")
    assert run(dataset=dataset, estimate=True).is_completed()
    lines = said(caplog)
    assert {"work", "disk", "weights", "time", "memory"} <= set(lines)
    assert output.stored() == {}
    assert not (output.folder / "manifest.jsonl").exists()
    assert not (output.folder / ".t2i/output.json").exists()


def test_an_image_that_cannot_be_generated_is_no_reason_to_stop(run, output, prompts, monkeypatch, caplog):
    from t2i_core.engine.flux import FluxStages

    original = FluxStages.denoise

    def denoise(self, specs, on_step):
        if specs[0].prompt == "a fox":
            raise RuntimeError("unlucky")
        return original(self, specs, on_step)

    monkeypatch.setattr(FluxStages, "denoise", denoise)
    dataset = prompts("a fox", "a cat", "a house", "a moon", "a boat")
    assert run(dataset=dataset, estimate=True).is_completed()
    assert "not known: RuntimeError: unlucky" in said(caplog)["time"]
    assert run(dataset=dataset, batch_size="auto").name == "TooManyFailures"
    assert output.counts()["images_generated"] == 1  # in batches of 4 as nothing could be measured: one without the fox
    assert output.run()["work"]["batch_size"] == 4


def test_a_measured_batch_size_is_kept_for_the_output(run, output, prompts, monkeypatch, caplog):
    from t2i_core.engine import calibrate

    dataset = prompts("a fox", "a cat", "a house")
    monkeypatch.setattr(calibrate, "LARGEST_BATCH", 2)
    monkeypatch.setattr(calibrate, "GAIN", 0.0)
    run(dataset=dataset, batch_size="auto", dry_run=True)
    assert "of 4 are a guess" in said(caplog)["batches"]
    assert run(dataset=dataset, batch_size="auto", limit=1).is_completed()
    assert output.run()["work"]["batch_size"] == 2
    monkeypatch.setattr(calibrate, "best_batch_size", lambda *arguments: pytest.fail("measured again"))
    assert run(dataset=dataset, batch_size="auto").is_completed()
    assert output.run()["work"]["batch_size"] == 2
    assert output.counts()["images_generated"] == 2
    caplog.clear()
    run(dataset=dataset, batch_size="auto", dry_run=True)
    assert "batches" not in said(caplog)


def test_a_measurement_that_is_interrupted_ends_at_its_next_step(run, prompts, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("flows.text2image.show_dry_run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(dataset=prompts("a fox"), estimate=True)
    assert THIS_PROCESS.stop.is_set()
    THIS_PROCESS.stop.clear()
