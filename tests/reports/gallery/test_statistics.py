"""The numbers of the report."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from t2i_core.reports.gallery.statistics import BINS, distribution
from tests.builders import image_spec


@pytest.fixture
def report(workspace, write):
    """Write a gallery and read its report: `report(finished)`."""

    def read(finished):
        write(finished)
        return json.loads((workspace.root / "gallery/report.json").read_text("utf-8"))

    return read


def test_a_distribution_has_mean_percentiles_and_every_value_in_a_bin():
    values = np.append(np.arange(101) / 100, [np.nan, np.inf])
    found = distribution(values)
    assert (found["images"], found["lowest"], found["median"], found["highest"]) == (101, 0, 0.5, 1)
    assert (found["p5"], found["p95"], found["mean"]) == (0.05, 0.95, 0.5)
    edges, images = found["histogram"]["edges"], found["histogram"]["images"]
    assert sum(images) == 101
    assert len(edges) == len(images) + 1 == BINS + 1


@pytest.mark.parametrize("values", [[], [np.nan]])
def test_without_values_there_is_no_distribution(values):
    assert distribution(np.array(values)) is None


@pytest.mark.parametrize("values", [[4, 4], [3, 76], [0, 1, 2], [0.5, 0.5], [-3, 400], [0, 10**4]])
def test_whole_numbers_have_bins_of_whole_numbers_and_none_is_lost(values):
    histogram = distribution(np.array(values, float))["histogram"]
    assert sum(histogram["images"]) == len(values)
    assert len(histogram["images"]) <= BINS
    if values[0] == int(values[0]):
        assert {edge % 1 for edge in histogram["edges"]} == {0.5}


def test_sizes_models_seeds_and_prompts_are_counted(report, finish):
    specs = [image_spec(0, seed=1), image_spec(0, seed=2), image_spec(1, seed=1, width=16)]
    found = report(finish(*specs, failed={image_spec(9): "out of memory"}))
    assert found["sizes"] == [{"size": "8×8", "images": 2}, {"size": "16×8", "images": 1}]
    assert found["models"] == {"demo": 3}
    assert (found["seeds"], found["prompts"]) == (3, 3)
    assert found["brightness"]["images"] == 3
    assert found["file_bytes"] > 0


def test_runs_come_in_the_order_of_their_first_image(report, finish, workspace):
    finished = finish(*map(image_spec, range(3)), facts={"seconds": 2.0})
    table = pq.read_table(finished.provenance)
    columns = {
        "run": ["late", "early", "late"],
        "created": ["2026-01-03", "2026-01-01", "2026-01-02"],
    }
    for name, values in columns.items():
        table = table.set_column(table.schema.get_field_index(name), name, pa.array(values))
    pq.write_table(table, finished.provenance)
    assert report(finished)["runs"] == [
        {"run": "early", "images": 1, "first": "2026-01-01", "last": "2026-01-01", "device_seconds": 2.0},
        {"run": "late", "images": 2, "first": "2026-01-02", "last": "2026-01-03", "device_seconds": 4.0},
    ]


def with_scores(finished, **columns):
    table = pq.read_table(finished.provenance)
    for name, values in columns.items():
        table = table.append_column(name, pa.array(values))
    pq.write_table(table, finished.provenance)
    return finished


def test_scores_are_sorted_by_in_the_gallery_and_reported(report, finish, columns, page):
    finished = finish(image_spec(0), image_spec(1))
    found = report(with_scores(finished, score_clip=[0.25, None], score_good=[True, False], score_name=["a", "b"]))
    assert set(found["scores"]) == {"score_clip", "score_good"}
    assert found["scores"]["score_clip"]["median"] == 0.25
    assert found["scores"]["score_good"]["mean"] == 0.5
    assert columns("data")["score_clip"] == [0.25, None]
    assert columns("data")["score_good"] == [1, 0]
    assert columns("details")["score_name"] == ["a", "b"]
    assert '"sortable": ["score_clip", "score_good", "brightness"' in page()


def test_a_score_that_measures_the_same_takes_the_place_of_the_thumbnail_s(report, finish, page):
    found = report(with_scores(finish(image_spec(0), image_spec(1)), score_brightness=[0.1, 0.2]))
    assert "brightness" not in found
    assert found["contrast"]["images"] == 2
    assert '"looks": ["contrast", "colour", "detail"]' in page()
    assert found["scores"]["score_brightness"]["highest"] == 0.2
