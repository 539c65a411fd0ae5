"""A preview makes a stable sample to look at; a limited run and --prune take nothing away without a word."""

import shutil

import pytest
from PIL import Image

pytestmark = pytest.mark.timeout(300)

TEXTS = [f"a fox number {i}" for i in range(30)]


def stored_prompts(output):
    from tests.conftest import header_of

    return {header_of(path)["spec"]["prompt"] for path in output.stored().values()}


def test_a_preview_makes_its_images_and_a_sheet_and_the_run_goes_on_from_them(run, output, prompts, caplog):
    dataset = prompts(*TEXTS)
    state = run(dataset=dataset, preview=5)
    assert state.is_completed()
    assert state.message == f"preview: 5 of 5 images, see {output.folder}/preview.jpg"
    assert "rest      25 images, about" in caplog.text
    assert len(output.stored()) == 5
    with Image.open(output.folder / "preview.jpg") as sheet:
        assert sheet.width > 900
    assert sorted(path.name for path in output.folder.iterdir()) == [".t2i", "preview.jpg"]
    before = output.pixels()
    assert run(dataset=dataset).is_completed()
    assert output.counts()["images_reused"] == 5
    assert before.items() <= output.pixels().items()


def test_the_sample_is_the_same_with_other_settings_and_nearly_the_same_with_other_rows(run, output, prompts, tmp_path):
    other, edited = (type(output)(tmp_path / name) for name in ("other", "edited"))
    run(dataset=prompts(*TEXTS), preview=6)
    run(dataset=prompts(*TEXTS), preview=6, height=72, output=str(other.folder))
    run(dataset=prompts("a new row", *TEXTS[:10], *TEXTS[11:]), preview=6, output=str(edited.folder))
    assert stored_prompts(output) == stored_prompts(other)
    assert len(stored_prompts(output) & stored_prompts(edited)) >= 4


def test_a_preview_over_a_finished_run_leaves_its_files_alone(run, output, prompts):
    dataset = prompts(*TEXTS[:4])
    run(dataset=dataset)
    files = {path: path.stat().st_mtime_ns for path in output.folder.iterdir() if path.name != ".t2i"}
    assert run(dataset=dataset, preview=2, height=72).is_completed()
    assert {path: path.stat().st_mtime_ns for path in files} == files
    assert output.manifest_is_true()
    assert run(dataset=dataset).is_completed()
    assert output.counts()["images_reused"] == 4


def test_a_preview_says_what_failed(run, output, prompts, monkeypatch, caplog):
    from t2i_core.errors import ImageFailure
    from t2i_core.generation import image_writer

    def black(image, spec):
        raise ImageFailure("the image is black")

    monkeypatch.setattr(image_writer, "checked_pixels", black)
    state = run(dataset=prompts(*TEXTS[:3]), preview=2)
    assert state.name == "TooManyFailures"
    assert "failed    the image is black" in caplog.text
    assert run(dataset=prompts(*TEXTS[:3]), preview=2, max_failures=2.0).is_completed()


@pytest.mark.parametrize("option", [{"preview": 3}, {"part": "1/1"}])
def test_a_shard_that_crashed_once_its_images_were_stored_is_no_failure(run, prompts, monkeypatch, caplog, option):
    from tasks import generation

    real = generation.generate_shard

    def crashing(*arguments):
        real(*arguments)
        raise RuntimeError("crashed")

    monkeypatch.setattr(generation, "generate_shard", crashing)
    assert run(dataset=prompts(*TEXTS[:3]), **option).is_completed()
    assert "failed    " not in caplog.text


def test_a_limited_run_never_takes_rows_away_from_a_larger_one(run, output, prompts):
    dataset = prompts(*TEXTS[:6])
    assert run(dataset=dataset, limit=2).is_completed()
    assert run(dataset=dataset, limit=4).is_completed()
    assert run(dataset=dataset).is_completed()
    manifest = output.manifest()
    state = run(dataset=dataset, limit=4)
    assert state.name == "Refused"
    assert "has 6 rows, and --limit 4 would take 2 of them away; use --preview 4 or another --output" in state.message
    assert output.manifest() == manifest
    assert run(dataset=dataset, limit=6).is_completed()
    assert run(dataset=dataset, limit=4, replace=True).is_completed()
    assert len(output.manifest()) == 4


def test_a_limited_run_does_not_call_images_unused_that_it_did_not_read(run, output, prompts, caplog):
    dataset = prompts(*TEXTS[:4])
    run(dataset=dataset)
    caplog.clear()
    assert run(dataset=dataset, limit=2, replace=True).is_completed()
    assert "unused" not in caplog.text


@pytest.mark.parametrize("option", [{"limit": 2}, {"preview": 2}])
def test_prune_is_refused_where_rows_are_left_out(run, prompts, option):
    state = run(dataset=prompts(*TEXTS[:4]), prune=True, **option)
    assert state.name == "Refused"
    assert f"prune deletes images of rows that {next(iter(option))} leaves out" in state.message


def test_prune_says_what_it_deletes_before_and_after(run, output, prompts, caplog):
    dataset = prompts(*TEXTS[:4])
    run(dataset=dataset)
    run(dataset=dataset, steps=2)
    assert (
        "unused    4 stored images, 0.0 MB, are not in this manifest; --prune deletes them and 1 earlier" in caplog.text
    )
    run(dataset=dataset, steps=2, prune=True, dry_run=True)
    assert "prune     would delete 4 stored images, 0.0 MB, and 1 earlier manifest" in caplog.text
    assert len(output.stored()) == 8
    run(dataset=dataset, steps=2, prune=True)
    assert "pruned    4 stored images, 0.0 MB, and 1 earlier manifest" in caplog.text
    assert len(output.stored()) == 4


def test_prune_deletes_no_image_of_which_there_is_a_copy(run, output, prompts):
    run(dataset=prompts(*TEXTS[:4]))
    images = output.folder / ".t2i/images"
    for folder in list(images.iterdir()):
        shutil.copytree(folder, folder.with_name(f"{folder.name} 2"))  # as tools that synchronise folders do
    before = set(images.glob("??/??/*.png"))
    assert run(dataset=prompts(*TEXTS[:4]), prune=True).is_completed()
    assert set(images.glob("??/??/*.png")) == before
    assert output.counts()["images_reused"] == 4
