"""An output folder without a flow: a claimed workspace, and the configuration of a run over it."""

import pytest

from t2i_core.config import Config
from t2i_core.output.identity import OutputIdentity, claim_output
from t2i_core.storage.workspace import Workspace


@pytest.fixture
def workspace(tmp_path):
    """An output that a run has claimed, and into which none has written yet."""
    workspace = Workspace(tmp_path / "out")
    claim_output(workspace, OutputIdentity("prompts.jsonl", "0" * 64))
    return workspace


@pytest.fixture
def config(workspace):
    """Make the configuration of a run over `workspace`: `config(image_key="pictures")`."""

    def make(**values):
        return Config.from_values({"dataset": "prompts.jsonl", "model": "demo", "output": str(workspace.root)} | values)

    return make
