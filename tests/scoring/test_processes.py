"""Scoring in this process and in several: the same scores."""

import os
import signal

import pytest

from t2i_core.errors import ConfigError
from t2i_core.options.score import ScorerRequest, parse_scorer
from t2i_core.scoring.built_in import make_scorer
from t2i_core.scoring.pending import ScoreItem
from t2i_core.scoring.processes import BATCH, scoring_here, scoring_processes
from tests.builders import image_spec, store_image


@pytest.fixture
def items(workspace):
    specs = [image_spec(number) for number in range(BATCH + 3)]
    return [ScoreItem(spec.key, store_image(workspace, spec).pixels_sha256, spec.prompt) for spec in specs]


def test_processes_score_as_this_one_does_and_keep_the_order(workspace, items):
    requests = [ScorerRequest("stats"), ScorerRequest("phash")]
    here = list(scoring_here([make_scorer(request) for request in requests], workspace.images)((1, 0), items))
    with scoring_processes(requests, workspace.images, 2) as score:
        assert list(score((1, 0), items)) == here
    assert [len(batch[0].items) for batch in here] == [BATCH, 3]
    assert list(here[0][0].columns) == ["score_phash"]
    assert [item for batch in here for item in batch[0].items] == items


def test_a_process_that_the_system_ends_is_told_in_one_line(workspace, items, tmp_path):
    (tmp_path / "deadly.py").write_text(f"import os\ndef die(images): os.kill(os.getpid(), {signal.SIGKILL:d})\n")
    request = parse_scorer(f"{tmp_path / 'deadly.py'}:die")
    with (
        pytest.raises(ConfigError, match="processes: the system ended one of 1 processes"),
        scoring_processes([request], workspace.images, 1) as score,
    ):
        list(score((0,), items))
    assert os.getpid()
