"""Scoring a finished output: every image once, whatever stops it, and later runs keep the scores."""

import pandas as pd
import pytest

from flows import score as flow
from flows.choose import choose
from t2i_core.output.layout import PROVENANCE
from t2i_core.scoring import processes
from tests.tiny_clip import tiny_clip

TEXTS = ("a red circle", "a blue square", "a green triangle")


@pytest.fixture
def score(server, output):
    """Run the flow over the output: `score("stats", ...)` -> the final state."""

    def call(*scorers, **options):
        return flow.score(output=str(output.folder), score=list(scorers), return_state=True, **options)

    return call


@pytest.fixture
def table(output):
    return lambda: pd.read_parquet(output.folder / PROVENANCE)


def test_an_output_that_no_run_finished_is_refused(score):
    state = score("stats")
    assert state.name == "Refused"
    assert "is no folder; name the output of a text2image run" in state.message


def test_scores_stay_when_the_data_set_grows(run, score, prompts, table):
    run(dataset=prompts(*TEXTS[:2]))
    state = score("stats", "phash")
    assert (state.is_completed(), state.message) == (True, "2 images scored")
    first = table()
    assert first["score_phash"].str.len().tolist() == [16, 16]
    assert first["score_brightness"].between(0, 1).all()
    assert first["duplicate"].notna().all()
    assert score("stats", "phash").message == "0 images scored"
    pd.testing.assert_frame_equal(table(), first)

    run(dataset=prompts(*TEXTS))
    grown = table()
    assert grown["score_sharpness"].tolist()[:2] == first["score_sharpness"].tolist()
    assert grown["score_sharpness"].isna().tolist() == [False, False, True]
    assert grown["duplicate"].isna().tolist() == [False, False, True]
    assert score("stats", "phash").message == "1 images scored"
    assert not table()["score_sharpness"].isna().any()


def test_a_run_that_breaks_off_keeps_what_is_done(run, score, prompts, monkeypatch):
    run(dataset=prompts(*TEXTS))
    whole, calls = processes.score_decoded, []

    def breaks_off(scorers, decoded):
        calls.append(len(decoded.images))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return whole(scorers, decoded)

    monkeypatch.setattr(flow, "CHUNK", 1)
    monkeypatch.setattr(processes, "score_decoded", breaks_off)
    with pytest.raises(KeyboardInterrupt):
        score("stats")
    monkeypatch.setattr(processes, "score_decoded", whole)
    assert score("stats").message == "1 images scored"


def test_a_function_of_the_user_scores_and_its_failures_are_told(run, score, prompts, table, tmp_path):
    run(dataset=prompts(*TEXTS))
    source = tmp_path / "mine.py"
    source.write_text("def letters(images, prompts):\n    return [len(p) for p in prompts]\n")
    assert score(f"{source}:letters").is_completed()
    assert table()["score_letters"].tolist() == [len(text) for text in TEXTS]

    source.write_text("def letters(images, prompts):\n    return [1 / ('blue' not in p) for p in prompts]\n")
    state = score(f"{source}:letters")
    assert (state.name, state.message) == ("TooManyFailures", "3 images scored, 1 failures")
    assert table()["score_letters"].isna().tolist() == [False, True, False]


def test_two_scorers_cannot_give_one_column(run, score, prompts, tmp_path):
    run(dataset=prompts(TEXTS[0]))
    (tmp_path / "mine.py").write_text("def entropy(images): return [0] * len(images)\n")
    score("stats")
    state = score(f"{tmp_path / 'mine.py'}:entropy")
    assert state.name == "Refused"
    assert "score: entropy and stats both give score_entropy" in state.message


def test_duplicates_are_found_anew_when_the_distance_changes(run, score, prompts, table):
    run(dataset=prompts(TEXTS[0], TEXTS[0], TEXTS[1]))
    score("phash", duplicate_distance=0)
    exact = table()["duplicate"].sum()
    assert score("phash", duplicate_distance=7).message == "0 images scored"
    assert table()["duplicate"].sum() >= exact


def test_a_clip_model_scores_images_with_their_prompts(run, score, prompts, table, tmp_path, monkeypatch):
    run(dataset=prompts(TEXTS[0], TEXTS[1] + ", very blue" * 60))
    folder = tiny_clip(tmp_path / "clip")
    assert score(f"clip={folder}", device="cpu").message == "2 images scored"
    assert table()["score_clip"].between(-1, 1).all()
    assert [cut > 0 for cut in table()["score_clip_cut"]] == [False, True]
    monkeypatch.setattr("t2i_core.engine.clip_scores.ClipScorer._load", lambda self: pytest.fail("it was loaded"))
    assert score(f"clip={folder}", device="cpu").message == "0 images scored"
    state = score("clip=someone", device="cpu")
    assert (state.name, "name the folder of a CLIP or SigLIP model" in state.message) == ("Refused", True)


def test_what_is_chosen_by_scores_is_written_down_with_reasons(run, score, prompts, output):
    run(dataset=prompts(*TEXTS), images_per_prompt=2)
    score("stats")
    asked = {"output": str(output.folder), "best_of": 1, "by": "score_brightness", "return_state": True}
    state = choose(**asked)
    assert (state.is_completed(), state.message) == (True, "3 of 6 images are kept")
    lines = (output.folder / "choice.csv").read_text().splitlines()
    assert sorted(line.split(",")[1] for line in lines[1:]) == ["no"] * 3 + ["yes"] * 3
    assert choose(**asked).message == "3 of 6 images are kept"
    with (output.folder / "choice.csv").open("a") as file:
        file.write("edited by hand\n")
    assert choose(**asked).name == "Refused"
    assert choose(**(asked | {"by": "score_nothing"})).name == "Refused"
