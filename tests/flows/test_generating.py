"""The shards of a run, with an engine that answers as a test says: order, window, deaths, failures."""

import threading
import time

import pytest

from flows import generating
from flows.flights import Flight, Work
from flows.generating import Generating
from flows.standing import STRIKES, Standing
from t2i_core.errors import DeviceLost, ModelError, OutputError
from t2i_core.storage import run_marks
from t2i_core.storage.run_marks import RunMarks, Told
from tasks.process import THIS_PROCESS
from tasks.progress import Progress
from tests.answering import DONE, Died, Future, Lost, Processes, shards
from tests.builders import image_spec


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
    made(shards(4), engine.submit, shown, made.deadly.append)
    assert shown.done == 4


def test_an_error_that_all_shards_would_meet_stops_the_run_and_the_other_processes(generate, tmp_path):
    with pytest.raises(ModelError, match="torn"):
        generate(lambda prompts, *_: ModelError("torn") if "p3" in prompts else DONE, *[1] * 9)
    assert RunMarks(tmp_path, "r1").says_stop()
    assert THIS_PROCESS.stop.is_set()


def test_a_device_that_is_lost_to_this_process_ends_the_run_and_keeps_what_was_made(generate):
    lost = DeviceLost("device: cuda is lost to this process")
    made, _, _ = generate(lambda prompts, *_: lost if prompts == ("p1",) else DONE, *[1] * 9)
    assert made.gave_up
    assert set(made.errors.values()) == {str(lost)}
    assert image_spec(0).key not in made.errors
    assert image_spec(1).key in made.errors


def test_a_stop_does_not_wait_for_a_shard_that_ended_at_that_moment_nor_call_it_crashed(generate):
    def answer(*_):
        THIS_PROCESS.stop.set()
        return DONE

    made, _, engine = generate(answer, 1)
    began = time.monotonic()
    made.stop(10)
    assert time.monotonic() - began < 5
    made.end()
    assert engine.abandoned == []


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
    assert STRIKES <= len(tried) < STRIKES + generating.WINDOW, "then it gets no more"


def test_a_shard_that_fails_everywhere_fails_once_and_no_process_is_blamed(generate):
    failed = {"timings": {}, "failures": {"key": "too large"}}
    made, shown, engine = generate(lambda prompts, *_: failed, *[1] * 20)
    assert made.errors == {"key": "too large"}
    assert shown.done == 20
    assert set(engine.submitted.values()) == {2}
    assert {place for where in engine.where.values() for place in where[:1]} == {"p0", "p1"}


def test_the_second_try_of_an_image_that_ends_its_process_is_elsewhere(generate):
    made, _, engine = generate(lambda prompts, *_: Died() if "p0" in prompts else DONE, 1, 1)
    assert [shard.requests[0].spec.prompt for shard in made.deadly] == ["p0"]
    assert sorted(engine.where["p0",][-2:]) == ["p0", "p1"]


def test_two_bad_processes_of_several_cost_no_image_and_do_not_end_the_run(generate):
    def answer(prompts, times, others, place):
        return ModelError("the card is taken") if place in ("p0", "p1") else DONE

    made, shown, _ = generate(answer, *[1] * 30, count=4)
    assert (made.errors, shown.done) == ({}, 30)
    assert made.standing.made_by == {"p2", "p3"}


def test_a_shard_whose_process_died_once_has_its_first_failure_tried_elsewhere_all_the_same(generate):
    answers = iter([Died(), ModelError("the card is taken")])

    def answer(prompts, *_):
        return next(answers, DONE) if "p0" in prompts else DONE

    made, shown, _ = generate(answer, *[1] * 9, count=4)
    assert (made.errors, shown.done) == ({}, 9)


def test_what_fails_on_processes_that_make_images_is_not_tried_on_all_of_them(generate):
    def answer(prompts, *_):
        time.sleep(0.05 if "p20" in prompts else 0)
        return {"timings": {}, "failures": {"k": "black"}} if "p20" in prompts else DONE

    made, _, engine = generate(answer, *[1] * 24, count=6)
    assert made.errors == {"k": "black"}
    assert engine.submitted["p20",] == 2


def test_a_result_that_cannot_be_read_is_a_failure_of_its_shard_alone(generate):
    class Unread(Processes):
        def submit(self, shard, place):
            future = super().submit(shard, place)
            if "p3" in [request.spec.prompt for request in shard.requests]:
                future.result = self.fail
            return future

        def fail(self, **_):
            raise OSError(5, "Input/output error")

    made, shown, _ = generate(None, *[1] * 9, engine=Unread(lambda *_: DONE))
    assert list(made.errors.values()) == ["its shard failed: OSError: [Errno 5] Input/output error"]
    assert shown.done == 9


def test_an_image_that_ends_its_process_is_recorded_at_once_and_a_stop_does_not_forget_it(generate):
    def answer(prompts, times, *_):
        if "p1" in prompts and times > 2:
            time.sleep(1)
            THIS_PROCESS.stop.set()
        return Died() if {"p0", "p1"} & set(prompts) else DONE

    made, _, _ = generate(answer, *[1] * 9, count=6)
    assert [shard.requests[0].spec.prompt for shard in made.recorded] == ["p0"]


def test_an_image_that_cannot_be_recorded_does_not_end_the_run(tmp_path, monkeypatch, caplog):
    def refuse(shard):
        raise OSError("no space left")

    THIS_PROCESS.start_run("r1")
    engine, shown = Processes(lambda prompts, *_: Died() if "p0" in prompts else DONE), Progress(9)
    monkeypatch.setattr(generating, "LOOK_SECONDS", 0.02)
    RunMarks(tmp_path, "r1").begin()
    Generating(engine, RunMarks(tmp_path, "r1"))(shards(*[1] * 9), engine.submit, shown, refuse)
    assert "that an image ends its process is not stored, so a later run tries it: no space left" in caplog.text


def landed(engine, place, seats=(), *, alone=False):
    """What a run generates on a cluster where `seats` made images; and a shard that was on `place`, tried before."""
    made, (shard,) = Generating(engine, None), shards(1)
    made.standing.made_by |= set(seats)
    work = Work(shard, tried=set(engine.here), failed={"p0"}, alone=alone)
    return made, Flight(work, place, place, place, 0.0, Future())


def test_what_a_process_that_never_made_an_image_says_of_the_input_does_not_end_the_run():
    engine, error = Processes(None, count=2), ModelError("the card is taken")
    made, flight = landed(engine, "p1", ["p0"])
    made._note(flight, error, Progress(1))
    assert list(made.errors.values()) == ["its shard failed: ModelError: the card is taken"]
    for place, seats, gone in (("p0", ["p0"], ()), ("p1", [], ()), ("p1", ["p0"], ["p0"])):
        made, flight = landed(engine, place, seats)
        engine.gone = set(gone)
        with pytest.raises(ModelError):
            made._note(flight, error, Progress(1))


@pytest.mark.parametrize("alone", [True, False])
def test_work_that_is_tried_alone_stays_alone_where_its_result_was_lost(alone):
    made, flight = landed(Processes(None, count=2), "p1", alone=alone)
    flight.future.answer = Lost()
    made._take(flight, Progress(1))
    assert (list(made._suspects), list(made._again)) == (([flight.work], []) if alone else ([], [flight.work]))


def test_processes_that_fare_badly_are_better_than_none():
    engine = Processes(lambda *_: DONE, count=2)
    standing = Standing(engine)
    bad = Flight(None, "p0", "p0", "p0", 0.0, None)
    for _ in range(STRIKES):
        standing.strike(bad, "broken")
    assert standing.places() == ["p1"]
    engine.gone.add("p1")
    assert standing.places() == ["p0"]
    standing.leave_out("p0")  # one that hangs is none
    assert standing.places() == []


def test_signs_of_life_are_given_from_the_start_of_the_processes_to_their_end(tmp_path, monkeypatch):
    """Before the first shard a worker may measure for long, and stops where it hears nothing of the flow."""
    monkeypatch.setattr(run_marks, "SIGN_SECONDS", 0.02)
    marks = RunMarks(tmp_path, "r1")
    made = Generating(Processes(None, count=2), marks)
    made.start(None)
    made.start(None)
    first = marks.last_sign()
    deadline = time.monotonic() + 20
    while marks.last_sign() == first and time.monotonic() < deadline:
        time.sleep(0.01)
    assert marks.last_sign() != first
    made.end()
    assert marks.last_sign() is None
