"""Comparing outputs: a page that is written once, and refusals in one line."""

import pytest

from flows.compare import compare


@pytest.fixture
def page(server, tmp_path):
    """Run the flow: `page("out", "other")` -> the final state."""

    def call(*outputs, **options):
        return compare(outputs=list(outputs), to=str(tmp_path / "comparison"), return_state=True, **options)

    return call


def test_two_runs_are_shown_side_by_side_and_an_unchanged_page_is_kept(run, output, page, prompts, tmp_path):
    dataset, other = prompts("a red circle", "a blue square"), str(tmp_path / "other")
    run(dataset=dataset)
    run(dataset=dataset, output=other, seed=7)
    state = page(str(output.folder), other)
    assert (state.is_completed(), state.message) == (True, "2 images belong together, 2 of them are shown")
    written = (tmp_path / "comparison/index.html").stat()
    assert "a blue square" in (tmp_path / "comparison/index.html").read_text()
    assert page(str(output.folder), other).is_completed()
    assert (tmp_path / "comparison/index.html").stat().st_mtime_ns == written.st_mtime_ns
    assert page(str(output.folder), other, limit=1).message == "2 images belong together, 1 of them are shown"


@pytest.mark.parametrize(
    ("outputs", "problem"),
    [
        (["nowhere", "elsewhere"], "nowhere is no folder; name the output of a text2image run"),
        (["out", "out/"], "outputs: names one folder twice"),
    ],
)
def test_what_cannot_be_compared_is_refused_in_one_line(page, outputs, problem):
    state = page(*outputs)
    assert state.name == "Refused"
    assert problem in state.message
