"""Ctrl-C and SIGTERM: stop at the next step, keep what is done, say how to go on."""

import os
import signal
import subprocess
import sys
import time

import pytest
from prefect import get_client
from prefect.client.schemas.objects import StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.states import Cancelling

from flows.command import ExitCode
from t2i_core.bundled import DEMO_MODEL
from tests.conftest import ROOT, command
from tests.fake_hub import connected_hub, read_tree

pytestmark = pytest.mark.timeout(300)

# To a shell both are 130: Python ends by the signal itself when Ctrl-C came while it ran code that libraries make from
# text on import (dataclasses), whatever was caught after that.
CTRL_C = {130, -signal.SIGINT}


@pytest.fixture(autouse=True)
def ctrl_c():
    """Ctrl-C counts: a shell ignores it for what it starts in the background, children of this test included."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def start(*arguments, program=None, environment=None):
    """Start the flow; or a `program` in Python that does so, which gets the flags."""
    return subprocess.Popen(
        [sys.executable, "-c", program, *command(*arguments)[3:]] if program else command(*arguments),
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.parametrize(("number", "codes"), [(signal.SIGINT, CTRL_C), (signal.SIGTERM, {143, -signal.SIGTERM})])
def test_a_stop_keeps_what_is_done_and_the_next_run_goes_on(run, tmp_path, output, number, codes):
    dataset = tmp_path / "prompts.txt"
    dataset.write_text("".join(f"a fox number {i}\n" for i in range(200)))
    arguments = [f"--dataset={dataset}", f"--output={output.folder}", "--steps=12", "--batch-size=2"]
    process = start(*arguments, "--save-interval=4")  # either of the first two shards may come first
    deadline = time.monotonic() + 200
    while len(output.stored()) < 4 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(number)
    text, _ = process.communicate(timeout=200)
    assert process.returncode in codes, text
    assert "Traceback" not in text
    assert "run the same command again to go on" in text
    done = len(output.stored())
    assert 4 <= done < 200
    assert output.run()["state"] == "interrupted"
    counts = output.run()["accounting"]
    assert counts["images_generated"] == done
    assert counts["images_pending"] == 200 - done
    assert output.failures() == []
    assert output.manifest_is_true()
    assert sum(len(row["images"]) for row in output.manifest()) == done
    options = {"steps": 12, "limit": 10, "replace": True}
    assert run(dataset=str(dataset), output=str(output.folder), **options).is_completed()
    counts = output.counts()
    assert counts["images_reused"] > 0
    assert counts["images_reused"] + counts.get("images_generated", 0) == 10


def test_a_stop_before_anything_is_made_ends_quietly(server, tmp_path, output):
    dataset = tmp_path / "prompts.txt"
    dataset.write_text("a fox\n" * 50)
    process = start(f"--dataset={dataset}", f"--output={output.folder}")
    deadline = time.monotonic() + 200
    while not (output.folder / ".t2i").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    text, _ = process.communicate(timeout=200)
    assert process.returncode in CTRL_C | {0}, text
    assert "Traceback" not in text


# A model whose third batch takes ten minutes for one denoising step.
STUCK = """
import sys, time
from t2i_core.engine.quiet import silence_libraries
silence_libraries()
import flows.text2image
from flows.cli import main
from t2i_core.engine.flux import FluxStages
flows.text2image.STOP_SECONDS = 2
original, calls = FluxStages.denoise, []
def denoise(self, specs, on_step):
    calls.append(1)
    if len(calls) == 3:
        print("stuck", flush=True)
        time.sleep(600)
    return original(self, specs, on_step)
FluxStages.denoise = denoise
sys.exit(main(sys.argv[1:]))
"""


def test_a_device_that_hangs_ends_the_run_which_writes_what_there_is(server, tmp_path, output):
    dataset = tmp_path / "prompts.txt"
    dataset.write_text("".join(f"a fox number {i}\n" for i in range(40)))
    # The limit is that of a GPU, and counts from the step that hangs on, however slow this machine is before.
    soon = STUCK.replace("flows.text2image.STOP_SECONDS = 2", "")
    now = "from tasks import process; process.HANG_SECONDS = 3; process.THIS_PROCESS.may_hang = True"
    soon = soon.replace('print("stuck"', f'{now}; print("stuck"')
    process = start(f"--dataset={dataset}", f"--output={output.folder}", "--save-interval=1", program=soon)
    text, _ = process.communicate(timeout=200)
    assert process.returncode == ExitCode.MANY_FAILURES, text
    assert "the device hangs: no step and no image" in text
    assert "Traceback" not in text
    assert output.manifest_is_true()
    counts = output.run()["accounting"]
    assert counts["images_generated"] == len(output.stored()) == 4
    assert len(output.failures()) == counts["images_failed"] == 36


@pytest.mark.parametrize("own_server", [False, True])
@pytest.mark.parametrize(("number", "codes"), [(signal.SIGINT, CTRL_C), (signal.SIGTERM, {143, -signal.SIGTERM})])
def test_a_step_that_does_not_end_is_not_waited_for(server, tmp_path, output, number, codes, own_server):
    dataset = tmp_path / "prompts.txt"
    dataset.write_text("".join(f"a fox number {i}\n" for i in range(8)))
    environment = dict(os.environ)
    if own_server:
        environment = {name: value for name, value in environment.items() if not name.startswith("PREFECT_")}
        environment["PREFECT_HOME"] = str(tmp_path / "home")
    arguments = [f"--dataset={dataset}", f"--output={output.folder}", "--save-interval=1"]
    process = start(*arguments, program=STUCK, environment=environment)
    for line in process.stdout:
        if line.strip().endswith("stuck"):
            break
    process.send_signal(number)
    text, _ = process.communicate(timeout=200)
    assert process.returncode in codes, text
    assert "Traceback" not in text
    assert "run the same command again to go on" in text
    assert output.run()["state"] == "interrupted"
    assert output.run()["accounting"]["images_generated"] == len(output.stored()) == 4
    assert output.manifest_is_true()


def cancel_in_prefect():
    """Cancel the flow run that was started last, as a button in Prefect does; return its id."""
    with get_client(sync_client=True) as client:
        (run,) = client.read_flow_runs(limit=1, sort=FlowRunSort.EXPECTED_START_TIME_DESC)
        client.set_flow_run_state(run.id, Cancelling())
    return run.id


def state_of(run):
    with get_client(sync_client=True) as client:
        return client.read_flow_run(run).state


@pytest.fixture
def ending():
    """Processes of a test, which end with it."""
    processes = []
    yield processes
    for process in processes:
        process.kill()


# Something before the images waits for long.
WAITS = """
import sys, time
import flows.text2image
from flows.cli import main
def wait(*arguments):
    print("it waits", flush=True)
    time.sleep(600)
flows.text2image.resolve = wait
sys.exit(main(sys.argv[1:]))
"""


def test_a_cancel_in_prefect_is_heeded_before_images_are_made_too(server, tmp_path, output, ending):
    dataset = tmp_path / "prompts.txt"
    dataset.write_text("a fox\n")
    process = start(f"--dataset={dataset}", f"--output={output.folder}", program=WAITS)
    ending.append(process)
    assert any(line == "it waits\n" for line in process.stdout)
    run = cancel_in_prefect()
    text, _ = process.communicate(timeout=100)
    assert process.returncode == ExitCode.INTERRUPTED, text
    assert "Traceback" not in text
    assert (state_of(run).type, state_of(run).message) == (StateType.CANCELLED, "stopped: it was cancelled")


@pytest.mark.parametrize("how", ["Ctrl-C", "SIGTERM", "cancel"])
def test_a_model_that_is_half_fetched_is_not_waited_for(server, tmp_path, output, monkeypatch, ending, how):
    dataset = tmp_path / "prompts.txt"
    dataset.write_text("a fox\n")
    with connected_hub(monkeypatch) as hub:
        hub.slow = ".safetensors"
        hub.repository("owner/tiny").commit(read_tree(DEMO_MODEL))
        arguments = ["--model=owner/tiny", f"--cache-dir={tmp_path / 'cache'}"]
        environment = os.environ | {"HF_HUB_OFFLINE": "0"}
        process = start(f"--dataset={dataset}", f"--output={output.folder}", *arguments, environment=environment)
        ending.append(process)
        assert hub.slow_began.wait(100)
        if how == "cancel":
            run, codes = cancel_in_prefect(), {ExitCode.INTERRUPTED}
        else:
            number = signal.SIGINT if how == "Ctrl-C" else signal.SIGTERM
            process.send_signal(number)
            codes = CTRL_C if how == "Ctrl-C" else {143, -signal.SIGTERM}
        text, _ = process.communicate(timeout=60)
        assert process.returncode in codes, text
        assert "Traceback" not in text
        assert "run the same command again to go on" in text
        if how == "cancel":
            assert state_of(run).type is StateType.CANCELLED


def test_a_second_ctrl_c_leaves_at_once_and_says_what_is_missing(server, tmp_path, output):
    dataset = tmp_path / "prompts.txt"
    dataset.write_text("".join(f"a fox number {i}\n" for i in range(8)))
    patient = STUCK.replace("STOP_SECONDS = 2", "STOP_SECONDS = 600")
    process = start(f"--dataset={dataset}", f"--output={output.folder}", "--save-interval=1", program=patient)
    text = ""
    for line in process.stdout:
        text += line
        if line.strip().endswith("stuck"):
            process.send_signal(signal.SIGINT)
        if line.startswith("stopping"):
            break
    process.send_signal(signal.SIGINT)
    text += process.communicate(timeout=100)[0]
    assert process.returncode in CTRL_C, text
    assert "Ctrl-C once more leaves at once" in text
    assert f"stopped   at once: there is no {output.folder}/manifest.jsonl; images that were made are kept" in text
    assert "Traceback" not in text
    assert not (output.folder / "manifest.jsonl").exists()
    assert len(output.stored()) == 4


# A model whose every shard fails, and waits for its next try for longer than anybody has patience.
FAILING = """
import sys
from t2i_core.engine.quiet import silence_libraries
silence_libraries()
import tasks.caching
tasks.caching.RETRY_SECONDS = [600]
from flows.cli import main
from t2i_core.engine.flux import FluxStages
def denoise(self, specs, on_step):
    print("failing", flush=True)
    raise OSError(5, "Input/output error")
FluxStages.denoise = denoise
sys.exit(main(sys.argv[1:]))
"""


def test_a_shard_that_waits_for_its_next_try_is_not_waited_for(server, tmp_path, output):
    dataset = tmp_path / "prompts.txt"
    dataset.write_text("a fox\n")
    process = start(f"--dataset={dataset}", f"--output={output.folder}", "--retries=1", program=FAILING)
    text = ""
    for line in process.stdout:
        text += line
        if line.strip().endswith("failing"):
            break
    time.sleep(5)  # for it to wait
    process.send_signal(signal.SIGINT)
    text += process.communicate(timeout=100)[0]
    assert process.returncode in CTRL_C, text
    assert output.run()["state"] == "interrupted"
