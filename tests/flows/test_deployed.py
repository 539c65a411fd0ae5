"""Deployments against the real thing: a server, a work pool, a worker, triggers by API, a schedule, a cancel, kills."""

import os
import re
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
import pytest

from tests.conftest import ROOT, Output
from tests.prefect_server import client_of

pytestmark = pytest.mark.timeout(300)

POOL = "t2i"
TOKEN = "hf_this_must_never_be_seen"


class Prefect:
    """The server's REST API, and the command line in a folder of its own."""

    def __init__(self, url, folder):
        self.http = client_of(url)
        self.home = folder / "home"
        self.home.mkdir()
        self.environment = os.environ | {"HF_TOKEN": TOKEN, "PREFECT_WORKER_QUERY_SECONDS": "1"}
        self.worker_log = folder / "worker.log"

    def command(self, *arguments):
        done = subprocess.run(
            [sys.executable, "-m", "prefect", "--no-prompt", *arguments],
            cwd=self.home,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def start_worker(self):
        with self.worker_log.open("a") as log:
            self.worker = subprocess.Popen(
                [sys.executable, "-m", "prefect", "worker", "start", "--pool", POOL],
                cwd=self.home,
                env=self.environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def processes(self):
        """Those of the worker's runs."""
        return psutil.Process(self.worker.pid).children(recursive=True)

    def kill_worker(self):
        for process in [*self.processes(), self.worker]:
            process.kill()
        self.worker.wait()

    def deployment(self, name):
        return self.http.get(f"/deployments/name/text2image/{name}").raise_for_status().json()

    def trigger(self, name, **parameters):
        path = f"/deployments/{self.deployment(name)['id']}/create_flow_run"
        return self.http.post(path, json={"parameters": parameters}).raise_for_status().json()["id"]

    def run(self, run):
        return self.http.get(f"/flow_runs/{run}").raise_for_status().json()

    def wait(self, run, *types, seconds=200):
        """The flow run, once its state has one of these types."""
        types = types or ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
        deadline = time.monotonic() + seconds
        while (found := self.run(run))["state"]["type"] not in types:
            assert time.monotonic() < deadline, (found["state"], self.worker_log.read_text()[-3000:])
            time.sleep(0.3)
        return found

    def set_state(self, run, kind):
        body = {"state": {"type": kind}, "force": True}
        self.http.post(f"/flow_runs/{run}/set_state", json=body).raise_for_status()

    def artifacts(self, run):
        body = {"artifacts": {"flow_run_id": {"any_": [run]}}}
        return {found["type"]: found for found in self.http.post("/artifacts/filter", json=body).json()}

    def logs(self, run):
        body = {"logs": {"flow_run_id": {"any_": [run]}}, "sort": "TIMESTAMP_ASC"}
        return self.http.post("/logs/filter", json=body).raise_for_status().json()


@pytest.fixture(scope="module")
def prefect(server, tmp_path_factory):
    """Everything of docs/deploy.md: a pool for one run at a time, all deployments, a worker."""
    prefect = Prefect(server, tmp_path_factory.mktemp("deployed"))
    prefect.command("work-pool", "create", POOL, "--type", "process")
    prefect.command("work-pool", "set-concurrency-limit", POOL, "1")
    prefect.command("deploy", "--all", "--prefect-file", str(ROOT / "prefect.yaml"))
    prefect.start_worker()
    yield prefect
    prefect.kill_worker()
    prefect.http.close()


@pytest.fixture
def many(tmp_path):
    """A data set that takes long enough to be stopped."""
    path = tmp_path / "many.txt"
    path.write_text("".join(f"a fox number {i}\n" for i in range(400)))
    return {"dataset": str(path), "output": str(tmp_path / "out"), "batch_size": 2, "steps": 40}


def eventually(true, seconds=200):
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.2)


def wait_for_images(output, count):
    eventually(lambda: len(output.stored()) >= count)


def our_lines(prefect, run):
    return [log["message"] for log in prefect.logs(run) if log["name"].startswith(("flows", "tasks", "t2i_core"))]


def test_all_deployments_are_there_and_only_nightly_has_a_schedule_switched_off(prefect):
    found = {name: prefect.deployment(name) for name in ("demo", "flux-dev", "flux-dev-8gpu", "nightly")}
    assert all(deployment["enforce_parameter_schema"] for deployment in found.values())
    assert {name: [s["active"] for s in d["schedules"]] for name, d in found.items()} == {
        "demo": [],
        "flux-dev": [],
        "flux-dev-8gpu": [],
        "nightly": [False],
    }
    assert found["nightly"]["concurrency_options"]["collision_strategy"] == "CANCEL_NEW"
    eight = found["flux-dev-8gpu"]["parameters"]
    assert eight | {"output": ""} == found["flux-dev"]["parameters"] | {"output": "", "workers": 8}
    assert eight["output"] != found["flux-dev"]["parameters"]["output"]
    assert found["flux-dev"]["parameters"] | {"output": ""} == {
        "model": "flux-dev",
        "steps": 20,
        "height": 512,
        "width": 512,
        "batch_size": 4,
        "output": "",
    }


def test_a_run_as_deployed_says_in_prefect_what_it_did(prefect):
    run = prefect.trigger("demo")
    done = prefect.wait(run)
    assert done["state"]["type"] == "COMPLETED", prefect.worker_log.read_text()[-3000:]
    assert done["state"]["message"] == "17 images made, 0 reused"
    assert done["name"] == "text2image-demo-15-prompts"
    assert {"model:demo", "data-set:example"} <= set(done["tags"])
    output = Output(prefect.home / "cache_local" / "demo")
    assert len(output.stored()) == 17
    artifacts = prefect.artifacts(run)
    assert set(artifacts) == {"progress", "markdown"}
    assert artifacts["progress"]["data"] == 100
    assert artifacts["progress"]["description"] == "17 of 17 images"
    summary = artifacts["markdown"]["data"]
    assert artifacts["markdown"]["key"] == "summary-example"
    assert "| images | 17 | 17 | 0 |" in summary
    assert summary.count("data:image/jpeg;base64,") == 6
    assert len(summary) < 100_000

    # Prefect stores names of tasks and log lines a little later.
    def task_names():
        body = {"task_runs": {"flow_run_id": {"any_": [run]}}}
        return [task["name"] for task in prefect.http.post("/task_runs/filter", json=body).json()]

    eventually(lambda: "generate 1/1" in task_names())
    eventually(lambda: len(our_lines(prefect, run)) >= 3)
    plan, summary, gallery = our_lines(prefect, run)
    assert gallery.startswith("gallery   ")
    assert plan.startswith("plan      14 rows")
    assert "17 generated" in summary


def test_a_partial_override_keeps_the_other_parameters_and_failures_are_a_table(prefect, tmp_path):
    dataset = tmp_path / "mixed.jsonl"
    dataset.write_text('{"conversations": "a red fox"}\n{"conversations": 5}\n')
    run = prefect.trigger("demo", dataset=str(dataset), output=str(tmp_path / "out"), public_url="http://pictures/x/")
    done = prefect.wait(run)
    assert done["parameters"]["model"] == "demo"
    assert (done["state"]["type"], done["state"]["name"]) == ("FAILED", "TooManyFailures")
    assert done["state"]["message"].startswith("1 images made, 0 reused, 1 failures: see ")
    artifacts = prefect.artifacts(run)
    assert "is neither a list of messages nor a string" in artifacts["table"]["data"]
    assert "[manifest](http://pictures/x/manifest.jsonl)" in artifacts["markdown"]["data"]
    assert not [log for log in prefect.logs(run) if "Traceback" in log["message"]]


def test_a_value_out_of_bounds_is_refused_before_a_run_is_made(prefect):
    path = f"/deployments/{prefect.deployment('demo')['id']}/create_flow_run"
    answer = prefect.http.post(path, json={"parameters": {"batch_size": 0}})
    assert answer.status_code == 409
    assert "batch_size" in answer.text


def test_a_schedule_fires(prefect):
    # With what was made before: nothing is made twice. On a slow machine the first time may be over once it is stored.
    deployment = prefect.deployment("demo")["id"]
    soon, interval = datetime.now(UTC) + timedelta(seconds=4), timedelta(seconds=100)
    schedule = {"schedule": {"interval": 100, "anchor_date": soon.isoformat()}, "active": True}
    made = prefect.http.post(f"/deployments/{deployment}/schedules", json=[schedule]).raise_for_status().json()
    body = {"flow_runs": {"deployment_id": {"any_": [deployment]}}, "sort": "EXPECTED_START_TIME_ASC"}

    def scheduled():
        return [run for run in prefect.http.post("/flow_runs/filter", json=body).json() if run["auto_scheduled"]]

    eventually(scheduled)
    done = prefect.wait(scheduled()[0]["id"])
    path = f"/deployments/{deployment}/schedules/{made[0]['id']}"
    prefect.http.delete(path).raise_for_status()
    expected = datetime.fromisoformat(done["expected_start_time"])
    assert (expected - soon + timedelta(seconds=1)) % interval < timedelta(seconds=2)
    assert datetime.fromisoformat(done["start_time"]) >= expected
    assert re.fullmatch(r"\d+ images made, \d+ reused", done["state"]["message"])


def test_a_cancel_stops_and_leaves_a_true_manifest(prefect, many):
    run, output = prefect.trigger("demo", **many), Output(many["output"])
    wait_for_images(output, 2)
    prefect.set_state(run, "CANCELLING")
    done = prefect.wait(run, "CANCELLED", seconds=200)
    assert done["state"]["name"] == "Cancelled"
    eventually(lambda: len(our_lines(prefect, run)) >= 2)
    assert not [log for log in prefect.logs(run) if log["level"] >= 40]
    assert output.run()["state"] == "interrupted"
    assert output.counts()["images_generated"] == len(output.stored()) < 400
    assert output.manifest_is_true()
    assert "## Stopped" in prefect.artifacts(run)["markdown"]["data"]


def test_sigterm_of_the_run_itself_as_under_kubernetes(prefect, many):
    run, output = prefect.trigger("demo", **many), Output(many["output"])
    wait_for_images(output, 2)
    (engine,) = [child for child in prefect.processes() if "prefect.engine" in child.cmdline()]
    engine.terminate()
    assert prefect.wait(run)["state"]["type"] == "CRASHED"
    assert output.run()["state"] == "interrupted"
    assert output.manifest_is_true()


def test_after_a_killed_worker_the_next_run_goes_on(prefect, many):
    many["save_interval"] = 2  # the two shards that are begun at once are rows 0 to 7, the next is 8 to 11
    first, output = prefect.trigger("demo", **many), Output(many["output"])
    wait_for_images(output, 4)
    prefect.kill_worker()
    kept = output.stored()
    assert prefect.run(first)["state"]["type"] == "RUNNING"  # nobody is left to say otherwise
    prefect.set_state(first, "CRASHED")  # as the automation of docs/deploy.md does
    prefect.start_worker()
    assert 4 <= len(kept) < 12
    done = prefect.wait(prefect.trigger("demo", **(many | {"limit": 12})))
    assert done["state"]["message"] == f"{12 - len(kept)} images made, {len(kept)} reused"
    assert output.manifest_is_true()


def test_no_secret_reaches_the_server_or_the_output(prefect):
    files = [*Path(os.environ["PREFECT_HOME"]).rglob("*"), *prefect.home.rglob("*"), prefect.worker_log]
    read = [path for path in files if path.is_file()]
    assert any(path.name.startswith("prefect.db") for path in read)
    assert not [path for path in read if TOKEN.encode() in path.read_bytes()]
