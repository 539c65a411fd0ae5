"""What the shards of a process share: one thread for the device, a count of images, and when all is quiet."""

import contextvars
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import CancelledError, Future
from types import SimpleNamespace

import pytest

from t2i_core.errors import Stopped
from tasks import process as module
from tasks.process import LOOK_SECONDS, THIS_PROCESS, ThisProcess, interruptible, result_of
from tests.conftest import ROOT

SECONDS = 20


@pytest.fixture
def process():
    return ThisProcess()


# A flow that Prefect's engine runs, not this tool's command line: it ends, and something still works for nobody.
LEFT_BEHIND = {
    "device": """
def call():
    try:
        THIS_PROCESS.on_device(lambda: time.sleep(600))
    except Stopped:
        print("stopped", flush=True)
thread = threading.Thread(target=call)
thread.start()
while not THIS_PROCESS.is_busy:
    time.sleep(0.01)
THIS_PROCESS.give_up()
thread.join()
""",
    "fetch": """
def downloads():
    with ThreadPoolExecutor(1) as pool:
        pool.submit(time.sleep, 600)
threading.Timer(0.5, lambda: signal.raise_signal(signal.SIGINT)).start()
try:
    interruptible(downloads)
except KeyboardInterrupt:
    print("stopped", flush=True)
""",
}


@pytest.mark.parametrize("what", LEFT_BEHIND)
def test_a_process_ends_although_something_works_for_nobody(what):
    program = (
        "import signal, threading, time\nfrom concurrent.futures import ThreadPoolExecutor\n"
        "from t2i_core.errors import Stopped\nfrom tasks.process import THIS_PROCESS, interruptible\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    )
    command = [sys.executable, "-c", program + LEFT_BEHIND[what]]
    environment = os.environ | {"PREFECT__FLOW_RUN_ID": "x"}
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "stopped\n", "")


def test_what_an_interruptible_call_returns_or_raises_is_that_of_the_call():
    assert interruptible(lambda: 3) == 3
    with pytest.raises(KeyError, match="x"):
        interruptible(lambda: {}["x"])
    assert not THIS_PROCESS.is_busy


def test_whatever_uses_the_device_runs_in_one_thread(process):
    threads = []

    def shard():
        threads.append(process.on_device(threading.current_thread))

    shards = [threading.Thread(target=shard) for _ in range(4)]
    for thread in shards:
        thread.start()
    for thread in shards:
        thread.join(SECONDS)
    assert len(set(threads)) == 1
    assert threads[0] not in [*shards, threading.current_thread()]


def test_one_shard_uses_the_device_at_a_time(process):
    active, most = [], []

    def use():
        active.append(1)
        most.append(len(active))
        threading.Event().wait(0.01)
        active.pop()

    shards = [threading.Thread(target=process.on_device, args=(use,)) for _ in range(4)]
    for thread in shards:
        thread.start()
    for thread in shards:
        thread.join(SECONDS)
    assert most == [1] * 4


def test_the_device_s_thread_belongs_to_the_task_run_that_calls(process):
    run = contextvars.ContextVar("run", default="none")
    run.set("mine")
    assert process.on_device(run.get) == "mine"


def test_an_error_on_the_device_reaches_the_shard(process):
    def fail():
        raise RuntimeError("the device is gone")

    with pytest.raises(RuntimeError, match="gone"):
        process.on_device(fail)
    assert process.on_device(lambda: 5) == 5


def test_images_of_a_shard_that_is_tried_again_are_counted_once(process):
    counted = []
    process.on_images = counted.append
    with pytest.raises(OSError, match="disk"), process.counting("shard") as count:
        count(2)
        count(1)
        raise OSError("disk")
    with process.counting("shard") as count:
        count(4)
    assert counted == [2, 1, -3, 4]


def test_a_stop_takes_no_image_back(process):
    counted = []
    process.on_images = counted.append
    with pytest.raises(KeyboardInterrupt), process.counting("shard") as count:
        count(2)
        raise KeyboardInterrupt
    assert counted == [2]


def test_idle_is_when_the_last_shard_has_ended(process):
    entered, may_end = [threading.Event(), threading.Event()], [threading.Event(), threading.Event()]

    def shard(number):
        with process.running():
            entered[number].set()
            assert may_end[number].wait(SECONDS)

    threads = [threading.Thread(target=shard, args=(number,)) for number in range(2)]
    for thread, event in zip(threads, entered, strict=True):
        thread.start()
        assert event.wait(SECONDS)
    idle = threading.Event()
    waiting = threading.Thread(target=lambda: (process.wait_until_idle(SECONDS), idle.set()))
    waiting.start()
    may_end[0].set()
    threads[0].join(SECONDS)
    assert not idle.wait(0.2)
    may_end[1].set()
    assert idle.wait(SECONDS)
    waiting.join(SECONDS)


def test_a_shard_that_fails_has_ended_too(process):
    with pytest.raises(OSError, match="disk"), process.running():
        raise OSError("disk")
    assert process.wait_until_idle(SECONDS)


def test_nobody_waits_longer_than_told(process):
    with process.running():
        assert not process.wait_until_idle(0.01)


@pytest.fixture
def slow(process):
    """A call on the device that ends when it may: a thread that waits for it, and what became of it."""
    call = SimpleNamespace(started=threading.Event(), may_end=threading.Event(), error=None)

    def use():
        call.started.set()
        assert call.may_end.wait(SECONDS)

    def shard():
        try:
            process.on_device(use)
        except Stopped as stopped:
            call.error = stopped

    call.shard = threading.Thread(target=shard)
    call.shard.start()
    assert call.started.wait(SECONDS)
    yield call
    call.may_end.set()
    call.shard.join(SECONDS)


def test_a_process_is_busy_while_a_call_runs_and_not_after_it(process, slow):
    assert process.is_busy
    slow.may_end.set()
    slow.shard.join(SECONDS)
    assert not process.is_busy
    assert slow.error is None


def test_a_shard_does_not_wait_for_a_device_that_was_given_up(process, slow):
    process.give_up()
    process.give_up()  # a second signal
    slow.shard.join(SECONDS)
    assert isinstance(slow.error, Stopped)
    assert process.is_busy  # it goes on by itself


def test_after_giving_up_no_further_shard_begins(process, slow):
    begun = []
    process.give_up()
    with pytest.raises(Stopped):
        process.on_device(lambda: begun.append(True))
    slow.may_end.set()
    process.start_run("r2")
    process.on_device(lambda: None)  # behind whatever the device was still told to do
    assert begun == []


def test_to_wait_for_shards_is_many_short_waits(process):
    # Python heeds a signal that comes just before such a wait only after it.
    waits = []

    class Impatient(threading.Condition):
        def wait(self, timeout=None):
            waits.append(timeout)
            process._running = 0

    process._changed = Impatient()
    process._running = 1
    assert process.wait_until_idle(600)
    assert waits == [LOOK_SECONDS]


def test_a_new_run_forgets_the_stop_of_an_earlier_one(process):
    process.stop.set()
    process.give_up()
    process.start_run("r2")
    assert not process.stop.is_set()
    assert process.on_device(lambda: 5) == 5


def test_start_up_counts_for_the_first_run_of_a_process_that_was_started_for_it(process, monkeypatch):
    assert process.startup_seconds() == 0.0
    process.started_for_run = True
    assert process.startup_seconds() > 0.0
    assert process.startup_seconds() == 0.0
    monkeypatch.setenv("PREFECT__FLOW_RUN_ID", "x")  # as in a process that a worker started
    worker = ThisProcess()
    assert worker.startup_seconds() > 0.0
    assert worker.startup_seconds() == 0.0


def test_start_up_is_the_time_since_the_process_was_started():
    program = (
        "import time; time.sleep(0.4)\n"
        "from tasks.process import THIS_PROCESS\n"
        "THIS_PROCESS.started_for_run = True\n"
        "print(THIS_PROCESS.startup_seconds())"
    )
    started = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert 0.4 <= float(done.stdout) <= time.perf_counter() - started + 0.02


def test_a_shard_that_is_given_again_waits_for_the_one_in_hand():
    process, order = ThisProcess(), []
    inside, released = threading.Event(), threading.Event()

    def first():
        with process.counting("shard") as count:
            count(1)
            inside.set()
            released.wait(20)
            order.append("first")

    def second():
        with process.counting("shard"):
            order.append("second")

    threads = [threading.Thread(target=first), threading.Thread(target=second)]
    threads[0].start()
    assert inside.wait(20)
    threads[1].start()
    time.sleep(0.1)
    assert order == []
    assert process.images == {"shard": 1}
    released.set()
    for thread in threads:
        thread.join(20)
    assert order == ["first", "second"]
    assert process.images == {}


def test_a_result_is_waited_for_in_short_waits(monkeypatch):
    future, waits = Future(), []

    def wait(futures, timeout):
        waits.append(timeout)
        if len(waits) == 3:
            future.set_result("done")

    monkeypatch.setattr(module, "wait", wait)
    assert result_of(future) == "done"
    assert waits == [LOOK_SECONDS] * 3, "a Ctrl-C just before a wait without an end would never be heeded"


def test_a_future_that_was_cancelled_before_it_began_is_not_waited_for():
    future = Future()
    future.cancel()
    with pytest.raises(CancelledError):
        result_of(future)


def test_a_device_hangs_after_its_first_step_and_not_where_it_loads_or_is_a_cpu(process, monkeypatch):
    later = [0.0]
    clock = SimpleNamespace(monotonic=lambda: time.monotonic() + later[0])
    monkeypatch.setattr(module, "time", clock)
    released, stepped, hangs = threading.Event(), threading.Event(), []

    def shard():
        later[0] += 1e5
        hangs.append(process.hangs())  # it loads, or compiles
        process.note_step(1, 4)
        hangs.append(process.hangs())
        stepped.set()
        released.wait(SECONDS)

    process.may_hang = True
    process.note_model("m")
    thread = threading.Thread(target=process.on_device, args=(shard,))
    thread.start()
    assert stepped.wait(SECONDS)
    later[0] += 1e5
    process.note_model("m")  # which is loaded
    hangs.append(process.hangs())
    process.may_hang = False
    hangs.append(process.hangs())
    process.may_hang = True
    process.note_model("another")
    hangs.append(process.hangs())
    released.set()
    thread.join(SECONDS)
    assert hangs == [False, False, True, False, False]
