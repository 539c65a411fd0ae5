"""Choosing among the images of a finished output: what is kept, what is dropped, and why."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from t2i_core.errors import ConfigError, OutputError
from t2i_core.options.command import Options
from t2i_core.options.selection import SelectionOptions
from t2i_core.output.finished import read_finished
from t2i_core.output.manifest import write_manifest
from t2i_core.output.selection import choose, write_choice
from t2i_core.storage import tables
from tests.builders import image_spec, make_catalog, store_image

# Three prompts: of the first four images, of the second two, the second of which failed, of the third one.
SPECS = [
    [image_spec(10 * row + number, prompt=f"prompt {row}") for number in range(count)]
    for row, count in enumerate((4, 2, 1))
]
SCORES = [0.1, 0.4, 0.4, 0.3, 0.2, None, None]
DUPLICATES = [False, False, True, False, False, None, None]


class Selection(Options, SelectionOptions):
    """The options of a command that only selects."""


@pytest.fixture
def finished(workspace, config):
    """An output whose `images.parquet` has a score and a column of duplicates."""
    failed = SPECS[1][1]
    for own in SPECS:
        for spec in own:
            if spec is not failed:
                store_image(workspace, spec)
    catalog = make_catalog(workspace, *SPECS, errors={failed.key: "NaN"})
    write_manifest(catalog, config())
    table = pq.read_table(workspace.root / "images.parquet")
    table = table.append_column("score_clip", pa.array(SCORES)).append_column("duplicate", pa.array(DUPLICATES))
    pq.write_table(table, workspace.root / "images.parquet")
    summary = {"run": "r", "state": "finished", "data_set": catalog.plan.to_summary(), "configuration": {}}
    (workspace.root / "run.json").write_text(json.dumps(summary))
    return read_finished(workspace)


@pytest.fixture
def kept(finished):
    """Options of a selection -> (the positions that are kept, reason -> count of what is dropped)."""

    def select(**options):
        choice = choose(finished, Selection.from_values(options))
        assert [choice.reason(position) is None for position in range(7)] == choice.keep.tolist()
        return choice.keep.nonzero()[0].tolist(), choice.counts()

    return select


NO_PICTURE = "no picture: it failed or was not made yet"


def test_without_rules_every_image_that_has_a_picture_is_kept(kept):
    assert kept() == ([0, 1, 2, 3, 4, 6], {NO_PICTURE: 1})


def test_a_condition_drops_what_it_does_not_hold_for_and_what_has_no_value(kept):
    positions, reasons = kept(where="score_clip > 0.15 and not duplicate")
    assert positions == [1, 3, 4]
    missing = {"where: score_clip has no value": 1, NO_PICTURE: 1}
    assert reasons == {"where: does not hold: score_clip > 0.15 and not duplicate": 2, **missing}


@pytest.mark.parametrize(
    ("condition", "positions"),
    [
        ("seed in [1, 10]", [1, 4]),
        ("prompt.str.contains('2')", [6]),
        ("score_clip.isna()", [6]),
        ("not (score_clip > 0.3)", [0, 3, 4]),
        ("0.2 < score_clip <= 0.3 or height * 2 < width", [3]),
        ("duplicate == True", [2]),
        ("status == 'reused' & seed == 0", [0]),
    ],
)
def test_conditions_are_those_of_pandas(kept, condition, positions):
    assert kept(where=condition)[0] == positions


@pytest.mark.parametrize(
    ("condition", "problem"),
    [
        ("score_clip >", "is no condition"),
        ("1 < 2", "names no column"),
        ("score_clap > 1", r"no column score_clap \(there are duplicate, score_clip"),
        ("score_clip + 1", "is not true or false"),
        ("prompt > 3", "cannot be evaluated"),
        ("@config", "is no condition"),
        ("prompt.to_csv('stolen')", "calls to_csv; there are"),
        ("prompt.__class__", "calls __class__"),
        ("prompt.str.cat(prompt) == 'x'", "calls cat"),
        ("open('x') == prompt", "calls open"),
        ("[x for x in prompt]", "holds ListComp"),
        ("score_clip == None", "compares with None; write COLUMN.isna"),
    ],
)
def test_what_is_no_condition_is_refused_in_one_line(kept, condition, problem):
    with pytest.raises(ConfigError, match=f"^where: .*{problem}") as refused:
        kept(where=condition)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("rows", [1, 2, 3, 4096])
def test_the_best_of_each_prompt_are_kept_and_of_equal_ones_the_first(kept, monkeypatch, rows):
    monkeypatch.setattr(tables, "CHUNK_ROWS", rows)  # a prompt's images may lie in several chunks
    positions, reasons = kept(best_of=1, by="score_clip")
    assert positions == [1, 4]
    assert reasons["best of: not among the best 1 of its prompt by score_clip"] == 3
    assert reasons["best of: score_clip has no value"] == 1
    assert kept(best_of=3, by="score_clip")[0] == [1, 2, 3, 4]


def test_with_a_minus_the_lowest_are_the_best_and_a_condition_comes_first(kept):
    assert kept(best_of=1, by="-score_clip")[0] == [0, 4]
    assert kept(best_of=1, by="score_clip", where="not duplicate and score_clip < 0.35")[0] == [3, 4]


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"best_of": 2}, "best_of and by go together"),
        ({"by": "seed"}, "best_of and by go together"),
        ({"best_of": 1, "by": "score_x"}, "by: images.parquet has no column score_x"),
        ({"best_of": 1, "by": "score clip"}, "by: write the name of a column"),
        ({"best_of": 1, "by": "prompt"}, "by: prompt is no column of numbers"),
        ({"best_of": 0, "by": "seed"}, "best_of: "),
    ],
)
def test_a_best_of_that_cannot_be_is_refused(kept, options, problem):
    with pytest.raises(ConfigError, match=problem):
        kept(**options)


def test_a_limit_keeps_the_first_that_are_left(kept):
    assert kept(where="score_clip > 0.15", limit=2)[0] == [1, 2]
    assert kept(limit=2)[1]["limit: beyond the first 2"] == 4


def write_review(path, *lines, header="key,keep"):
    path.write_text("\n".join((header, *lines)) + "\n")
    return str(path)


def test_a_review_drops_what_it_says_no_to(kept, tmp_path):
    first, second, third, *_ = (spec.key for spec in SPECS[0])
    review = write_review(tmp_path / "review.csv", f"{first},no", f"{second},YES", f"{third},", f"{'f' * 64},no")
    assert kept(review=review) == ([1, 2, 3, 4, 6], {"review: keep is no": 1, NO_PICTURE: 1})


def test_the_last_decision_of_a_review_holds_whatever_wrote_the_file(kept, tmp_path):
    key = SPECS[0][0].key
    lines = (f"x;1;{key}", f"x;0;{key}", "", f"x;true;{SPECS[0][1].key}")
    review = write_review(tmp_path / "review.csv", *lines, header="\ufeffnote;Keep;Key")
    assert kept(review=review)[0] == [1, 2, 3, 4, 6]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("key\n", "has no columns key and keep"),
        ("", "has no columns key and keep"),
        ("key,keep\nsample0,no\n", "line 2: 'sample0' is no key"),
        (f"key,keep\n{'a' * 64},maybe\n", r"line 2: keep is yes or no \(got 'maybe'\)"),
    ],
)
def test_a_review_that_says_something_else_is_refused(kept, tmp_path, text, problem):
    (tmp_path / "review.csv").write_text(text)
    with pytest.raises(ConfigError, match=f"review: .*{problem}"):
        kept(review=str(tmp_path / "review.csv"))
    with pytest.raises(ConfigError, match="does not exist"):
        kept(review=str(tmp_path / "other.csv"))


def test_a_choice_is_written_as_a_review_that_keeps_the_same(finished, kept):
    write_choice(finished, choose(finished, Selection(best_of=1, by="score_clip")))
    path = finished.workspace.root / "choice.csv"
    lines = path.read_text().splitlines()
    assert lines[0] == "key,keep,path,reason"
    assert len(lines) == 1 + 7
    assert lines[1].startswith(f"{SPECS[0][0].key},no,")
    assert lines[1].endswith("sample0_condition0_0.png,best of: not among the best 1 of its prompt by score_clip")
    assert lines[2].endswith("sample0_condition0_1.png,")
    assert kept(review=str(path))[0] == [1, 4]


def test_a_choice_that_somebody_edited_is_not_written_over(finished):
    choice = choose(finished, Selection())
    write_choice(finished, choice)
    write_choice(finished, choice)  # its own
    path = finished.workspace.root / "choice.csv"
    path.write_text(path.read_text().replace(",yes,", ",no,", 1))
    with pytest.raises(OutputError, match=r"holds choice\.csv, which this tool did not write"):
        write_choice(finished, choice)
