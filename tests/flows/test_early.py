"""Of a long data set, images are made while the rest of it is still read; the files are those of any other run."""

import json
import signal
import subprocess
import sys
import time

import pytest

import flows.text2image
import tasks.dataset
from t2i_core.dataset.parser import read_rows
from t2i_core.errors import DatasetError
from t2i_core.planning import plan
from t2i_core.storage.thumbnail_store import ThumbnailStore
from tests.conftest import ROOT, command

pytestmark = pytest.mark.timeout(300)

TEXTS = [f"a fox number {i}" for i in range(23)]


@pytest.fixture
def slow(monkeypatch, output):
    """`slow(images)`: the data set is read to row 12, and on when so many images are stored; then `error` is raised."""

    def begin(images=1, error=None):
        monkeypatch.setattr(plan, "FIRST_SEGMENT", 4)
        monkeypatch.setattr(plan, "SEGMENT", 4)
        monkeypatch.setattr(flows.text2image, "EARLY_SECONDS", 0.1)

        def rows(config, found):
            for row in read_rows(config, found):
                if row.index == 12:
                    deadline = time.monotonic() + 120
                    while len(output.stored()) < images:
                        assert time.monotonic() < deadline, "no image while the data set is read"
                        time.sleep(0.05)
                    if error:
                        raise error
                yield row

        monkeypatch.setattr(tasks.dataset, "read_rows", rows)

    return begin


def normal(monkeypatch):
    monkeypatch.setattr(tasks.dataset, "read_rows", read_rows)
    monkeypatch.setattr(flows.text2image, "EARLY_SECONDS", 60)


def test_the_first_images_are_made_while_the_data_set_is_read(run, prompts, output, slow, monkeypatch, tmp_path):
    dataset = prompts(*TEXTS[:3], {"conversations": []}, *TEXTS[3:], TEXTS[0])
    slow(images=4)
    assert run(dataset=dataset, max_failures=1, save_interval=1).is_completed()
    counts = output.counts()
    assert (counts["rows"], counts["rows_generated"], counts["rows_failed"]) == (25, 24, 1)
    assert counts["images"] == counts["images_generated"] == 24
    work = output.run()["work"]
    assert (work["images"], work["batches"], work["shards"]) == (24, 12, 12)
    assert output.manifest_is_true()
    made = output.manifest()
    normal(monkeypatch)
    assert run(dataset=dataset, max_failures=1, output=str(tmp_path / "plain")).is_completed()
    plain = (tmp_path / "plain/manifest.jsonl").read_text()
    assert (
        json.loads("[" + ",".join(plain.splitlines()).replace(str(tmp_path / "plain"), str(output.folder)) + "]")
        == made
    )
    assert {path.stem for path in (tmp_path / "plain/.t2i/images").rglob("*.png")} == output.stored().keys()


def test_a_row_added_to_a_known_data_set_costs_its_image(run, prompts, output, slow, monkeypatch):
    normal(monkeypatch)
    assert run(dataset=prompts(*TEXTS)).is_completed()
    slow(images=23)
    assert run(dataset=prompts(*TEXTS[:7], "new", *TEXTS[7:])).is_completed()
    assert (output.counts()["images_generated"], output.counts()["images_reused"]) == (1, 23)
    assert output.run()["work"]["images"] == 1
    assert output.manifest_is_true()
    assert run(dataset=prompts(*TEXTS[:20])).is_completed()
    assert output.counts()["images_reused"] == output.counts()["images"] == 20


def test_a_data_set_that_turns_out_to_be_damaged_is_refused_and_its_images_are_kept(
    run, prompts, output, slow, monkeypatch
):
    slow(images=2, error=DatasetError("prompts.jsonl: is damaged"))
    state = run(dataset=prompts(*TEXTS), save_interval=1)
    assert (state.name, state.message) == ("Refused", "prompts.jsonl: is damaged")
    made = len(output.stored())
    assert made >= 2
    assert not (output.folder / "manifest.jsonl").exists()
    normal(monkeypatch)
    assert run(dataset=prompts(*TEXTS)).is_completed()
    assert (output.counts()["images_generated"], output.counts()["images_reused"]) == (23 - made, made)


@pytest.mark.parametrize("options", [{"limit": 20}, {"part": "1/2"}, {"retry_failed": True}, {"refresh": True}])
def test_options_mean_the_same(run, prompts, output, slow, options):
    slow(images=2)
    assert run(dataset=prompts(*TEXTS), save_interval=1, **options).is_completed()
    if "part" in options:
        assert 2 <= len(output.stored()) < 23
        assert not (output.folder / "manifest.jsonl").exists()
        slow(images=0)
        assert run(dataset=prompts(*TEXTS)).is_completed()
    images = options.get("limit", 23)
    assert output.counts()["images"] == len(output.stored()) == images
    assert output.manifest_is_true()


@pytest.mark.parametrize("options", [{"dry_run": True}, {"preview": 3}, {"status": True}, {"replace": True}])
def test_what_concerns_the_whole_data_set_waits_for_it(run, prompts, output, slow, options):
    slow(images=0)
    assert run(dataset=prompts(*TEXTS), save_interval=1, **options).is_completed()
    assert len(output.stored()) == options.get("preview", 23 if "replace" in options else 0)


def test_a_folder_is_not_taken_over_by_a_data_set_that_is_refused(run, prompts, output, slow, monkeypatch, tmp_path):
    normal(monkeypatch)
    mine = prompts("mine", "and another")
    assert run(dataset=mine).is_completed()
    other = tmp_path / "other.txt"
    other.write_text("".join(f"{text}\n" for text in TEXTS))
    slow(images=0, error=DatasetError("other.txt: is damaged"))
    assert run(dataset=str(other), replace=True).name == "Refused"
    normal(monkeypatch)
    assert run(dataset=mine).is_completed()
    assert output.counts()["images_reused"] == 2


@pytest.mark.parametrize(("limit", "thumbnails"), [(23, 23), (3, 0)])
def test_thumbnails_are_made_with_the_first_images_where_a_gallery_is_to_be_expected(
    run, prompts, output, slow, monkeypatch, limit, thumbnails
):
    monkeypatch.setattr("t2i_core.output.layout.GALLERY_LIMIT", limit)
    monkeypatch.setattr(flows.text2image, "show_gallery", lambda *_: None)  # it would make those that are missing
    slow(images=2)
    assert run(dataset=prompts(*TEXTS), save_interval=1).is_completed()
    assert len(ThumbnailStore(output.folder).index().pixels) == thumbnails


def test_several_processes_make_images_while_the_data_set_is_read(run, prompts, output, slow):
    slow(images=4)
    assert run(dataset=prompts(*TEXTS), save_interval=1, workers="2").is_completed()
    assert output.counts()["images_generated"] == output.counts()["images"] == len(output.stored()) == 23
    assert output.run()["work"]["batches"] == 12
    assert output.manifest_is_true()


# A data set that is never read to its end.
ENDLESS = """
import itertools, sys
import tasks.dataset, flows.text2image
from flows.cli import main
from t2i_core.planning import plan
flows.text2image.EARLY_SECONDS, plan.FIRST_SEGMENT, plan.SEGMENT = 0.1, 4, 4
import time
read = tasks.dataset.read_rows
def rows(config, found):
    first = list(read(config, found))
    yield from first[:12]
    while True:
        time.sleep(0.01)
        yield from ()
        if tasks.dataset.STOPPED():
            yield first[12]
tasks.dataset.read_rows = rows
from tasks.process import THIS_PROCESS
tasks.dataset.STOPPED = THIS_PROCESS.stop.is_set
sys.exit(main(sys.argv[1:]))
"""


def test_a_stop_while_the_data_set_is_read_keeps_the_images(server, prompts, output, run):
    flags = command(f"--dataset={prompts(*TEXTS)}", f"--output={output.folder}", "--save-interval=1")[3:]
    process = subprocess.Popen(
        [sys.executable, "-c", ENDLESS, *flags], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    deadline = time.monotonic() + 120
    while len(output.stored()) < 4 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    text, _ = process.communicate(timeout=100)
    assert process.returncode in {143, -signal.SIGTERM}, text
    assert "Traceback" not in text
    assert "before the data set was read to its end; run the same command again to go on" in text
    made = len(output.stored())
    assert made >= 4
    assert run(dataset=prompts(*TEXTS)).is_completed()
    assert (output.counts()["images_generated"], output.counts()["images_reused"]) == (23 - made, made)
