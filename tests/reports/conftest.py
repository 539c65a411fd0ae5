"""An output with images and the report of a run over it, made without a flow."""

import pytest

from t2i_core.config import Config
from t2i_core.models.identity import ModelFile, ResolvedModel
from t2i_core.models.presets import PRESETS
from t2i_core.output.accounting import Accounting
from t2i_core.planning.catalog import Unreferenced
from t2i_core.planning.shards import WorkEstimate
from t2i_core.reports.report import Report
from t2i_core.storage.workspace import Workspace

MODEL = ResolvedModel(
    name="demo",
    source="bundled",
    location="/models/demo",
    commit=None,
    identity="1" * 64,
    pipeline_class="FluxPipeline",
    files=(ModelFile("vae/a.safetensors", "2" * 64, 5),),
    licence="Apache-2.0",
)
WORK = WorkEstimate(images=3, batches=2, shards=1, batch_size=2, pixels=192, pixel_steps=768)


@pytest.fixture
def workspace(tmp_path):
    return Workspace(tmp_path / "out")


@pytest.fixture
def report(workspace):
    """Make the report of a run: `report(prune=True, state="interrupted", accounting=Accounting(...))`.

    What is no field of the report is an option of the run.
    """

    def make(**values):
        options = {name: values.pop(name) for name in list(values) if name in Config.model_fields and name != "model"}
        config = Config.from_values(
            {"dataset": "prompts.jsonl", "model": "demo", "output": str(workspace.root)} | options
        )
        defaults = {
            "state": "finished", "run": "r1", "config": config, "model": MODEL, "preset": PRESETS["demo"], "work": WORK,
            "accounting": Accounting(), "startup_seconds": 0.0, "seconds": 12.34, "generating_seconds": 4.0,
            "timings": {}, "unreferenced": Unreferenced([], 0, []),
        }  # fmt: skip
        return Report(**defaults | values)

    return make
