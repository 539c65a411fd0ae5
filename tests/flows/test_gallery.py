"""The gallery as a run and a command of its own write it."""

import json
import subprocess
import sys
from contextlib import contextmanager

import pytest

from flows.command import ExitCode
from flows.gallery import gallery
from flows.score import score
from t2i_core.storage.thumbnail_store import ThumbnailStore
from tests.conftest import ROOT

pytestmark = pytest.mark.timeout(300)


def page(output):
    return output.folder / "gallery/index.html"


def thumbnails(output):
    return len(ThumbnailStore(output.folder).index().pixels)


@contextmanager
def no_writes():
    """A block in which no gallery is written."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tasks.gallery.write_gallery", lambda *_, **__: pytest.fail("the gallery was written"))
        yield


def command(folder):
    """The command in a process of its own."""
    arguments = [sys.executable, "-m", "flows.gallery", str(folder)]
    return subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, timeout=200, check=False)


def test_a_run_leaves_a_gallery_of_its_images(run, output, prompts, caplog):
    run(dataset=prompts("a fox", "a </script> cat"), images_per_prompt=2)
    assert page(output).is_file()
    assert thumbnails(output) == 4
    numbers = json.loads((output.folder / "gallery/report.json").read_text("utf-8"))
    assert numbers["images"]["generated"] == 4
    assert numbers["rows"]["rows"] == 2
    assert f"gallery   {output.folder}/gallery/index.html" in caplog.text


def test_a_run_that_makes_nothing_leaves_the_gallery_as_it_is_and_a_changed_one_does_not(run, output, prompts):
    dataset = prompts("a fox", "a cat")
    run(dataset=dataset)
    before = page(output).stat()
    with no_writes():
        run(dataset=dataset)
    assert page(output).stat() == before
    page(output).unlink()
    run(dataset=dataset)
    assert page(output).is_file()
    run(dataset=prompts("a fox", "a cat", "a house"))
    assert '"images": 3' in page(output).read_text("utf-8")


def test_a_gallery_is_left_out_and_made_later_by_the_command(run, output, prompts):
    run(dataset=prompts("a fox", "a cat"), gallery="never")
    assert not page(output).exists()
    assert thumbnails(output) == 0
    assert gallery(output=str(output.folder), return_state=True).is_completed()
    assert page(output).is_file()
    assert thumbnails(output) == 2


def test_a_run_makes_some_missing_thumbnails_and_says_how_to_make_the_others(run, output, prompts, caplog, monkeypatch):
    monkeypatch.setattr("flows.gallery.MISSING_THUMBNAILS", 1)
    dataset = prompts("a fox", "a cat", "a house")
    run(dataset=dataset, gallery="never")
    run(dataset=dataset)
    assert f"2 images have no thumbnail yet: python -m flows.gallery {output.folder} makes them" in caplog.text
    assert thumbnails(output) == 1
    gallery(output=str(output.folder))
    assert thumbnails(output) == 3


def test_a_folder_of_the_user_s_own_is_left_alone(run, output, prompts, caplog):
    mine = output.folder / "gallery/holiday.jpg"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    state = run(dataset=prompts("a fox"))
    assert state.is_completed()
    assert "gallery   not written: output: " in caplog.text
    assert [path.name for path in mine.parent.iterdir()] == ["holiday.jpg"]
    refused = run(dataset=prompts("a fox"), gallery="always")
    assert "holds files that this tool did not write; move it away" in refused.message


def test_the_command_line_writes_a_gallery_and_refuses_what_is_no_output(run, output, prompts, tmp_path, server):
    run(dataset=prompts("a fox"), gallery="never")
    done = command(output.folder)
    assert done.returncode == ExitCode.OK
    assert page(output).is_file()
    refused = command(tmp_path / "nowhere")
    assert refused.returncode == ExitCode.WRONG_USE
    assert "nowhere is no folder" in refused.stderr
    assert "server" not in refused.stdout


def test_scores_are_in_the_gallery_as_soon_as_images_are_scored(run, output, prompts):
    run(dataset=prompts("a fox", "a cat"))
    assert score(output=str(output.folder), score=["stats"], return_state=True).is_completed()
    text = page(output).read_text("utf-8")
    assert '"score_sharpness"' in text
    assert '"looks": ["colour", "detail"]' in text


def test_scoring_writes_no_gallery_where_there_is_none(run, output, prompts):
    run(dataset=prompts("a fox"), gallery="never")
    assert score(output=str(output.folder), score=["stats"], return_state=True).is_completed()
    assert not page(output).exists()
