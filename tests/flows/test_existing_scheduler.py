"""A scheduler that is there already, as real processes: a worker that hangs, a late one, and what Prefect shows."""

import subprocess

import pytest

from tests.conftest import ROOT, Output, command, in_process
from tests.dask_cluster import Cluster, has_workers, until
from tests.prefect_server import client_of
from tests.workers import WHAT

pytestmark = pytest.mark.timeout(300)

TEXTS = [f"a fox number {i}" for i in range(12)]


@pytest.fixture
def cluster(server, tmp_path):
    cluster = Cluster(tmp_path)
    yield cluster
    cluster.end()


def test_a_worker_that_hangs_and_one_that_joins_late_change_nothing(cluster, server, tmp_path, output):
    dataset = tmp_path / "prompts.txt"
    dataset.write_text("".join(f"{text}\n" for text in TEXTS))
    hung = tmp_path / "hung"
    cluster.start_worker("tests.workers", OMP_NUM_THREADS="1", **{WHAT: f"hang once:{hung}"})
    flags = [f"--dataset={dataset}", f"--dask-scheduler={cluster.address}", "--save-interval=1", "--workers=1"]
    until(lambda: has_workers(cluster.address))
    log = tmp_path / "run.log"
    with log.open("w") as lines:
        run = subprocess.Popen(
            command(*flags, f"--output={output.folder}"), cwd=ROOT, stdout=lines, stderr=subprocess.STDOUT
        )
    until(lambda: hung.exists() or run.poll() is not None)
    cluster.start_worker("tests.workers", OMP_NUM_THREADS="1", **{WHAT: ""})
    assert run.wait(200) == 0, log.read_text()
    assert "was on a process that died; it is tried again" in log.read_text()
    assert "12 generated" in log.read_text()

    alone = Output(tmp_path / "alone")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        in_process(f"--dataset={dataset}", f"--output={alone.folder}", "--save-interval=1", check=0)
    assert output.pixels() == alone.pixels()
    assert output.counts() == alone.counts()
    assert output.manifest_is_true()
    # The shards that were on the process that hung are no longer shown as running.
    run_id = output.run()["run"]
    body = {"flow_runs": {"id": {"any_": [run_id]}}}

    def states():
        with client_of(server) as api:
            runs = api.post("/task_runs/filter", json=body).json()
        return [one["state_type"] for one in runs if one["name"].startswith("generate")]

    until(lambda: "CRASHED" in states() and not {"RUNNING", "PENDING"} & set(states()))
