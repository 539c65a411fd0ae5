"""The shards of a run, with an engine that answers as a test says: order, window, deaths, and an end in any case."""

import threading
import time
from collections import Counter
from types import SimpleNamespace

import pytest
from prefect.exceptions import CancelledRun

from flows import generating
from flows.generating import Generating
from flows.runners import Workers
from t2i_core.errors import DatasetError, ModelError, OutputError
from t2i_core.planning.pending import ImageRequest
from t2i_core.planning.shards import Shard
from t2i_core.storage.run_marks import RunMarks, Told
from tasks import process
from tasks.process import THIS_PROCESS, ThisProcess
from tasks.progress import Progress
from tests.builders import image_spec

DONE = {"timings": {"check": 1.0}, "failures": {}}


class Died(Exception):
    pass


class Lost(Exception):
    pass


class Future:
    def __init__(self):
        self.callbacks, self.answer = [], None

    def add_done_callback(self, call):
        if self.answer is None:
            self.callbacks.append(call)
        else:
            call(self)

    def end(self, answer):
        self.answer = answer
        for call in self.callbacks:
            call(self)

    def result(self, timeout, raise_on_failure):
        if isinstance(self.answer, Died | Lost):
            raise self.answer
        return self.answer


class Processes(Workers):
    """Each shard runs in a thread: `answer(prompts, how often they were submitted, others on the process, process)`."""

    deaths = (Died,)
    losses = (Lost,)

    def __init__(self, answer, count=2, alive=None):
        super().__init__(None, count)
        self.several = count > 1
        self.answer, self.submitted, self.in_flight, self.most = answer, Counter(), Counter(), 0
        self.here = [f"p{i}" for i in range(count)] if alive is None else alive
        self.gone, self.abandoned, self.where = set(), [], {}

    def start(self, run):
        pass

    def end(self):
        pass

    def places(self):
        return [place for place in self.here if place not in self.gone]

    def lost(self, places):
        return places & self.gone

    def seat(self, place):
        return place.partition(" ")[0]  # a process that is started anew has another place

    def abandon(self, future):
        self.abandoned.append(future)

    def call(self, task, *arguments):
        raise NotImplementedError

    def submit(self, shard, place):
        prompts = tuple(request.spec.prompt for request in shard.requests)
        self.submitted[prompts] += 1
        self.in_flight[place] += 1
        self.where.setdefault(prompts, []).append(place)
        self.most = max(self.most, self.in_flight[place])
        future = Future()
        threading.Thread(target=self.run, args=(prompts, place, future)).start()
        return future

    def run(self, prompts, place, future):
        time.sleep(0.02)
        answer = self.answer(prompts, self.submitted[prompts], self.in_flight[place] - 1, place)
        self.in_flight[place] -= 1
        future.end(answer)


def shards(*sizes, batch=2):
    number = 0
    for position, size in enumerate(sizes, start=1):
        specs = [image_spec(i) for i in range(number, number + size)]
        number += size
        requests = [ImageRequest(spec, spec.key) for spec in specs]
        batches = tuple(tuple(requests[i : i + batch]) for i in range(0, size, batch))
        yield Shard(position, len(sizes), batch, batches)


@pytest.fixture
def generate(tmp_path, monkeypatch):
    """Generate shards of the given sizes, or those `planned`, on `count` processes: the `Generating`, and the progress
    shown."""
    monkeypatch.setattr(generating, "LOOK_SECONDS", 0.02)
    THIS_PROCESS.start_run("r1")

    def run(answer, *sizes, count=2, alive=None, engine=None, planned=None):
        engine = engine or Processes(answer, count, alive)
        marks = RunMarks(tmp_path, "r1")
        marks.begin()
        made = Generating(engine, marks)
        shown = Progress(sum(sizes) or None)
        made(planned or shards(*sizes), engine.submit, shown)
        return made, shown, engine

    yield run
    THIS_PROCESS.stop.clear()


def test_all_shards_are_made_with_a_bounded_number_in_flight(generate):
    made, shown, engine = generate(lambda *_: DONE, *[2] * 20)
    assert (made.errors, shown.done, sum(engine.submitted.values())) == ({}, 40, 20)
    assert engine.most == generating.WINDOW
    assert made.timings == {"check": 20.0}


def test_the_next_shard_goes_to_the_process_with_the_fewest_batches_in_hand(generate):
    def answer(*_):
        while engine.submitted.total() < 5:
            time.sleep(0.001)
        return DONE

    engine = Processes(answer)
    generate(answer, 8, 2, 2, 2, 2, engine=engine)
    assert [place for (place,) in engine.where.values()] == ["p0", "p1", "p1", "p1", "p0"]


def test_a_slow_shard_at_the_head_holds_none_up(generate):
    others = threading.Event()
    ended = []

    def answer(prompts, *_):
        if prompts == ("p0",):
            assert others.wait(20), "the others wait for the first one"
        ended.append(prompts)
        if len(ended) == 19:
            others.set()
        return DONE

    _, shown, _ = generate(answer, *[1] * 20)
    assert shown.done == 20
    assert ended[-1] == ("p0",)


def test_a_shard_whose_process_died_once_is_made_again(generate):
    made, shown, engine = generate(
        lambda prompts, times, *_: Died() if times == 1 and "p2" in prompts else DONE, 2, 2, 2
    )
    assert (made.errors, shown.done) == ({}, 6)
    assert engine.submitted == {("p0", "p1"): 1, ("p2", "p3"): 2, ("p4", "p5"): 1}


def test_the_image_that_kills_its_process_is_found_and_its_mates_are_made(generate):
    alone = []

    def answer(prompts, times, others, place):
        if "p5" not in prompts:
            return DONE
        alone.append(others)
        return Died()

    made, shown, engine = generate(answer, 4, 4, 4)
    assert made.errors == {image_spec(5).key: "its process died whenever it was made, 2 times alone"}
    assert alone[2:] == [0] * len(alone[2:])  # after two deaths in company
    assert engine.submitted["p5",] == 2
    assert shown.done == 11


def test_all_processes_that_die_at_once_cost_nothing_but_time(generate):
    made, shown, engine = generate(lambda prompts, times, *_: Died() if times == 1 else DONE, *[2] * 9)
    assert (made.errors, shown.done) == ({}, 18)
    assert set(engine.submitted.values()) == {2}


@pytest.mark.parametrize(("alive", "reason"), [(0, "none came back for 0 s"), (1, "no process made anything for 1 s")])
def test_a_run_never_waits_for_ever(generate, monkeypatch, alive, reason):
    monkeypatch.setattr(generating, "NO_WORKER_SECONDS", 0.2)
    monkeypatch.setattr(generating, "NO_NEWS_SECONDS", 0.9 if alive else 100)
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

    monkeypatch.setattr(generating, "NO_NEWS_SECONDS", 0.3)
    made, _, _ = generate(None, *[1] * 3, engine=Starting(None, alive=[]))
    assert set(made.errors) == {image_spec(i).key for i in range(3)}


def test_images_that_other_processes_tell_of_are_shown_before_their_shard_ends(generate, tmp_path):
    told, seen = threading.Event(), threading.Event()

    class Shown(Progress):
        def reach(self, done):
            super().reach(done)
            if self.done == 3:
                seen.set()

    def answer(prompts, *_):
        (shard,) = shards(4)
        RunMarks(tmp_path, "r1").note("elsewhere-1", {shard.digest: Told(3), "of another shard": Told(9)})
        told.set()
        assert seen.wait(20)
        return DONE

    engine, shown = Processes(answer), Shown(4)
    RunMarks(tmp_path, "r1").begin()
    made = Generating(engine, RunMarks(tmp_path, "r1"))
    made(shards(4), engine.submit, shown)
    assert shown.done == 4


def test_an_error_that_all_shards_would_meet_stops_the_run_and_the_other_processes(generate, tmp_path):
    with pytest.raises(ModelError, match="torn"):
        generate(lambda prompts, *_: ModelError("torn") if "p3" in prompts else DONE, *[1] * 9)
    assert RunMarks(tmp_path, "r1").says_stop()
    assert THIS_PROCESS.stop.is_set()


def test_after_a_stop_nothing_more_is_submitted(generate, tmp_path):
    def answer(prompts, *_):
        if prompts == ("p0",):
            THIS_PROCESS.stop.set()
        return DONE

    _, _, engine = generate(answer, *[1] * 50)
    assert sum(engine.submitted.values()) < 50


def test_what_was_on_a_process_that_is_gone_goes_to_others(generate):
    def answer(prompts, times, others, place):
        if place == "p0" and not engine.gone:
            engine.gone.add("p0")
        if place == "p0":
            time.sleep(1)  # a process that is gone says nothing
        return DONE

    engine = Processes(answer)
    made, shown, _ = generate(None, *[2] * 8, engine=engine)
    assert (made.errors, shown.done, made.timings) == ({}, 16, {"check": 8.0})
    assert len(engine.abandoned) in (1, 2, 3)


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
    monkeypatch.setattr(generating, "NO_NEWS_SECONDS", 1)
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
    monkeypatch.setattr(generating, "NO_WORKER_SECONDS", 0.2)
    go_on = threading.Event()
    threading.Timer(0.6, go_on.set).start()
    made, _, _ = generate(None, alive=[], planned=still_read(go_on))
    assert set(made.errors) == {image_spec(i).key for i in range(4)}


def test_a_process_that_comes_later_is_used(generate):
    def answer(prompts, times, others, place):
        places.append("p1") if "p1" not in places else None
        return DONE

    places = ["p0"]
    _, shown, engine = generate(answer, *[1] * 20, alive=places)
    assert shown.done == 20
    assert {place for where in engine.where.values() for place in where} == {"p0", "p1"}


def test_a_lost_connection_is_no_suspicion(generate):
    made, shown, engine = generate(lambda prompts, times, *_: Lost() if times < 4 else DONE, *[2] * 3)
    assert (made.errors, shown.done) == ({}, 6)
    assert len(engine.submitted) == 3, "no shard was halved"


@pytest.mark.parametrize(
    "failure",
    [
        {"timings": {}, "failures": {"key": "OSError: no space"}},
        OutputError("no space"),
        OSError("disk"),
        MemoryError(),
    ],
)
def test_a_shard_that_fails_on_one_process_is_made_on_another(generate, failure):
    made, shown, engine = generate(lambda prompts, times, others, place: failure if place == "p0" else DONE, *[1] * 20)
    assert (made.errors, shown.done) == ({}, 20)
    assert made.timings == {"check": 20.0}
    tried = [where for where in engine.where.values() if "p0" in where]
    assert all(where == ["p0", "p1"] for where in tried)
    assert generating.STRIKES <= len(tried) < generating.STRIKES + generating.WINDOW, "then it gets no more"


def test_a_shard_that_fails_everywhere_fails_once_and_no_process_is_blamed(generate):
    failed = {"timings": {}, "failures": {"key": "too large"}}
    made, shown, engine = generate(lambda prompts, *_: failed, *[1] * 20)
    assert made.errors == {"key": "too large"}
    assert shown.done == 20
    assert set(engine.submitted.values()) == {2}
    assert {place for where in engine.where.values() for place in where[:1]} == {"p0", "p1"}


@pytest.mark.parametrize("count", [1, 2])
def test_a_process_that_stopped_by_itself_costs_nothing(generate, monkeypatch, count):
    monkeypatch.setattr(generating, "REST_SECONDS", 0.05)

    def answer(prompts, times, *_):
        return CancelledRun("the flow was out of reach") if times < 4 else DONE

    engine = Processes(answer, count)
    engine.several = True  # one worker of a scheduler, too, is another process than the flow's
    made, shown, _ = generate(None, *[1] * 6, engine=engine)
    assert (made.errors, shown.done) == ({}, 6)


def test_a_process_that_stopped_by_itself_gets_no_more_for_some_seconds(generate, monkeypatch):
    monkeypatch.setattr(generating, "REST_SECONDS", 1000)
    cancelled = []

    def answer(prompts, times, others, place):
        if place == "p0":
            cancelled.append(prompts)
            return CancelledRun("the flow was out of reach")
        return DONE

    made, shown, _ = generate(answer, *[1] * 20)
    assert (made.errors, shown.done) == ({}, 20)
    assert len(cancelled) <= generating.WINDOW


def test_a_process_that_always_stops_by_itself_gets_no_more_where_others_make_something(generate, monkeypatch, caplog):
    monkeypatch.setattr(generating, "REST_SECONDS", 0.01)
    cancelled = []

    def answer(prompts, times, others, place):
        if place == "p0":
            cancelled.append(prompts)
            return CancelledRun("it does not see the output")
        time.sleep(0.05)
        return DONE

    made, shown, _ = generate(answer, *[1] * 40)
    assert (made.errors, shown.done) == ({}, 40)
    assert len(cancelled) >= generating.STRIKES
    assert "p0 gets no more, after 5 failures in a row: it hears nothing of the run, and others do" in caplog.text


def test_time_in_which_the_flow_itself_was_stopped_is_no_silence_of_processes(generate, monkeypatch):
    hours = []  # that Ctrl-Z took
    clock = SimpleNamespace(monotonic=lambda: time.monotonic() + 3600 * sum(hours), perf_counter=time.perf_counter)
    monkeypatch.setattr(generating, "time", clock)

    def answer(prompts, *_):
        if prompts == ("p0",):
            hours.append(5)
        time.sleep(0.1)
        return DONE

    made, shown, engine = generate(answer, *[1] * 10)
    assert (made.errors, shown.done, made.gave_up) == ({}, 10, False)
    assert (made._out, engine.abandoned) == (set(), [])


def test_time_in_which_the_flow_itself_was_stopped_is_no_hang_of_its_device(generate, monkeypatch):
    hours = []
    clock = SimpleNamespace(monotonic=lambda: time.monotonic() + 3600 * sum(hours), perf_counter=time.perf_counter)
    monkeypatch.setattr(generating, "time", clock)
    monkeypatch.setattr(process, "time", clock)

    def answer(prompts, *_):
        def call():
            if prompts == ("p1",):
                hours.append(5)
            THIS_PROCESS.note_step(1, 1)
            time.sleep(0.1)

        THIS_PROCESS.on_device(call)
        return DONE

    engine = Processes(answer, count=1)
    engine.may_hang = lambda: True
    made, shown, _ = generate(None, *[1] * 5, engine=engine)
    assert (made.errors, shown.done, made.gave_up) == ({}, 5, False)


def test_a_device_that_hangs_in_this_process_ends_the_run(generate, monkeypatch):
    monkeypatch.setattr(ThisProcess, "silent_seconds", lambda self: 1e4)

    def answer(*_):
        THIS_PROCESS.note_step(1, 4)
        return DONE

    engine = Processes(answer, count=1)
    engine.may_hang = lambda: True
    made, _, _ = generate(None, *[1] * 9, engine=engine)
    assert made.gave_up
    assert THIS_PROCESS.gave_up
    assert all(error.startswith("the device hangs") for error in made.errors.values())


def test_a_model_that_takes_long_to_load_is_no_hang(generate, monkeypatch):
    monkeypatch.setattr(ThisProcess, "silent_seconds", lambda self: 1e4)
    engine = Processes(lambda *_: DONE, count=1)
    engine.may_hang = lambda: True
    made, shown, _ = generate(None, *[1] * 9, engine=engine)
    assert (made.errors, shown.done) == ({}, 9)


def test_suspects_that_wait_for_a_long_data_set_are_no_silence_of_processes(generate, monkeypatch):
    monkeypatch.setattr(generating, "NO_NEWS_SECONDS", 1)
    go_on = threading.Event()
    threading.Timer(2, go_on.set).start()
    made, shown, _ = generate(
        lambda prompts, times, *_: Died() if "p0" in prompts and times < 3 else DONE, planned=still_read(go_on)
    )
    assert (made.errors, shown.done) == ({}, 4)


def test_a_run_whose_processes_all_stop_by_themselves_ends(generate, monkeypatch):
    monkeypatch.setattr(generating, "REST_SECONDS", 0.01)
    monkeypatch.setattr(generating, "NO_NEWS_SECONDS", 0.5)
    made, _, _ = generate(lambda *_: CancelledRun("x"), *[1] * 3)
    assert set(made.errors) == {image_spec(i).key for i in range(3)}


def test_a_process_that_makes_nothing_loses_its_shards_to_the_others(generate, monkeypatch, caplog):
    monkeypatch.setattr(generating, "NO_NEWS_SECONDS", 0.5)
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
    monkeypatch.setattr(generating, "NO_NEWS_SECONDS", 1.0)

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
    monkeypatch.setattr(generating, "NO_NEWS_SECONDS", 0.3)
    engine = Processes(lambda *_: DONE, alive=[])
    monkeypatch.setattr(engine, "hopeful", lambda: True)
    monkeypatch.setattr(engine, "fetching", lambda: not engine.here)
    threading.Timer(1.5, lambda: engine.here.append("p0")).start()
    made, shown, _ = generate(lambda *_: DONE, 1, 1, engine=engine)
    assert (made.errors, shown.done) == ({}, 2)


def test_the_second_try_of_an_image_that_ends_its_process_is_elsewhere(generate):
    made, _, engine = generate(lambda prompts, *_: Died() if "p0" in prompts else DONE, 1, 1)
    assert [shard.requests[0].spec.prompt for shard in made.deadly] == ["p0"]
    assert sorted(engine.where["p0",][-2:]) == ["p0", "p1"]
