"""Plans in the tests of the planner: rows of a data set, and what is written of them."""

import json
from pathlib import Path

import pytest

from t2i_core.config import Config
from t2i_core.dataset.rows import Prompt, Row
from t2i_core.models.presets import PRESETS
from t2i_core.models.sampling import resolve_sampling
from t2i_core.planning.planner import write_plan
from t2i_core.spec import GenerationSettings
from t2i_core.storage.tables import read_rows

DEMO = PRESETS["demo"]


def row(index, *texts, **fields):
    prompts = tuple(Prompt(i, text, text) for i, text in enumerate(texts))
    text = '{"images": ["mine.png"]}' if fields.get("has_images") else "{}"
    return Row(**{"index": index, "line": index + 1, "json": text, "prompts": prompts} | fields)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Where plans lie; by name, Arrow would take it for a URL."""
    monkeypatch.chdir(tmp_path)
    return Path("run-10:00/plans")


@pytest.fixture
def write(folder):
    def make(*rows, name="plan", on_segment=lambda *written: None, **values):
        config = Config.from_values({"dataset": "x.jsonl", "model": "demo", **values})
        settings = GenerationSettings(model="0" * 64, dtype="float32", sampling=resolve_sampling(config, DEMO))
        return write_plan(name, rows, folder, config, settings, DEMO, on_segment)

    return make


@pytest.fixture
def plan(write, folder):
    """Rows -> (the plan, its specs)."""

    def make(*rows, **values):
        result = write(*rows, **values)
        return result, list(read_rows(*result.specs_files(folder)))

    return make


@pytest.fixture
def rejections(write, folder):
    """Rows -> the rejection of each, or None."""

    def make(*rows, **values):
        written = read_rows(*write(*rows, **values).rows_files(folder), ["rejection"])
        return [json.loads(row["rejection"]) if row["rejection"] else None for row in written]

    return make
