"""Output folders of earlier releases (`tests/make_output.py`): every image is reused and every file is right."""

import json
import shutil
import tarfile
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from t2i_core.models.identity import ResolvedModel
from t2i_core.storage.formats import decode_image
from tests.conftest import Output
from tests.make_output import FAILS, LINES, ONE_STEP, REPLACED, SETTINGS, TWO_STEPS

DATA = Path(__file__).parent / "data"
RELEASES = sorted(path.name.removesuffix(".tar.gz") for path in DATA.glob("*.tar.gz"))
IMAGES = 12  # that the data set asks for; one of them failed


@pytest.fixture(params=RELEASES)
def old(request, tmp_path, monkeypatch, server, no_model):
    """A release's output, with the demo model known as that release knew it: its weights may change one day."""
    with tarfile.open(DATA / f"{request.param}.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    monkeypatch.chdir(tmp_path)
    model = ResolvedModel.from_json(json.loads(Path("model.json").read_text()))
    monkeypatch.setattr("tasks.models.resolve_model", lambda *arguments, **options: model)
    return Output("out")


def run(**values):
    from flows.text2image import text2image

    return text2image(**SETTINGS | values, return_state=True)


def check(output, steps):
    """All images but the failed one are there as asked for; every file says so."""
    counts = output.run()["accounting"]
    assert (counts["images_generated"], counts["images_reused"], counts["images_failed"]) == (0, IMAGES - 1, 1)
    assert (counts["rows"], counts["rows_skipped"], counts["rows_rejected"]) == (len(LINES), 1, 2)
    provenance = {row["key"]: row for row in pq.read_table("out/images.parquet").to_pylist()}
    assert sum(row["status"] == "reused" for row in provenance.values()) == IMAGES - 1
    named = 0
    for row in output.manifest():
        prompts = [message["content"] for message in row["conversations"]]
        for path in [path for path in row["images"] if path != "mine.png"]:
            image = decode_image(Path(path).read_bytes())
            assert image.record["spec"]["prompt"] in prompts
            assert image.record["spec"]["steps"] == steps
            assert provenance[image.record["key"]]["pixels_sha256"] == image.pixels_sha256
            assert provenance[image.record["key"]]["path"] == path
            named += 1
    assert named == IMAGES - 1
    reasons = {failure["value"]: failure["reason"] for failure in output.failures()}
    assert reasons[repr(FAILS)] == "the image is black"
    assert len(reasons) == 3
    (replaced,) = [row for row in provenance.values() if row["prompt"] == REPLACED]
    assert bool(replaced["replaces"]) == (steps == 2)


@pytest.mark.parametrize("times", ["kept", "lost"])
def test_every_image_of_an_earlier_release_is_reused(old, times):
    if times == "lost":  # as after a copy without times and links: everything is verified and linked anew
        Path("out").rename("whole")
        shutil.copytree("whole", "out", copy_function=shutil.copy)
        shutil.rmtree("whole")
    before, manifest = old.pixels(), old.manifest()
    assert run(**TWO_STEPS).name == "TooManyFailures"  # the failed image is remembered as one
    check(old, steps=2)
    assert old.manifest() == manifest
    assert run(**ONE_STEP).name == "TooManyFailures"
    check(old, steps=1)
    assert run(**TWO_STEPS).name == "TooManyFailures"
    check(old, steps=2)
    assert old.pixels() == before


def test_the_earlier_manifests_of_an_earlier_release_stay_true(old):
    assert run(**TWO_STEPS).name == "TooManyFailures"
    paths = [
        (path, row)
        for manifest in Path("out/.t2i/manifests").glob("*.jsonl")
        for row in map(json.loads, manifest.read_text("utf-8").splitlines())
        for path in row["images"]
        if path != "mine.png"
    ]
    assert len(paths) == 2 * IMAGES - 3  # the first data set lacked a row
    for path, row in paths:
        image = decode_image(Path(path).read_bytes())
        assert image.record["spec"]["prompt"] in [message["content"] for message in row["conversations"]]
    assert run(**TWO_STEPS, prune=True).name == "TooManyFailures"
    assert len(old.stored()) == IMAGES - 1
    check(old, steps=2)


def test_the_output_of_an_earlier_release_may_be_moved_once_its_paths_are_relative(old):
    assert run(**TWO_STEPS, manifest_paths="relative").name == "TooManyFailures"
    manifest = old.manifest()
    assert named_images(manifest, old.folder) == IMAGES - 1
    moved = Output(old.folder.rename(Path("moved").absolute()))
    assert named_images(manifest, moved.folder) == IMAGES - 1
    before = moved.pixels()
    for paths in ("relative", "output", "relative"):
        assert run(**TWO_STEPS, output="moved", manifest_paths=paths).name == "TooManyFailures"
        assert moved.run()["accounting"]["images_reused"] == IMAGES - 1
        folder = moved.folder if paths == "relative" else Path()
        assert named_images(moved.manifest(), folder) == IMAGES - 1
        retired = [path for path in (moved.folder / ".t2i/manifests").glob("*") if '"../images' in path.read_text()]
        for path in retired:
            rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
            assert named_images(rows, path.parent) == IMAGES - 1
    assert len(retired) >= 1
    assert moved.manifest() == manifest
    assert moved.pixels() == before


def named_images(manifest, folder):
    """How many images a manifest names, relative to a folder, each a picture of a prompt of its row."""
    found = 0
    for row in manifest:
        for path in row["images"]:
            if path == "mine.png":
                continue
            image = decode_image((folder / path).read_bytes())
            assert image.record["spec"]["prompt"] in [message["content"] for message in row["conversations"]]
            found += 1
    return found
