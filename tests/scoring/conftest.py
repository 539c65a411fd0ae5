"""An output with a few stored images, and the scores that are known of them."""

import pyarrow as pa
import pytest

from t2i_core.storage.score_table import PIXELS, PROMPT, Scores
from t2i_core.storage.workspace import Workspace


@pytest.fixture
def workspace(tmp_path):
    return Workspace(tmp_path / "out")


@pytest.fixture
def scores():
    """Scores of images, by the hashes of their pixels, and of prompts where these are given."""

    def make(pixels=(), prompts=None, **columns):
        table = {PIXELS: pa.array(pixels, pa.string())} | columns
        if prompts is not None:
            table[PROMPT] = pa.array(prompts, pa.string())
        return Scores.of(pa.table(table), reads_prompt=prompts is not None)

    return make
