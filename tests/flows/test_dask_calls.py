"""A cluster without processes: how it is built, looked at, and given tasks; what becomes of a measurement."""

import threading
from dataclasses import replace

import dask
import pytest
from distributed import CancelledError, KilledWorker

from flows import dask_workers
from flows.dask_clusters import own_cluster
from flows.dask_workers import DaskWorkers
from t2i_core.errors import MeasureFailed, Stopped
from tasks.elsewhere import files_here, introduce
from tasks.process import THIS_PROCESS, THREADS
from tests.answering_dask import RUN, Future, cluster


def test_a_cluster_of_a_run_s_own_decides_nothing_behind_the_flow_s_back(monkeypatch):
    with dask.config.set({}):  # which sets back what is set within
        runner = own_cluster([{"CUDA_VISIBLE_DEVICES": "0"}, {"CUDA_VISIBLE_DEVICES": "1"}], THREADS)
        for name, value in {
            "allowed-failures": 0,  # the flow counts deaths, and finds the image
            "work-stealing": False,  # a shard stays where the flow gave it
            "worker-ttl": "10 minutes",  # a call that keeps Python's lock is no death
            "active-memory-manager.start": False,
        }.items():
            assert dask.config.get(f"distributed.scheduler.{name}") == value
        assert dask.config.get("distributed.deploy.lost-worker-timeout") == "10 minutes"  # 15 s: dropped for good
    workers = [worker["options"] for worker in runner.cluster_kwargs["workers"].values()]
    assert [worker["env"]["CUDA_VISIBLE_DEVICES"] for worker in workers] == ["0", "1"]
    # With one thread the last images of a shard would be written before the next one is generated.
    assert {(worker["nthreads"], worker["memory_limit"], *worker["preload"]) for worker in workers} == {
        (2, 0, "tasks.elsewhere")
    }


def test_the_cluster_is_built_beside_whatever_comes_next():
    released = threading.Event()

    class Slow:
        cluster = None

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        @property
        def client(self):
            released.wait(20)
            raise OSError("no cluster")

    workers = DaskWorkers(Slow(), 2, "http://here/api")
    try:
        workers.start(RUN)
        assert workers.places() == []
        assert workers.hopeful()
    finally:
        released.set()
        workers.end()
    with pytest.raises(OSError, match="no cluster"):
        workers.places()


def test_while_the_scheduler_cannot_be_asked_nothing_is_submitted_and_nothing_taken_for_lost():
    workers, look, client = cluster({"a": {}})
    look("a")
    client.status = "connecting"
    assert workers.places() == []
    assert workers.lost({"a", "b"}) == set()
    client.status = "running"
    assert workers.places() == [], "who is left is not known yet"


def test_a_worker_that_fetches_behind_a_scheduler_that_is_gone_gives_no_hope():
    workers, look, client = cluster({"a": {files_here: None}}, run=replace(RUN, source=object()))
    look("a")
    assert (workers.fetching(), workers.hopeful()) == (True, True)
    client.status = "connecting"
    workers.places()
    assert (workers.fetching(), workers.hopeful()) == (False, False)


def test_a_task_that_times_out_by_itself_is_not_asked_for_again_and_again(monkeypatch):
    workers, look, _ = cluster({"a": {}})
    look("a")
    future = Future(TimeoutError(110, "Connection timed out"))
    future.done = lambda: True
    monkeypatch.setattr(workers, "submit", lambda *arguments, place: future)
    with pytest.raises(MeasureFailed, match="Connection timed out"):
        workers.call(None)


def test_a_look_at_the_scheduler_that_shows_no_workers_though_it_has_some_takes_none_for_lost(monkeypatch):
    workers, _, client = cluster({"a": {}})
    monkeypatch.setattr(dask_workers, "LOOK_SECONDS", 0.01)
    shown = [{"workers": {"a": {"name": "a"}}, "n_workers": 1}] * 4 + [{"workers": {}, "n_workers": 1}] * 4
    looks = iter(shown)

    def scheduler_info(n_workers):
        if (info := next(looks, None)) is None:
            workers._ended.set()
            return shown[-1]
        return info

    client.scheduler_info = scheduler_info
    workers._watch()
    assert workers.places() == ["a"]
    assert workers.lost({"a"}) == set()


def test_an_error_in_a_look_at_the_workers_does_not_end_the_looking(monkeypatch):
    workers, _, client = cluster({"a": {}})
    monkeypatch.setattr(dask_workers, "LOOK_SECONDS", 0.01)
    looks = iter([{"workers": {"a": {}}, "n_workers": 1}] + [{"workers": {"a": {"name": "a"}}, "n_workers": 1}] * 4)

    def scheduler_info(n_workers):
        if (info := next(looks, None)) is None:
            workers._ended.set()
            return {"workers": {"a": {"name": "a"}}, "n_workers": 1}
        return info

    client.scheduler_info = scheduler_info
    workers._watch()
    assert workers.places() == ["a"]


def test_a_measurement_that_ends_while_its_result_is_fetched_is_not_lost(monkeypatch):
    workers, look, _ = cluster({"a": {}})
    look("a")
    monkeypatch.setattr(workers._lost_runs, "note", lambda run: None)

    def result_of(*answers):
        given, future = iter(answers), Future("x")

        def result(timeout):
            future.done = lambda: True
            if isinstance(answer := next(given), BaseException):
                raise answer
            return answer

        future.done, future.result = (lambda: False), result
        return future

    speed = {"seconds": 1.0}
    for submitted in (
        [result_of(TimeoutError(), speed)],
        [result_of(TimeoutError(), KilledWorker("t", None, 0)), result_of(speed)],
        [result_of(Stopped()), result_of(speed)],  # of itself, for it heard nothing of the run
    ):
        futures = iter(submitted)
        monkeypatch.setattr(workers, "submit", lambda *arguments, place, futures=futures: next(futures))
        assert workers.call(None) == speed
    THIS_PROCESS.stop.set()
    try:
        monkeypatch.setattr(workers, "submit", lambda *arguments, place: result_of(Stopped()))
        with pytest.raises(Stopped):
            workers.call(None)
    finally:
        THIS_PROCESS.stop.clear()


def test_a_measurement_does_not_wait_for_ever_for_a_process_that_never_says_who_it_is(monkeypatch):
    workers, look, _ = cluster({"a": {introduce: None}})
    look("a")
    assert workers.hopeful()
    monkeypatch.setattr(dask_workers, "READY_SECONDS", 0.1)
    monkeypatch.setattr(dask_workers, "LOOK_SECONDS", 0.05)
    with pytest.raises(MeasureFailed, match="there is no process to measure it in"):
        workers.call(None)


def test_a_measurement_waits_as_long_as_a_worker_fetches_the_model(monkeypatch):
    workers, look, _ = cluster({"a": {files_here: None}}, run=replace(RUN, source=object()))
    look("a")
    assert workers.fetching()
    monkeypatch.setattr(dask_workers, "READY_SECONDS", 0.0)
    monkeypatch.setattr(dask_workers, "LOOK_SECONDS", 0.02)
    monkeypatch.setattr(workers, "submit", lambda *arguments, place: Future(place))

    def arrive():
        workers._members["a"].asked.answer = {}
        look("a")

    timer = threading.Timer(0.3, arrive)
    timer.start()
    assert workers.call(None) == "a"
    timer.join()
    assert not workers.fetching()


def test_a_signal_during_a_submission_stays_a_signal(monkeypatch):
    workers, _, _ = cluster({})
    main, where = threading.current_thread(), []
    monkeypatch.setattr(workers, "_submit", lambda *arguments: where.append(threading.current_thread()))
    workers.submit(None, place="a")
    assert where != [main], "signals arrive in the main thread"


@pytest.mark.parametrize("death", [KilledWorker("t", None, 0), CancelledError("t")])
def test_a_measurement_goes_to_another_process_once_and_then_it_cannot_be_had(monkeypatch, death):
    workers, look, client = cluster({"a": {}})
    look("a")
    futures = []

    def submit(task, *arguments, place):
        futures.append(Future(death))
        return futures[-1]

    monkeypatch.setattr(workers, "submit", submit)
    monkeypatch.setattr(workers._lost_runs, "note", lambda run: None)
    with pytest.raises(MeasureFailed, match="the process died, 2 times"):
        workers.call(None)
    assert client.cancelled == futures
