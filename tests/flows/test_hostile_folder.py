"""Somebody else's output folder, or a download: refused in one line; nothing outside of it is written."""

import json
import os

import pytest

from flows.command import ExitCode
from flows.outcomes import exit_code
from t2i_core.errors import OutputError
from t2i_core.output.writable import check_hidden

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def outside(tmp_path):
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "mine.txt").write_text("mine")
    return folder


def link(path, outside):
    path.symlink_to(outside)


def pipe(path, outside):
    os.mkfifo(path)


@pytest.mark.parametrize("make", [link, pipe])
@pytest.mark.parametrize(
    "name", ["images", "plans", "results", "records", "written", "lock", "output.json", "checked-images", "parts"]
)
def test_links_and_pipes_of_the_hidden_folder_are_refused(tmp_path, outside, name, make):
    root = tmp_path / "out"
    (root / ".t2i").mkdir(parents=True)
    make(root / ".t2i" / name, outside)
    with pytest.raises(OutputError, match=f"{name} is (a link|no regular file)"):
        check_hidden(root)


def test_a_run_refuses_a_hidden_folder_that_is_a_link(run, output, prompts, outside):
    output.folder.mkdir()
    (output.folder / ".t2i").symlink_to(outside)
    state = run(dataset=prompts("a fox"))
    assert exit_code(state) == ExitCode.WRONG_USE
    assert "is a link" in state.message
    assert [path.name for path in outside.iterdir()] == ["mine.txt"]


def test_a_run_writes_through_no_link_among_images(run, output, prompts, outside):
    (output.folder / ".t2i/images").mkdir(parents=True)
    for first in range(256):
        (output.folder / f".t2i/images/{first:02x}").symlink_to(outside)
    state = run(dataset=prompts("a fox"))
    assert exit_code(state) == ExitCode.WRONG_USE
    assert "is a link" in state.message
    assert [path.name for path in outside.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize("make", [link, pipe])
def test_what_is_no_file_in_the_place_of_an_image_is_made_again(run, output, prompts, outside, make):
    dataset = prompts("a fox")
    run(dataset=dataset)
    (path,) = output.stored().values()
    path.unlink()
    make(path, outside / "mine.txt")
    state = run(dataset=dataset)
    assert exit_code(state) == ExitCode.OK, state.message
    assert path.is_file() and not path.is_symlink()
    assert (outside / "mine.txt").read_text() == "mine"
    assert output.manifest_is_true()


def test_a_plan_outside_of_the_output_is_not_taken(run, output, prompts, outside):
    """A stored result that names files elsewhere, and one of another form, count as missing."""
    dataset = prompts("a fox")
    run(dataset=dataset)
    for folder in ("plan-v5", "manifest-v1", "records-v2", "model-v2"):
        for path in (output.folder / ".t2i/results").glob(f"{folder.partition('-')[0]}-*/*"):
            stored = json.loads(path.read_text())
            result = json.loads(stored["result"])
            odd = {"digest": "../../../outside/x"} if isinstance(result, dict) else None
            path.write_text(json.dumps(stored | {"result": json.dumps((result | odd) if odd else ["odd"])}))
    state = run(dataset=dataset)
    assert exit_code(state) == ExitCode.OK, state.message
    assert output.counts()["images_reused"] == 1
