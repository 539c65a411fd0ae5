"""Scoring a batch: each image is decoded once, and one that cannot be scored fails alone."""

import pytest

from t2i_core.errors import ConfigError
from t2i_core.scoring.pending import ScoreItem
from t2i_core.scoring.work import Results, decode, score_decoded
from t2i_core.storage.score_table import PIXELS, PROMPT, prompt_digest
from tests.builders import image_spec, store_image

SPECS = [image_spec(number) for number in range(3)]


class Brightest:
    """A scorer that cannot score images of one prompt."""

    name, version, reads_prompt = "brightest", "0" * 64, False

    def __init__(self, refuses="", error=ValueError):
        self.refuses, self.error = refuses, error

    def score(self, images):
        if any(image.prompt == self.refuses for image in images):
            raise self.error(["no such prompt"])
        return {"score_brightest": [int(image.pixels.max()) for image in images]}


@pytest.fixture
def items(workspace):
    return [ScoreItem(spec.key, store_image(workspace, spec).pixels_sha256, spec.prompt) for spec in SPECS]


def test_each_scorer_gets_all_images_and_the_scores_go_by_hash(workspace, items):
    one, other = score_decoded([Brightest(), Brightest()], decode(workspace.images, items))
    assert one.columns == other.columns
    table = one.table(reads_prompt=False)
    assert table[PIXELS].to_pylist() == [item.pixels_sha256 for item in items]
    assert all(200 < value < 256 for value in table["score_brightest"].to_pylist())
    assert one.table(reads_prompt=True)[PROMPT].to_pylist() == [prompt_digest(item.prompt) for item in items]


def test_an_image_that_a_scorer_cannot_score_fails_alone(workspace, items):
    whole, part = score_decoded([Brightest(), Brightest(refuses="p1")], decode(workspace.images, items))
    assert part.failures == {items[1].key: "ValueError: ['no such prompt']"}
    assert part.items == [items[0], items[2]]
    assert part.columns["score_brightest"] == [whole.columns["score_brightest"][place] for place in (0, 2)]


def test_a_scorer_that_cannot_be_used_at_all_ends_the_run(workspace, items):
    with pytest.raises(ConfigError, match="no such prompt"):
        score_decoded([Brightest(refuses="p1", error=ConfigError)], decode(workspace.images, items))


def test_a_damaged_or_missing_file_fails_for_every_scorer(workspace, items):
    workspace.images.write(items[0].key, b"torn")
    workspace.images.delete(items[2].key)
    results = score_decoded([Brightest(), Brightest()], decode(workspace.images, items))
    assert [len(result.items) for result in results] == [1, 1]
    assert set(results[0].failures) == {items[0].key, items[2].key}
    assert all("run text2image, which makes it again" in reason for reason in results[1].failures.values())


def test_a_column_that_some_batches_lack_is_null_there():
    a, b, c = (ScoreItem(letter * 64, letter * 64, "") for letter in "abc")
    results = Results()
    results.add([a], {"score_x": [1.0]})
    results.add([b], {"score_y": ["two"]})
    results.add([c], {"score_x": [3.0], "score_y": [None]})
    table = results.table(reads_prompt=False)
    assert (table["score_x"].to_pylist(), table["score_y"].to_pylist()) == ([1.0, None, 3.0], [None, "two", None])


@pytest.mark.parametrize("values", [[1.0, "two"], [True, 2.0]])
def test_a_column_of_different_types_is_refused_in_one_line(values):
    results = Results()
    results.add([ScoreItem(letter * 64, letter * 64, "") for letter in "ab"], {"score_x": values})
    with pytest.raises(ConfigError, match="score: score_x gives numbers for some images and texts for others"):
        results.table(reads_prompt=False)
