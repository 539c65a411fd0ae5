"""What the shards of a process share: one thread for the device, a count of images, and when all is quiet."""

import contextvars
import threading
import time

import pytest

from tasks.process import ThisProcess

SECONDS = 20


@pytest.fixture
def process():
    return ThisProcess()


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
    with pytest.raises(OSError, match="disk"), process.counting() as count:
        count(2)
        count(1)
        raise OSError("disk")
    with process.counting() as count:
        count(4)
    assert counted == [2, 1, -3, 4]


def test_a_stop_takes_no_image_back(process):
    counted = []
    process.on_images = counted.append
    with pytest.raises(KeyboardInterrupt), process.counting() as count:
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
    started = time.monotonic()
    process.wait_until_idle(SECONDS)
    assert time.monotonic() - started < SECONDS


def test_nobody_waits_longer_than_told(process):
    with process.running():
        process.wait_until_idle(0.01)
