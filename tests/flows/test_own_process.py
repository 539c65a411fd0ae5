"""The process of a run with one device: the same images as from the run's own, whatever ends it."""

import os
import signal
import sys
import threading
import time
from concurrent.futures import Future

import psutil
import pytest

from flows import own_process, served
from flows.own_process import OwnProcess
from flows.served import ProcessDied, Served
from flows.workers import RunToJoin
from t2i_core.errors import ConfigError, MeasureFailed
from tasks import serving
from tasks.server_wait import WAIT
from tests.answering_dask import told
from tests.conftest import Output, in_process
from tests.flows.test_workers import TEXTS, start
from tests.workers import POISON

pytestmark = pytest.mark.timeout(300)

RUN = RunToJoin("r1", "/shared/out", "auto", ("torch",), None)


def flags(dataset, output):
    return [f"--dataset={dataset}", f"--output={output.folder}", "--workers=1", "--save-interval=1"]


@pytest.fixture(scope="module")
def here(server, tmp_path_factory):
    """A data set, and the output of a run that made it in its own process."""
    folder = tmp_path_factory.mktemp("here")
    (folder / "prompts.txt").write_text("\n".join(TEXTS) + "\n")
    output = Output(folder / "out")
    in_process(*flags(folder / "prompts.txt", output)[:2], "--workers=0", "--save-interval=1", check=0)
    return folder / "prompts.txt", output


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("kill once", "was killed (SIGKILL; perhaps memory was short)\n"),
        ("lose once", "ended itself: its device is lost to it\n"),
        ("stop once", "gave no sign of life for 8 s, and was killed\n"),
    ],
)
def test_whatever_ends_the_process_the_images_are_those_of_the_run_s_own(here, tmp_path, output, what, said):
    dataset, expected = here
    run = start(f"{what}:{tmp_path / 'once'}", *flags(dataset, output))
    text, _ = run.communicate(timeout=200)
    assert run.returncode == 0, text
    assert said in text
    assert (tmp_path / "once").exists()
    assert "another process is started" in text
    assert "by 1 worker" not in text
    assert output.pixels() == expected.pixels()
    assert output.counts() == expected.counts()
    assert output.manifest_is_true()
    assert not list((output.folder / ".t2i" / "running").iterdir())
    assert "torch is in the flow's own process: False\n" in text


def test_an_image_that_kills_the_process_is_a_failure_and_its_mates_are_made(server, prompts, output):
    dataset = prompts("a cat", POISON, "a fox", "a boat")
    run = start("poison", *flags(dataset, output))
    text, _ = run.communicate(timeout=280)
    assert run.returncode == 3, text
    (failure,) = output.failures()
    assert (failure["row"], failure["reason"]) == (1, "its process died whenever it was made, 2 times alone")
    assert len(output.stored()) == 3
    assert output.manifest_is_true()
    # The next run knows it, and kills no process.
    again = start("poison", *flags(dataset, output))
    text, _ = again.communicate(timeout=200)
    assert again.returncode == 3, text
    assert "died" not in text
    assert output.failures() == [failure]
    assert output.run()["accounting"]["images_reused"] == 3


def test_where_each_process_ends_before_it_makes_anything_the_run_ends_and_says_how(server, prompts, output):
    texts = [f"a fox number {i}" for i in range(20)]
    run = start("crash", *flags(prompts(*texts), output))
    text, _ = run.communicate(timeout=280)
    assert run.returncode == 3, text
    assert "4 processes died, one after another, and made no image; the last one was ended by SIGABRT; run the" in text
    assert len(output.failures()) == 20


def test_a_device_that_is_lost_to_the_run_s_own_process_ends_the_run_in_one_line(here, output):
    dataset, _ = here
    run = start("lose", f"--dataset={dataset}", f"--output={output.folder}", "--workers=0", "--save-interval=1")
    text, _ = run.communicate(timeout=200)
    assert run.returncode == 3, text
    assert "workers   device: auto is lost to this process (CUDA error: an illegal memory access" in text
    assert "Traceback" not in text
    assert output.manifest_is_true()
    assert len(output.stored()) + len(output.failures()) == len(TEXTS)


def test_a_process_that_never_gets_ready_ends_the_run_in_one_line(server, prompts, output):
    run = start("fail", *flags(prompts("a fox"), output))
    text, _ = run.communicate(timeout=200)
    assert run.returncode == 2, text
    assert text.count("ended with exit code 7\n") == 3
    assert "workers: the process that generates ended with exit code 7, 3 times" in text
    assert "Traceback" not in text


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_the_process_does_not_outlive_its_run(server, prompts, output, number):
    run = start("", *flags(prompts(*(f"a fox number {i}" for i in range(500))), output), "--steps=8")
    deadline = time.monotonic() + 120
    while len(output.stored()) < 4 and run.poll() is None and time.monotonic() < deadline:
        time.sleep(0.1)
    children = psutil.Process(run.pid).children(recursive=True)
    if number == signal.SIGTERM:  # as Slurm does, to all processes of a job
        for child in children:
            child.send_signal(number)
    run.send_signal(number)
    text, _ = run.communicate(timeout=100)
    assert children, text
    _, alive = psutil.wait_procs(children, timeout=30)
    assert alive == []
    if number != signal.SIGKILL:
        assert "Traceback" not in text
        assert "run the same command again to go on" in text
        assert output.run()["accounting"]["images_generated"] == len(output.stored()) >= 4
        assert "died" not in text
        assert output.manifest_is_true()


class Unreadable(Exception):
    """An error as libraries have them: it cannot be made again from what it is pickled to."""

    def __init__(self, message, *, response):
        super().__init__(message)


def unreadable():
    return Unreadable("no", response=None)


def fail_unreadably():
    raise Unreadable("no", response=None)


class Stub:
    """A process as a test says."""

    def __init__(self, answer=None):
        self.answer, self.died, self.title, self.started, self.silent = answer, None, "process 7", time.monotonic(), 0.0
        self.called, self.killed = [], False

    def call(self, function, *arguments, **named):
        self.called.append(function.__name__)
        future = Future()
        if isinstance(self.answer, Exception):
            future.set_exception(self.answer)
        elif self.answer is not None:
            future.set_result(self.answer)
        return future

    def silent_seconds(self):
        return self.silent

    def kill(self, why):
        self.killed = True
        self.died = ProcessDied(why)

    def end(self):
        pass


@pytest.fixture
def own(monkeypatch):
    """`own(process, ...)`: the workers of a run that started those processes, one after the other."""
    monkeypatch.setattr(own_process, "PAUSE_SECONDS", 0.0)

    def started(*processes):
        coming = iter(processes)
        monkeypatch.setattr(own_process, "Served", lambda: next(coming))
        workers = OwnProcess("http://here/api")
        workers.start(RUN)
        return workers

    return started


def test_a_process_gets_shards_once_it_said_who_it_is(own):
    waiting = Stub()
    workers = own(waiting)
    assert (workers.places(), workers.hopeful(), waiting.called) == ([], True, ["join"])
    workers = own(Stub(told()))
    assert workers.places() == ["process 7"]
    assert (workers.device(), workers.versions(), workers.hopeful()) == ("H100", {"torch": told().versions["torch"]}, 0)


def test_what_is_wrong_with_the_machine_is_said_as_it_is(own):
    with pytest.raises(ConfigError, match=r"^device: torch finds no cuda here$"):
        own(Stub(ConfigError(["device: torch finds no cuda here"]))).places()
    with pytest.raises(ConfigError, match=r"^workers: it cannot write to /shared$"):
        own(Stub(told(problem="cannot write to /shared"))).places()


def test_a_process_that_finds_another_device_is_not_used_and_the_next_one_may_be(own, caplog):
    first, second, third = Stub(told()), Stub(told(device="cpu")), Stub(told())
    workers = own(first, second, third)
    assert workers.places() == ["process 7"]
    first.died = ProcessDied("was killed")
    assert workers.places() == []
    assert workers.places() == []
    assert second.killed
    assert "cannot be used: workers: it has a cpu, and the one before had a H100" in caplog.text
    assert workers.places() == []
    assert workers.places() == ["process 7"]


def test_a_machine_on_which_no_process_gets_ready_any_more_gives_no_hope(own):
    first = Stub(told())
    *bad, last = [Stub() for _ in range(own_process.EARLY_DEATHS + 1)]
    workers = own(first, *bad, last)
    assert workers.places()
    for process in (first, *bad):
        process.died = ProcessDied("was killed")
        assert workers.places() == []
        assert workers.hopeful() == (process in (first, *bad[: own_process.EARLY_DEATHS - 1]))
    assert workers.troubles() == "; the last one was killed"


def test_only_a_process_that_is_silent_for_long_and_then_still_is_killed(own, monkeypatch):
    process = Stub(told())
    workers = own(process, Stub())
    process.silent = own_process.SILENT_SECONDS + 1
    workers.places()
    assert not process.killed
    process.silent = 1.0  # this process had been stopped, and reads now
    workers.places()
    process.silent = own_process.SILENT_SECONDS + 1
    workers.places()
    workers.places()
    assert not process.killed
    monkeypatch.setattr(own_process, "DOUBT_SECONDS", 0.0)
    workers.places()
    assert process.killed


@pytest.mark.parametrize("said", [True, False])
def test_a_process_is_killed_as_late_only_if_it_did_not_say_who_it_is(own, said):
    process = Stub(told() if said else None)
    workers = own(process, Stub())
    process.started -= own_process.READY_SECONDS + 1  # the flow fetched a model meanwhile
    assert workers.places() == (["process 7"] if said else [])
    assert process.killed == (not said)


def test_the_process_is_told_once_that_the_server_is_gone(own, monkeypatch):
    process = Stub(told())
    workers = own(process)
    monkeypatch.setattr(WAIT, "is_gone", lambda: True)
    workers.places()
    workers.places()
    assert process.called == ["join", "forget_server"]


def test_a_measurement_is_tried_in_another_process_and_then_given_up(own, monkeypatch):
    processes = [Stub(told()), Stub(told()), Stub(told())]
    workers = own(*processes)

    class Died:
        task_run_id = None
        wrapped_future = property(lambda self: self)

        def __init__(self, process):
            process.died = ProcessDied("was killed")

        def done(self):
            return True

        def result(self):
            raise ProcessDied("was killed")

    monkeypatch.setattr(workers, "submit", lambda task, place: Died(workers._runner.served))
    monkeypatch.setattr(workers._lost_runs, "note", lambda run: None)
    with pytest.raises(MeasureFailed, match=r"^the process was killed, 2 times$"):
        workers.call(None)


def test_calls_are_made_by_a_real_process_and_errors_come_back():
    process = Served()
    try:
        assert process.call(divmod, 7, 2).result(60) == (3, 1)
        with pytest.raises(ZeroDivisionError):
            process.call(divmod, 7, 0).result(60)
        with pytest.raises(serving.CallFailed, match="cannot be sent"):
            process.call(threading.Lock).result(60)
        with pytest.raises(serving.CallFailed, match="SystemExit: 5"):
            process.call(sys.exit, 5).result(60)
        with pytest.raises(serving.CallFailed, match=r"its answer cannot be read \(TypeError"):
            process.call(unreadable).result(60)
        with pytest.raises(serving.CallFailed, match="its answer cannot be read"):
            process.call(fail_unreadably).result(60)
        pid = process.call(os.getpid).result(60)
        waiting = process.call(time.sleep, 60)
        assert process.silent_seconds() < serving.ALIVE_SECONDS + 5
    finally:
        process.end()
    with pytest.raises(ProcessDied, match=r"^ended with exit code 0$"):
        waiting.result(10)
    assert not psutil.pid_exists(pid)
    with pytest.raises(ProcessDied):
        process.call(os.getpid).result(10)


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (-9, "was killed (SIGKILL; perhaps memory was short)"),
        (-11, "was ended by SIGSEGV"),
        (75, "ended itself: its device made no step for 1800 s"),
        (76, "ended itself: its device is lost to it"),
        (1, "ended with exit code 1"),
    ],
)
def test_how_a_process_ended_is_said(code, said):
    assert served._why(code) == said
