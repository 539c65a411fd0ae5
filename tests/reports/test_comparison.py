"""Several outputs beside each other: what differs, which images are shown, and the page."""

import json
import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from t2i_core.config import Config
from t2i_core.errors import ConfigError, OutputError
from t2i_core.output.finished import read_finished
from t2i_core.output.identity import OutputIdentity, claim_output
from t2i_core.output.manifest import write_manifest
from t2i_core.reports.comparison import compare
from t2i_core.reports.comparison_page import write_comparison
from t2i_core.storage.workspace import Workspace
from tests.builders import image_spec, make_catalog, picture, store_image

HOSTILE = '</style><script>alert("x")</script> & "quotes" مرحبا'
PROMPTS = ("a fox", HOSTILE, "a cat", "a dog")


@pytest.fixture
def output(tmp_path):
    """Make a finished output over `PROMPTS`; `missing`: the number of an image that failed."""

    def make(name, scores, missing=None, prompts=PROMPTS, **settings):
        workspace = Workspace(tmp_path / name)
        claim_output(workspace, OutputIdentity("prompts.jsonl", "0" * 64))
        specs = [image_spec(number, prompt=prompt, **settings) for number, prompt in enumerate(prompts)]
        for number, spec in enumerate(specs):
            if number != missing:
                store_image(workspace, spec)
        errors = {specs[missing].key: "out of <memory>"} if missing is not None else {}
        catalog = make_catalog(workspace, *specs, errors=errors)
        values = {"dataset": "prompts.jsonl", "model": "demo", "output": str(workspace.root)}
        write_manifest(catalog, Config.from_values(values))
        table = pq.read_table(workspace.root / "images.parquet")
        pq.write_table(table.append_column("score_clip", pa.array(scores)), workspace.root / "images.parquet")
        summary = {"run": name, "state": "finished", "data_set": catalog.plan.to_summary(), "configuration": {}}
        (workspace.root / "run.json").write_text(json.dumps(summary))
        return read_finished(workspace)

    return make


@pytest.fixture
def two(output):
    return [
        output("one", [0.1, 0.2, 0.3, None], seed=1),
        output("two", [0.2, 0.2, 0.9, 0.5], missing=1, steps=9, seed=2),
    ]


def test_settings_that_differ_and_means_of_scores_are_told(two):
    found = compare(two, None, 10)
    assert (found.images, found.shared, found.identical) == ([4, 4], 4, [4, 0])
    assert found.settings == {"steps": ["4", "9"]}
    (score,) = found.scores
    assert (score.name, score.count) == ("score_clip", 3)  # the fourth has none in the first run
    assert score.means == pytest.approx([0.2, 1.3 / 3])
    assert score.higher == pytest.approx([0, 2 / 3])


def test_an_image_is_shown_with_its_difference_from_the_first_run(two):
    rows = compare(two, None, 10).rows
    assert [row[0].values["prompt"] for row in rows] == list(PROMPTS)
    assert rows[2][1].differences == {"score_clip": pytest.approx(0.6)}
    assert (rows[3][0].scores, rows[3][1].differences) == ({}, {})
    assert rows[1][1].values["error"] == "out of <memory>"


def test_those_that_differ_most_come_first_or_some_spread_over_the_data_set(two):
    assert [row[0].values["row"] for row in compare(two, "score_clip", 3).rows] == [2, 0, 1]
    assert [row[0].values["row"] for row in compare(two, "-score_clip", 1).rows] == [2]
    assert [row[0].values["row"] for row in compare(two, None, 2).rows] == [0, 3]


def test_the_same_pixels_are_seen(output):
    found = compare([output("one", [0.1] * 4), output("two", [0.1] * 4, guidance_scale=3.5)], None, 10)
    assert found.identical == [4, 4]  # the pictures of the builders follow from the seed alone
    assert all(shown.same for row in found.rows for shown in row)


def test_what_cannot_be_compared_is_refused(two, output):
    with pytest.raises(OutputError, match="have no prompt in common"):
        compare([two[0], output("three", [0.1], prompts=["another"])], None, 10)
    with pytest.raises(ConfigError, match=r"by: images\.parquet has no column score_x"):
        compare(two, "score_x", 10)
    with pytest.raises(ConfigError, match="by: prompt is no column of numbers"):
        compare(two, "prompt", 10)


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def test_the_page_has_a_column_for_each_run_and_escapes_every_text(two, tmp_path):
    counted = []
    folder = tmp_path / "comparison"
    write_comparison(folder, compare(two, "score_clip", 10), "score_clip", counted.append)
    page = (folder / "index.html").read_text("utf-8")
    assert "<script" not in page
    assert "&lt;/style&gt;&lt;script&gt;alert(" in page
    assert "out of &lt;memory&gt;" in page
    assert sum(counted) == 8
    thumbnails, originals = re.findall(r'src="([^"]+)"', page), re.findall(r'<a href="([^"]+)"', page)
    assert len(thumbnails) == len(originals) == 7
    assert all(pixels(folder / address).shape == (8, 8, 3) for address in (*thumbnails, *originals))
    assert (pixels(folder / thumbnails[0]) == picture(image_spec(seed=1))).all()
    assert (pixels(folder / originals[1]) == picture(image_spec(seed=2))).all()
    write_comparison(folder, compare(two, None, 10), None, counted.append)  # once more, into its own folder


def test_a_folder_of_somebody_else_is_left_alone(two, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/index.html").write_text("my page")
    with pytest.raises(OutputError, match="holds files that this tool did not write"):
        write_comparison(tmp_path / "mine", compare(two, None, 10), None, lambda count: None)
    assert (tmp_path / "mine/index.html").read_text() == "my page"
