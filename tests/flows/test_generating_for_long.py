"""What takes long while shards are made: reading the data set, silent or stopping processes, a flow that sleeps."""

import threading
import time
from types import SimpleNamespace

import pytest
from prefect.exceptions import CancelledRun

from flows import generating, standing, vigil
from t2i_core.errors import DatasetError
from t2i_core.storage.run_marks import RunMarks, Told
from tasks import process
from tasks.process import THIS_PROCESS, ThisProcess
from tests.answering import DONE, Died, Processes, shards
from tests.builders import image_spec


@pytest.mark.parametrize(("alive", "reason"), [(0, "none came back for 0 s"), (1, "no process made anything for 1 s")])
def test_a_run_never_waits_for_ever(generate, monkeypatch, alive, reason):
    monkeypatch.setattr(vigil, "NO_WORKER_SECONDS", 0.2)
    monkeypatch.setattr(vigil, "NO_NEWS_SECONDS", 0.9 if alive else 100)
    released, places = threading.Event(), ["p0", "p1"]

    def answer(prompts, *_):
        if "p0" not in prompts:
            released.wait(20)
        del places[alive:]
        return DONE

    try:
        made, shown, _ = generate(answer, *[1] * 20, alive=places)
    finally:
        released.set()
    assert set(made.errors) == {image_spec(i).key for i in range(1, 20)}  # also of shards that were not submitted
    assert all(reason in error for error in made.errors.values())
    assert shown.done == 1


def test_processes_that_never_get_ready_are_not_waited_for_for_ever(generate, monkeypatch):
    class Starting(Processes):
        def hopeful(self):
            return True

    monkeypatch.setattr(vigil, "NO_NEWS_SECONDS", 0.3)
    made, _, _ = generate(None, *[1] * 3, engine=Starting(None, alive=[]))
    assert set(made.errors) == {image_spec(i).key for i in range(3)}


def reborn(answer):
    """One process, which is another one after each death."""

    class Reborn(Processes):
        def places(self):
            return [f"p0 {len(self.abandoned)}"]

        def troubles(self):
            return "; the last one was killed"

    return Reborn(answer, 1)


def test_processes_that_die_and_make_nothing_end_the_run_and_it_says_how_they_died(generate, monkeypatch):
    monkeypatch.setattr(vigil, "VAIN_DEATHS", 8)
    engine = reborn(lambda *_: Died())
    engine.apart = True
    made, _, _ = generate(None, *[2] * 40, engine=engine)
    assert set(made.errors) == {image_spec(i).key for i in range(80)}
    reason = "processes died, one after another, and made no image; the last one was killed"
    assert all(reason in error for error in made.errors.values())
    assert max(engine.submitted.values()) == 2, "none was tried alone"


def test_deaths_between_which_images_are_made_or_called_failures_do_not_end_the_run(generate, monkeypatch):
    monkeypatch.setattr(vigil, "VAIN_DEATHS", 14)
    bad = {"p1", "p9", "p17", "p25"}
    engine = reborn(lambda prompts, *_: Died() if bad & set(prompts) else DONE)
    engine.apart = True
    made, _, _ = generate(None, *[4] * 8, engine=engine)
    assert set(made.errors) == {image_spec(int(name[1:])).key for name in bad}
    assert set(made.errors.values()) == {generating.DEADLY}
    assert len(engine.abandoned) > 14


def still_read(go_on, error=None):
    """Two shards of a data set that is still read: the second one, or an error, comes once the test says so."""
    first, second = shards(2, 2)
    yield first
    assert go_on.wait(20)
    if error is not None:
        raise error
    yield second


def test_a_death_is_noticed_while_the_data_set_is_still_read(generate):
    go_on = threading.Event()

    def answer(prompts, times, *_):
        if times == 1 and "p0" in prompts:
            return Died()
        go_on.set()  # the first shard is made again before the second is planned
        return DONE

    made, shown, engine = generate(answer, planned=still_read(go_on))
    assert (made.errors, shown.done, engine.submitted["p0", "p1"]) == ({}, 4, 2)


def test_a_data_set_that_is_read_for_long_is_no_silence_of_processes(generate, monkeypatch):
    monkeypatch.setattr(vigil, "NO_NEWS_SECONDS", 1)
    go_on = threading.Event()
    threading.Timer(2, go_on.set).start()
    made, shown, _ = generate(lambda *_: DONE, planned=still_read(go_on))
    assert (made.errors, shown.done) == ({}, 4)


def test_a_data_set_that_turns_out_to_be_damaged_ends_the_run_with_its_error(generate):
    go_on = threading.Event()

    def answer(*_):
        go_on.set()
        return DONE

    with pytest.raises(DatasetError, match="torn"):
        generate(answer, planned=still_read(go_on, DatasetError("torn")))


def test_a_stop_does_not_wait_for_the_data_set(generate):
    go_on = threading.Event()

    def answer(*_):
        THIS_PROCESS.stop.set()
        return DONE

    began = time.monotonic()
    generate(answer, planned=still_read(go_on))
    assert time.monotonic() - began < 15, "it waited for the next shard"
    go_on.set()


def test_a_run_without_processes_still_reads_the_data_set_to_its_end(generate, monkeypatch):
    monkeypatch.setattr(vigil, "NO_WORKER_SECONDS", 0.2)
    go_on = threading.Event()
    threading.Timer(0.6, go_on.set).start()
    made, _, _ = generate(None, alive=[], planned=still_read(go_on))
    assert set(made.errors) == {image_spec(i).key for i in range(4)}


@pytest.mark.parametrize("count", [1, 2])
def test_a_process_that_stopped_by_itself_costs_nothing(generate, monkeypatch, count):
    monkeypatch.setattr(standing, "REST_SECONDS", 0.05)

    def answer(prompts, times, *_):
        return CancelledRun("the flow was out of reach") if times < 4 else DONE

    engine = Processes(answer, count)
    engine.apart = engine.several = True  # one worker of a scheduler, too, is another process than the flow's
    made, shown, _ = generate(None, *[1] * 6, engine=engine)
    assert (made.errors, shown.done) == ({}, 6)


def stopping_by_itself(others=0.0):
    """The answers of p0, which stops each of its shards by itself, and of p1, which takes so many seconds for each."""
    cancelled = []

    def answer(prompts, times, others_there, place):
        if place == "p0":
            cancelled.append(prompts)
            return CancelledRun("the flow was out of reach")
        time.sleep(others)
        return DONE

    return cancelled, answer


def test_a_process_that_stopped_by_itself_gets_no_more_for_some_seconds(generate, monkeypatch):
    monkeypatch.setattr(standing, "REST_SECONDS", 1000)
    cancelled, answer = stopping_by_itself()
    made, shown, _ = generate(answer, *[1] * 20)
    assert (made.errors, shown.done) == ({}, 20)
    assert len(cancelled) <= generating.WINDOW


def test_a_process_that_always_stops_by_itself_gets_no_more_where_others_make_something(generate, monkeypatch, caplog):
    monkeypatch.setattr(standing, "REST_SECONDS", 0.01)
    cancelled, answer = stopping_by_itself(others=0.05)
    made, shown, _ = generate(answer, *[1] * 40)
    assert (made.errors, shown.done) == ({}, 40)
    assert len(cancelled) >= standing.STRIKES
    assert "p0 gets no more, after 5 failures in a row: it hears nothing of the run, and others do" in caplog.text


@pytest.fixture
def asleep(monkeypatch):
    """The hours for which this process was stopped: [hours, ...]."""
    hours = []
    clock = SimpleNamespace(monotonic=lambda: time.monotonic() + 3600 * sum(hours), perf_counter=time.perf_counter)
    monkeypatch.setattr(generating, "time", clock)
    monkeypatch.setattr(process, "time", clock)
    return hours


def test_time_in_which_the_flow_itself_was_stopped_is_no_silence_of_processes(generate, asleep):
    def answer(prompts, *_):
        if prompts == ("p0",):
            asleep.append(5)
        time.sleep(0.1)
        return DONE

    made, shown, engine = generate(answer, *[1] * 10)
    assert (made.errors, shown.done, made.gave_up) == ({}, 10, False)
    assert (made.standing._hanging, engine.abandoned) == (set(), [])


def test_time_in_which_the_flow_itself_was_stopped_is_no_hang_of_its_device(generate, asleep, monkeypatch):
    def answer(prompts, *_):
        def call():
            if prompts == ("p1",):
                asleep.append(5)
            THIS_PROCESS.note_step(1, 1)
            time.sleep(0.1)

        THIS_PROCESS.on_device(call)
        return DONE

    monkeypatch.setattr(THIS_PROCESS, "may_hang", True)
    made, shown, _ = generate(None, *[1] * 5, engine=Processes(answer, count=1))
    assert (made.errors, shown.done, made.gave_up) == ({}, 5, False)


def test_a_device_that_hangs_in_this_process_ends_the_run(generate, monkeypatch):
    monkeypatch.setattr(ThisProcess, "hangs", lambda self: True)
    made, _, _ = generate(None, *[1] * 9, engine=Processes(lambda *_: DONE, count=1))
    assert made.gave_up
    assert THIS_PROCESS.gave_up
    assert all(error.startswith("the device hangs") for error in made.errors.values())


def test_suspects_that_wait_for_a_long_data_set_are_no_silence_of_processes(generate, monkeypatch):
    monkeypatch.setattr(vigil, "NO_NEWS_SECONDS", 1)
    go_on = threading.Event()
    threading.Timer(2, go_on.set).start()
    made, shown, _ = generate(
        lambda prompts, times, *_: Died() if "p0" in prompts and times < 3 else DONE, planned=still_read(go_on)
    )
    assert (made.errors, shown.done) == ({}, 4)


def test_a_run_whose_processes_all_stop_by_themselves_ends(generate, monkeypatch):
    monkeypatch.setattr(standing, "REST_SECONDS", 0.01)
    monkeypatch.setattr(vigil, "NO_NEWS_SECONDS", 0.5)
    made, _, _ = generate(lambda *_: CancelledRun("x"), *[1] * 3)
    assert set(made.errors) == {image_spec(i).key for i in range(3)}


def test_a_process_that_makes_nothing_loses_its_shards_to_the_others(generate, monkeypatch, caplog):
    monkeypatch.setattr(vigil, "NO_NEWS_SECONDS", 0.5)
    released, slow = threading.Event(), threading.Event()

    def answer(prompts, times, others, place):
        if place == "p0":
            released.wait(20)
        slow.wait(0.1)
        return DONE

    try:
        made, shown, engine = generate(answer, *[1] * 20)
    finally:
        released.set()
    assert (made.errors, shown.done) == ({}, 20)
    assert len([where for where in engine.where.values() if where[0] == "p0"]) == generating.WINDOW
    assert "p0 made nothing for 0 s; it gets no more" in caplog.text


def test_an_image_that_takes_long_is_waited_for_as_long_as_it_makes_steps(generate, tmp_path, monkeypatch):
    monkeypatch.setattr(vigil, "NO_NEWS_SECONDS", 1.0)

    def answer(prompts, *_):
        if "p0" in prompts:
            for steps in range(20):
                RunMarks(tmp_path, "r1").note("elsewhere-1", {next(shards(1, 1, 1)).digest: Told(0, steps)})
                time.sleep(0.1)
        return DONE

    made, shown, engine = generate(answer, 1, 1, 1)
    assert (made.errors, shown.done) == ({}, 3)
    assert set(engine.submitted.values()) == {1}


def test_a_model_that_is_fetched_for_long_is_waited_for(generate, monkeypatch):
    monkeypatch.setattr(vigil, "NO_NEWS_SECONDS", 0.3)
    engine = Processes(lambda *_: DONE, alive=[])
    monkeypatch.setattr(engine, "hopeful", lambda: True)
    monkeypatch.setattr(engine, "fetching", lambda: not engine.here)
    threading.Timer(1.5, lambda: engine.here.append("p0")).start()
    made, shown, _ = generate(lambda *_: DONE, 1, 1, engine=engine)
    assert (made.errors, shown.done) == ({}, 2)
