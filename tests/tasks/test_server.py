"""The server of Prefect goes away, does not answer, is nobody's, or says that the run is cancelled."""

import signal
import subprocess
import time

import psutil
import pytest

from tasks.server import end_orphans, why_unreachable
from tests.conftest import ROOT, command, in_process
from tests.prefect_server import client_of, free_port, serve

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def fifty(tmp_path):
    path = tmp_path / "fifty.txt"
    path.write_text("".join(f"a fox number {i}\n" for i in range(50)))
    return path


def start(*arguments, stdout=subprocess.PIPE):
    return subprocess.Popen(command(*arguments), cwd=ROOT, stdout=stdout, stderr=subprocess.STDOUT, text=True)


def wait_for_images(output, process, count=2):
    """Wait until there are `count` images; return how many there are."""
    deadline = time.monotonic() + 100
    while (made := len(output.stored())) < count:
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline, "no image was made in time"
        time.sleep(0.1)
    return made


def servers_of(process):
    return [child for child in psutil.Process(process.pid).children(recursive=True) if "uvicorn" in child.cmdline()]


def test_a_server_that_is_away_for_a_while_costs_no_image(tmp_path, output, fifty):
    port = free_port()
    with serve(tmp_path / "server", port):
        process = start(
            f"--dataset={fifty}", f"--output={output.folder}", "--steps=50", "--save-interval=2", "--server-wait=180"
        )
        wait_for_images(output, process)
    made = wait_for_images(output, process, len(output.stored()) + 9)  # the shards of four images that follow
    assert made < 50, "the server was away only when all was done"
    with serve(tmp_path / "server", port) as url:
        text, _ = process.communicate(timeout=200)
        assert process.returncode == 0, text
        assert "50 generated" in text
        assert "Traceback" not in text
        with client_of(url) as api:
            (run,) = api.post("/flow_runs/filter", json={}).json()
        assert run["state"]["type"] == "COMPLETED"
        assert run["state"]["message"] == "50 images made, 0 reused"


def test_a_server_that_does_not_answer_is_one_line(output, monkeypatch):
    monkeypatch.setenv("PREFECT_API_URL", f"http://127.0.0.1:{free_port()}/api")
    done = in_process(f"--output={output.folder}", check=2)
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert "does not answer" in done.stderr
    assert "prefect server start" in done.stderr
    assert not output.folder.exists()


def test_a_cancel_in_prefect_reaches_a_run_from_the_command_line(server, output, fifty):
    process = start(f"--dataset={fifty}", f"--output={output.folder}", "--steps=200")
    wait_for_images(output, process)
    latest = {"sort": "START_TIME_DESC", "limit": 1}
    with client_of(server) as api:
        (run,) = api.post("/flow_runs/filter", json=latest).json()
        assert run["name"] == "text2image-demo-50-prompts"
        body = {"state": {"type": "CANCELLING"}, "force": True}
        api.post(f"/flow_runs/{run['id']}/set_state", json=body).raise_for_status()
        text, _ = process.communicate(timeout=200)
        state = api.get(f"/flow_runs/{run['id']}").json()["state"]
    assert process.returncode == 130, text
    assert "run the same command again to go on" in text
    assert "Traceback" not in text
    assert state["type"] == "CANCELLED"
    made = len(output.stored())
    assert state["message"] == f"stopped: {made} images made, 0 reused, {50 - made} not made yet"
    assert output.run()["state"] == "interrupted"
    assert output.manifest_is_true()


@pytest.fixture
def no_server(monkeypatch, tmp_path):
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "home"))


def test_a_killed_run_leaves_a_server_behind_that_the_next_start_ends(no_server, tmp_path, output, fifty):
    log = tmp_path / "log.txt"
    with log.open("w") as file:  # a pipe would stay open as long as the server lives
        process = start(f"--dataset={fifty}", f"--output={output.folder}", "--steps=40", stdout=file)
    wait_for_images(output, process)
    (orphan,) = servers_of(process)
    end_orphans()
    assert orphan.is_running()  # its run is alive
    process.kill()
    process.wait()
    assert "starting one for this run" in log.read_text()
    assert "PREFECT_API_URL" in log.read_text()
    assert orphan.is_running()
    assert end_orphans() >= 1  # another run on this machine may have left one behind, too
    assert not orphan.is_running()


def test_a_run_whose_own_server_is_killed_ends_at_once_and_says_that_prefect_does_not_know(no_server, output, fifty):
    process = start(f"--dataset={fifty}", f"--output={output.folder}", "--steps=20", "--limit=20", "--server-wait=600")
    wait_for_images(output, process)
    (own,) = servers_of(process)
    own.kill()
    text, _ = process.communicate(timeout=150)  # of 600 seconds
    assert process.returncode == 0, text
    assert text.count("prefect   the server of this run is gone; the run goes on without it") == 1
    assert "prefect   does not know how this run ended: the server of this run is gone" in text
    assert "Traceback" not in text
    assert "EventsWorker" not in text
    assert output.run()["state"] == "finished"
    assert output.manifest_is_true()


def test_sigterm_leaves_no_server_behind(no_server, output, fifty):
    process = start(f"--dataset={fifty}", f"--output={output.folder}", "--steps=40")
    wait_for_images(output, process)
    (own,) = servers_of(process)
    process.send_signal(signal.SIGTERM)
    text, _ = process.communicate(timeout=200)
    assert process.returncode == 143, text
    assert output.run()["state"] == "interrupted"
    psutil.wait_procs([own], timeout=100)
    assert not own.is_running()


def test_a_server_that_does_not_answer_is_named_with_the_fix(server):
    assert why_unreachable(server) == ""
    problem = why_unreachable("http://127.0.0.1:9/api")
    assert problem.startswith("does not reach Prefect's server at http://127.0.0.1:9/api (")
    assert "--host 0.0.0.0" in problem
    assert why_unreachable(server) == ""
