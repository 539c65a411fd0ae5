"""The columns of scores in `images.parquet`, and which of its images are duplicates."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from t2i_core.errors import OutputError
from t2i_core.output.layout import Layout
from t2i_core.output.own_files import OwnFiles
from t2i_core.output.provenance import SCHEMA
from t2i_core.output.score_columns import write_duplicates, write_score_columns
from t2i_core.storage import tables
from t2i_core.storage.score_table import PIXELS, PROMPT, ScoreTable, prompt_digest, show_tables
from tests.builders import image_spec, make_catalog, store_image, write_provenance

# Two prompts with three images each; the last of the second failed.
SPECS = [[image_spec(10 * row + number, prompt=f"prompt {row}") for number in range(3)] for row in range(2)]


@pytest.fixture
def pixels(workspace):
    """Store the images; return the hashes of their pixels."""
    return [store_image(workspace, spec).pixels_sha256 for own in SPECS for spec in own[: 3 - (own is SPECS[1])]]


@pytest.fixture
def images(workspace, config):
    """Write `images.parquet` as a run does; return its table."""

    def write():
        catalog = make_catalog(workspace, *SPECS, errors={SPECS[1][2].key: "NaN"})
        write_provenance(catalog, Layout.of(config(), catalog.plan.images), OwnFiles(workspace))
        return pq.read_table(workspace.root / "images.parquet")

    return write


def keep(workspace, name, columns, **more):
    table = ScoreTable(workspace.scores, name, "0" * 64, reads_prompt=PROMPT in columns)
    table.write_part("one", pa.table(columns))
    table.merge()
    show_tables(workspace.scores, [table])


def test_without_scores_there_are_no_columns_of_scores(images):
    assert images().schema.names == SCHEMA.names


def test_a_run_joins_the_scores_that_there_are(workspace, pixels, images):
    keep(workspace, "stats", {PIXELS: pixels[:4], "score_a": [0.0, 1.0, 2.0, 3.0], "score_b": ["x", None, "y", "z"]})
    prompts = [prompt_digest(f"prompt {row}") for row in (0, 1)]
    keep(workspace, "clip", {PIXELS: [pixels[0], pixels[0]], PROMPT: prompts, "score_clip": [0.25, 0.5]})
    table = images()
    assert table.schema.names == [*SCHEMA.names, "score_a", "score_b", "score_clip"]
    assert table["score_a"].to_pylist() == [0.0, 1.0, 2.0, 3.0, None, None]
    assert table["score_b"].to_pylist() == ["x", None, "y", "z", None, None]
    assert table["score_clip"].to_pylist() == [0.25, None, None, None, None, None]


def test_new_scores_come_into_the_file_that_is_there_and_nothing_else_changes(workspace, pixels, images):
    before = images()
    keep(workspace, "mine", {PIXELS: pixels, "score_old": [1.0] * 5})
    write_score_columns(workspace)
    keep(workspace, "mine", {PIXELS: pixels, "score_new": [2.0] * 5})
    write_score_columns(workspace)
    after = pq.read_table(workspace.root / "images.parquet")
    assert after.select(SCHEMA.names).equals(before)
    assert after["score_new"].to_pylist() == [2.0] * 5 + [None]
    assert after.equals(images())


def test_a_column_without_a_single_value_is_one_of_numbers(workspace, pixels, images):
    keep(workspace, "mine", {PIXELS: pixels, "score_none": pa.nulls(len(pixels))})
    assert images().schema.field("score_none").type == pa.float64()


def test_without_the_file_there_is_nothing_to_write_into(workspace):
    with pytest.raises(OutputError, match=r"images\.parquet is gone; run text2image"):
        write_score_columns(workspace)


@pytest.mark.parametrize("rows", [1, 2, 4096])
def test_of_each_group_all_but_the_first_of_the_data_set_are_duplicates(workspace, pixels, images, monkeypatch, rows):
    monkeypatch.setattr(tables, "CHUNK_ROWS", rows)
    # 0 and 2 are near, and 1 and 3; 4 has no hash.
    hashes = [f"{value:016x}" for value in (0, 0xFF00, 1, 0xFF01)]
    keep(workspace, "phash", {PIXELS: pixels[:4], "score_phash": hashes})
    write_duplicates(workspace.scores, pa.array(pixels[:4]), np.array([7, 9, 7, 9]), 2, of="")
    table = images()
    keys = [spec.key for own in SPECS for spec in own]
    assert table["duplicate"].to_pylist() == [False, False, True, True, None, None]
    assert table["duplicate_of"].to_pylist() == [None, None, keys[0], keys[1], None, None]
    assert table["duplicate_in_prompt"].to_pylist() == [False, False, True, False, None, None]


def test_where_the_first_of_a_group_is_gone_the_next_is_kept(workspace, pixels, config):
    keep(workspace, "phash", {PIXELS: pixels[:3], "score_phash": ["0" * 16] * 3})
    write_duplicates(workspace.scores, pa.array(pixels[:3]), np.zeros(3, np.int64), 2, of="")
    catalog = make_catalog(workspace, SPECS[0][1:])
    write_provenance(catalog, Layout.of(config(), 2), OwnFiles(workspace))
    assert pq.read_table(workspace.root / "images.parquet")["duplicate"].to_pylist() == [False, True]


def test_a_picture_that_the_data_set_shows_twice_is_a_duplicate_of_itself(workspace, pixels, config):
    keep(workspace, "phash", {PIXELS: pixels[:1], "score_phash": ["0" * 16]})
    write_duplicates(workspace.scores, pa.array(pixels[:1]), np.zeros(1, np.int64), 2, of="")
    catalog = make_catalog(workspace, SPECS[0][0], SPECS[0][0])
    write_provenance(catalog, Layout.of(config(), 2), OwnFiles(workspace))
    table = pq.read_table(workspace.root / "images.parquet")
    assert table["duplicate"].to_pylist() == [False, True]
    assert table["duplicate_of"].to_pylist() == [None, SPECS[0][0].key]
    assert table["duplicate_in_prompt"].to_pylist() == [False, False]
