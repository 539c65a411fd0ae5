"""The scores that an output keeps: by pixels, and where a scorer reads them by prompts."""

import pyarrow as pa
import pytest

from t2i_core.errors import ConfigError
from t2i_core.storage.score_table import PIXELS, PROMPT, ScoreTable, prompt_digest, show_tables, shown_columns

A, B, C = ("a" * 64, "b" * 64, "c" * 64)


@pytest.fixture
def table(tmp_path):
    return ScoreTable(tmp_path / "scores", "stats", "v" * 64, reads_prompt=False)


def part(**scores):
    return pa.table({PIXELS: list(scores), "score_x": list(scores.values())})


def values(scores, pixels, prompts=()):
    rows = scores.find(pa.array(pixels), pa.array(prompts or [""] * len(pixels)))
    return [None if row < 0 else scores.columns["score_x"][row].as_py() for row in rows.tolist()]


def test_scores_are_found_by_pixels_in_parts_and_once_merged(table):
    table.write_part("one", part(**{B: 2.0, A: 1.0}))
    table.write_part("two", part(**{C: 3.0}))
    assert values(table.read(), [A, B, C, "d" * 64]) == [1.0, 2.0, 3.0, None]
    assert not table.file.exists()
    assert values(table.merge(), [C, A]) == [3.0, 1.0]
    assert [path.name for path in table.file.parent.iterdir()] == ["stats-vvvvvvvvvvvv.parquet"]
    assert values(table.read(), [C, A]) == [3.0, 1.0]


def test_what_is_merged_later_is_added_and_a_later_score_wins(table):
    table.write_part("one", part(**{A: 1.0, B: 2.0}))
    table.merge()
    table.write_part("two", part(**{B: 5.0}))
    table.write_part("whole numbers", part(**{C: 7}))
    assert values(table.merge(), [A, B, C]) == [1.0, 5.0, 7.0]


def test_nothing_is_found_where_nothing_was_scored(table):
    assert values(table.merge(), [A]) == [None]
    assert not table.file.exists()
    assert table.columns() == []


def test_a_temporary_file_of_a_killed_run_is_no_part(table):
    table.write_part("one", part(**{A: 1.0}))
    (table.file.with_suffix("") / ".two.parquet.1-1.tmp").write_bytes(b"torn")
    assert values(table.merge(), [A]) == [1.0]


def test_scores_of_a_scorer_that_reads_prompts_belong_to_both(tmp_path):
    table = ScoreTable(tmp_path, "clip", "v" * 64, reads_prompt=True)
    rows = {PIXELS: [A, A], PROMPT: [prompt_digest("a fox"), prompt_digest("ein Fuchs, ü")], "score_x": [0.1, 0.2]}
    table.write_part("one", pa.table(rows))
    found = values(table.merge(), [A, A, A, B], ["ein Fuchs, ü", "a fox", "a cat", "a fox"])
    assert found == [0.2, 0.1, None, None]


def test_another_version_is_another_table_and_takes_the_place_of_the_first_when_it_is_shown(tmp_path):
    old, new = (ScoreTable(tmp_path, "clip", version * 64, reads_prompt=False) for version in "vw")
    other = ScoreTable(tmp_path, "phash", "v" * 64, reads_prompt=False)
    for table, name in ((old, "score_old"), (new, "score_new"), (other, "score_phash")):
        table.write_part("one", pa.table({PIXELS: [A], name: [1.0]}))
        table.merge()
    show_tables(tmp_path, [old, other])
    assert shown_columns(tmp_path) == {"clip": ["score_old"], "phash": ["score_phash"]}
    show_tables(tmp_path, [new])
    assert shown_columns(tmp_path) == {"clip": ["score_new"], "phash": ["score_phash"]}
    other.file.unlink()
    assert shown_columns(tmp_path) == {"clip": ["score_new"]}


def test_chunks_of_different_types_are_refused_in_one_line(table):
    table.write_part("one", part(**{A: 1.0}))
    table.write_part("two", part(**{B: "text"}))
    with pytest.raises(ConfigError, match="score: stats gives numbers for some images and texts for others"):
        table.merge()
