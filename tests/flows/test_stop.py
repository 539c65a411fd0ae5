"""Ctrl-C and SIGTERM: stop at the next step, keep what is done, say how to go on."""

import signal
import subprocess
import time

import pytest

from tests.conftest import ROOT, command, in_process

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


def start(*arguments):
    return subprocess.Popen(
        command(*arguments),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.parametrize(("number", "codes"), [(signal.SIGINT, CTRL_C), (signal.SIGTERM, {143, -signal.SIGTERM})])
def test_a_stop_keeps_what_is_done_and_the_next_run_goes_on(server, tmp_path, output, number, codes):
    dataset = tmp_path / "prompts.txt"
    dataset.write_text("".join(f"a fox number {i}\n" for i in range(200)))
    arguments = [f"--dataset={dataset}", f"--output={output.folder}", "--steps=12", "--batch-size=2"]
    process = start(*arguments)
    deadline = time.monotonic() + 120
    while len(output.stored()) < 4 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(number)
    text, _ = process.communicate(timeout=150)
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
    again = in_process(*arguments, "--limit=10", check=0)
    assert "generated" in again.stdout


def test_a_stop_before_anything_is_made_ends_quietly(server, tmp_path, output):
    dataset = tmp_path / "prompts.txt"
    dataset.write_text("a fox\n" * 50)
    process = start(f"--dataset={dataset}", f"--output={output.folder}")
    deadline = time.monotonic() + 60
    while not (output.folder / ".t2i").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    text, _ = process.communicate(timeout=150)
    assert process.returncode in CTRL_C | {0}, text
    assert "Traceback" not in text
