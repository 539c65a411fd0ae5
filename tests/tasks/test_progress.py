"""A progress that costs no image: a bar in a terminal, lines in a log file, an artifact in Prefect."""

import re
import sys
import threading
import time
from concurrent.futures import Future
from types import SimpleNamespace

import pytest

from tasks import progress as module
from tasks.process import THIS_PROCESS
from tasks.progress import Progress, progress

SECONDS = 20


def away(*arguments, **more):
    raise ConnectionError("nobody there")


@pytest.fixture
def shown(monkeypatch):
    """What Prefect was told of the progress, without Prefect: [(percent, text)]; `changed` is notified of each."""
    told = SimpleNamespace(updates=[], changed=threading.Condition())

    def tell(percent, description):
        with told.changed:
            told.updates.append((percent, description))
            told.changed.notify_all()

    def create(percent, key, description):
        tell(percent, description)
        return key

    monkeypatch.setattr(module, "create_progress_artifact", create)
    monkeypatch.setattr(
        module, "update_progress_artifact", lambda artifact, percent, description: tell(percent, description)
    )
    return told


@pytest.fixture(autouse=True)
def quickly(monkeypatch):
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(module, "ARTIFACT_INTERVAL_SECONDS", 0.01)


def wait_for(shown, is_told):
    with shown.changed:
        assert shown.changed.wait_for(lambda: is_told(shown.updates), SECONDS), shown.updates


def eventually(true):
    deadline = time.monotonic() + SECONDS
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_a_progress_that_cannot_be_shown_costs_no_image(run, output, prompts, monkeypatch, caplog):
    monkeypatch.setattr(module, "create_progress_artifact", away)
    assert run(dataset=prompts("a fox", "a cat")).is_completed()
    assert output.counts()["images_generated"] == 2
    assert "the progress could not be shown in Prefect: ConnectionError: nobody there" in caplog.text


def test_steps_of_the_model_reach_the_progress(run, prompts, monkeypatch):
    steps = []
    monkeypatch.setattr(Progress, "note_step", lambda progress, *step: steps.append(step))
    assert run(dataset=prompts("a fox", "a cat", "a dog"), steps=2, batch_size=2).is_completed()
    assert steps == [(1, 2), (2, 2)] * 2


def test_progress_goes_by_what_shards_of_this_process_report(shown):
    with progress(4, ["prompts.jsonl"]) as counted:
        wait_for(shown, lambda updates: updates == [(0.0, "0 of 4 images")] or len(updates) > 1)
        THIS_PROCESS.on_step(1, 28)
        wait_for(shown, lambda updates: updates[-1] == (0.0, "0 of 4 images, batch 1: step 1 of 28"))
        THIS_PROCESS.on_images(2)
        THIS_PROCESS.on_images(1)
        assert counted.done == 3
        wait_for(shown, lambda updates: updates[-1][0] == 75.0)
        assert shown.updates[-1][1].startswith("3 of 4 images, ")
        assert shown.updates[-1][1].endswith(" left")
        THIS_PROCESS.on_images(1)
    assert shown.updates[-1] == (100.0, "4 of 4 images")
    THIS_PROCESS.on_images(5)  # of a later run: nobody shows it
    THIS_PROCESS.on_step(1, 2)
    assert counted.done == 4


def test_a_server_that_comes_back_is_told_of_the_progress(shown, monkeypatch, caplog):
    create, failed = module.create_progress_artifact, []

    def first_away(*arguments, **more):
        if len(failed) < 2:
            failed.append(1)
            away()
        return create(*arguments, **more)

    monkeypatch.setattr(module, "create_progress_artifact", first_away)
    with progress(4, ["prompts.jsonl"]):
        wait_for(shown, len)
    assert len(failed) == 2
    assert "the progress could not be shown in Prefect: ConnectionError: nobody there" in caplog.text


def test_a_server_that_stays_away_does_not_hold_the_run_up(monkeypatch, caplog):
    monkeypatch.setattr(module, "create_progress_artifact", away)
    with progress(4, ["prompts.jsonl"]):
        pass
    assert not [thread for thread in threading.enumerate() if thread.name == "progress"]


def test_shards_elsewhere_are_counted_whole_and_one_here_may_be_ahead():
    counted = Progress(10)
    counted.add_images(3)
    counted.reach(2)
    assert counted.done == 3
    counted.reach(8)
    assert counted.done == 8
    counted.reach(12)
    assert counted.done == 10


def test_the_speed_is_told_while_there_is_one():
    counted = Progress(4)
    assert counted.speed() == ""
    counted.add_images(2)
    counted._started = time.monotonic() - 20
    assert re.fullmatch(r", 0\.10/s, 00:(19|20) left", counted.speed())
    counted.add_images(2)
    assert counted.speed() == ""


def test_a_batch_is_counted_with_its_first_step():
    counted = Progress(8)
    assert counted.step() == ""
    for step in [(1, 2), (2, 2), (1, 2)]:
        counted.note_step(*step)
    assert counted.step() == "batch 2: step 1 of 2"


class Stream:
    """A terminal or a file, as standard error."""

    encoding = "utf-8"

    def __init__(self, monkeypatch, *, terminal):
        self.text, self.terminal, self.broken = "", terminal, False
        monkeypatch.setattr(sys, "stderr", self)

    def write(self, text):
        if self.broken:
            raise BrokenPipeError
        self.text += text
        return len(text)

    def flush(self):
        self.write("")

    def isatty(self):
        return self.terminal

    def lines(self):
        """Those of a log file without their times."""
        lines = self.text.splitlines()
        assert all(re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d progress  ", line) for line in lines), lines
        return [line[30:] for line in lines]


def test_a_log_file_gets_a_line_at_the_first_image_and_one_at_the_end(shown, monkeypatch):
    log_file = Stream(monkeypatch, terminal=False)
    with progress(400, ["prompts.jsonl"]):
        THIS_PROCESS.on_step(1, 28)
        THIS_PROCESS.on_images(4)
        eventually(lambda: log_file.text)
        THIS_PROCESS.on_images(4)
    first, last = log_file.lines()
    assert re.fullmatch(r"4 of 400 images, [\d.]+/s, [\d:]+ left, batch 1: step 1 of 28", first)
    assert last == "8 of 400 images"
    assert "\r" not in log_file.text


def test_a_log_file_of_a_slow_model_tells_its_steps(shown, monkeypatch):
    log_file = Stream(monkeypatch, terminal=False)
    monkeypatch.setattr(module, "LINE_INTERVAL_SECONDS", 0.02)
    with progress(400, ["prompts.jsonl"]):
        THIS_PROCESS.on_step(1, 28)
        eventually(lambda: "step 1 of 28" in log_file.text)
        THIS_PROCESS.on_step(2, 28)
        eventually(lambda: "step 2 of 28" in log_file.text)
    assert "0 of 400 images, batch 1: step 2 of 28" in log_file.lines()


def test_a_log_file_gets_no_more_than_a_line_in_half_a_minute(shown, monkeypatch):
    log_file = Stream(monkeypatch, terminal=False)
    assert module.LINE_INTERVAL_SECONDS == 30
    with progress(400, ["prompts.jsonl"]):
        for _ in range(10):
            THIS_PROCESS.on_images(1)
            time.sleep(0.02)
    assert len(log_file.lines()) == 2


def test_a_terminal_gets_a_bar_with_the_steps_of_the_batch_in_flight(shown, monkeypatch):
    terminal = Stream(monkeypatch, terminal=True)
    with progress(400, ["prompts.jsonl"]):
        for step in range(1, 8):
            THIS_PROCESS.on_step(step, 28)
        eventually(lambda: "0/400" in terminal.text and "batch 1: step 7 of 28" in terminal.text)
        THIS_PROCESS.on_images(4)
        eventually(lambda: "4/400" in terminal.text)
        THIS_PROCESS.on_images(396)
    assert "400/400" in terminal.text.rpartition("\r")[2]
    assert "step" not in terminal.text.rpartition("\r")[2]


@pytest.mark.parametrize("is_terminal", [True, False])
def test_a_run_outlives_its_terminal_and_its_log_file(shown, monkeypatch, is_terminal, recwarn):
    stream = Stream(monkeypatch, terminal=is_terminal)
    with progress(4, ["prompts.jsonl"]) as counted:
        THIS_PROCESS.on_images(1)
        eventually(lambda: stream.text)
        stream.broken = True
        THIS_PROCESS.on_images(3)
    stream.broken = False
    assert counted.done == 4
    assert shown.updates[-1] == (100.0, "4 of 4 images")


def test_a_terminal_that_is_gone_leaves_no_lock_held(shown, monkeypatch):
    """tqdm draws under a lock; diffusers takes it before each image, and would wait for ever."""
    from tqdm import tqdm

    def broken(*arguments):
        raise BrokenPipeError

    gone = SimpleNamespace(write=broken, flush=broken, encoding="utf-8", isatty=lambda: True)
    monkeypatch.setattr("sys.stderr", gone)
    with progress(3, ["prompts.jsonl"]):
        THIS_PROCESS.on_images(2)
        wait_for(shown, lambda updates: updates[-1][1].startswith("2 of 3"))
    monkeypatch.undo()
    made = threading.Thread(target=lambda: tqdm(disable=True), daemon=True)
    made.start()
    made.join(SECONDS)
    assert not made.is_alive()


def test_that_nothing_is_made_any_more_is_told_in_place_of_the_time_that_is_left(monkeypatch):
    now = 1000.0
    monkeypatch.setattr(module.time, "monotonic", lambda: now)
    counted = Progress(80)
    now += 30  # to load the model and make the first batch
    counted.add_images(4)
    now += 140  # four and a half times as long
    assert counted.speed().endswith("left")
    now += 20
    assert counted.speed() == ", none for 02:40"
    counted.workers = 2
    assert counted.speed() == " by 2 workers, none for 02:40"
    counted.reach(8)
    assert counted.speed().endswith("left")
    now += 300  # as slow as a moment ago
    assert counted.speed().endswith("left")
    counted.reach(80)
    now += 3600
    assert counted.speed() == ""


def test_workers_are_named_beside_the_speed():
    shown = Progress(10)
    shown.workers = 8
    shown.add_images(2)
    assert "/s by 8 workers, " in shown.speed()
    shown.workers = 1
    assert shown.by() == " by 1 worker"


def test_a_count_that_nobody_needs_any_more_is_no_error(caplog):
    total, shown = Future(), Progress(None)
    total.add_done_callback(shown.expect)
    total.cancel()
    total.set_running_or_notify_cancel()
    assert shown.total is None
    assert caplog.text == ""
