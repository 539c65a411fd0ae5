"""What tests of flows share."""

import pytest

from flows import generating
from flows.generating import Generating
from t2i_core.storage.run_marks import RunMarks
from tasks.process import THIS_PROCESS
from tasks.progress import Progress
from tests.answering import Processes, shards


@pytest.fixture
def generate(tmp_path, monkeypatch):
    """Generate shards of the given sizes, or those `planned`, on `count` processes: the `Generating`, and the progress
    shown."""
    monkeypatch.setattr(generating, "LOOK_SECONDS", 0.02)
    THIS_PROCESS.start_run("r1")

    def run(answer, *sizes, count=2, alive=None, engine=None, planned=None):
        engine = engine or Processes(answer, count, alive)
        marks = RunMarks(tmp_path, "r1")
        marks.begin()
        made = Generating(engine, marks)
        made.recorded = []
        shown = Progress(sum(sizes) or None)
        made(planned or shards(*sizes), engine.submit, shown, made.recorded.append)
        return made, shown, engine

    yield run
    THIS_PROCESS.stop.clear()
