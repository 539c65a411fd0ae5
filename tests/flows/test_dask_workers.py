"""Workers of a cluster, without one: who is checked, refused, used and forgotten, and what is said of it."""

import logging
from dataclasses import replace

import pytest
from distributed import CancelledError

from flows import dask_workers
from flows.dask_workers import DaskWorkers
from flows.introductions import why_not
from t2i_core.errors import ConfigError, ModelError
from tasks.elsewhere import files_here, introduce
from tests.answering_dask import HERE, RUN, Client, Runner, cluster, told


@pytest.mark.parametrize(
    ("values", "first", "reason"),
    [
        ({}, None, ""),
        ({}, told("b"), ""),
        ({"problem": "does not see /shared/out"}, None, "does not see /shared/out"),
        ({"versions": HERE | {"python": "3.9"}}, None, f"has python 3.9 and not {HERE['python']}"),
        ({"versions": HERE | {"text2image": "0.0.1"}}, None, f"has text2image 0.0.1 and not {HERE['text2image']}"),
        ({"versions": HERE | {"torch": "1.0"}}, None, f"has torch 1.0 and not {HERE['torch']}"),
        # The flow's machine may have torch for the CPU; among workers the build counts, too.
        ({"versions": HERE | {"torch": HERE["torch"].partition("+")[0] + "+cu999"}}, None, ""),
        (
            {"versions": HERE | {"torch": HERE["torch"].partition("+")[0] + "+cu999"}},
            told("b"),
            f"+cu999 and not {HERE['torch']} like the first worker (b, process 7)",
        ),
        ({"device": "A100"}, told("b"), "has a A100, and the first worker (b, process 7) a H100"),
    ],
)
def test_what_a_worker_tells_decides_whether_it_is_used(values, first, reason):
    found = why_not(told(**values), first, HERE)
    assert reason in found
    assert bool(found) == bool(reason)


def test_a_worker_takes_shards_after_it_has_answered_and_not_before():
    answers = {"a": {introduce: None}}
    workers, look, _ = cluster(answers)
    look("a")
    assert workers.places() == []
    assert workers.hopeful()
    workers._members["a"].asked.answer = told("a")
    look("a")
    assert workers.places() == ["a"]
    assert not workers.hopeful()
    assert workers.device() == "H100"
    assert workers.versions() == {"torch": HERE["torch"]}


def test_a_worker_that_joins_late_is_checked_and_used_and_one_that_is_gone_is_forgotten():
    workers, look, client = cluster({"a": {}, "b": {}})
    look("a")
    assert workers.places() == ["a"]
    look("a", "b")
    assert workers.places() == ["a", "b"]
    assert ("b", "introduce") in client.asked
    look("b")
    assert workers.places() == ["b"]
    assert workers.lost({"a", "b"}) == {"a"}


def test_a_refused_worker_is_named_in_one_line_and_the_others_go_on(caplog):
    caplog.set_level(logging.INFO)
    workers, look, client = cluster(
        {
            "a": {},
            "b": {introduce: told("b", device="A100")},
            "c": {introduce: ModuleNotFoundError("No module named 'tasks'")},
        }
    )
    look("a", "b", "c")
    assert workers.places() == ["a"]
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 2
    assert lines[0].startswith("workers   b, process 7 is not used: has a A100")
    assert (
        lines[1]
        == "workers   c is not used: this version of text2image is not installed there (No module named 'tasks')"
    )
    assert len(client.asked) == 3, "who was refused is not asked again"


def test_where_all_workers_are_refused_the_run_ends_in_one_line():
    workers, look, _ = cluster(
        {"a": {introduce: told("a", problem="does not see /x")}, "b": {introduce: told("b", problem="n")}}
    )
    look("a", "b")
    with pytest.raises(ConfigError) as raised:
        workers.places()
    assert (
        str(raised.value)
        == "dask_scheduler: none of the workers can be used: a, process 7 (and 1 more): does not see /x"
    )


def test_each_worker_fetches_its_own_model_and_one_with_other_files_is_refused(caplog):
    answers = {"a": {files_here: ModelError("/m has another content")}, "b": {files_here: {"model": "/m"}}}
    workers, look, client = cluster(answers, replace(RUN, source="the model"))
    look("a", "b")
    assert [asked for asked in client.asked if asked[1] == "files_here"] == [("a", "files_here"), ("b", "files_here")]
    assert workers.places() == ["b"]
    assert "a, process 7 is not used: /m has another content" in caplog.text


def test_workers_that_never_come_are_hoped_for_only_so_long(monkeypatch):
    workers, _, _ = cluster({})
    assert workers.hopeful()
    monkeypatch.setattr(dask_workers, "RECONNECT_SECONDS", 0.0)
    assert not workers.hopeful()


def test_a_worker_that_never_says_who_it_is_is_refused(monkeypatch, caplog):
    workers, look, _ = cluster({"a": {introduce: None}, "b": {}})
    look("a", "b")
    assert workers.hopeful()
    monkeypatch.setattr(dask_workers, "READY_SECONDS", 0.0)
    look("a", "b")
    assert (workers.hopeful(), workers.places()) == (False, ["b"])
    assert "workers   a is not used: it said nothing for 0 s" in caplog.text


def test_a_worker_that_fetches_the_model_for_a_day_is_refused(monkeypatch, caplog):
    workers, look, _ = cluster({"a": {files_here: None}, "b": {files_here: {}}}, run=replace(RUN, source=object()))
    look("a", "b")
    assert workers.fetching()
    monkeypatch.setattr(dask_workers, "FETCH_SECONDS", 0.0)
    look("a", "b")
    assert (workers.fetching(), workers.hopeful(), workers.places()) == (False, False, ["b"])
    assert "a, process 7 is not used: it does not have the model's files after 0 s" in caplog.text


def test_where_the_first_worker_is_refused_the_others_are_compared_with_another_one():
    answers = {
        "a": {files_here: ModelError("/m has another content")},
        "b": {introduce: told("b"), files_here: {}},
        "c": {introduce: told("c", device="A100"), files_here: {}},
    }
    workers, look, _ = cluster(answers, replace(RUN, source="the model"))
    look("a", "b")
    look("a", "b", "c")
    assert (workers.places(), workers.device()) == (["b"], "H100")


def test_a_worker_that_differed_only_from_one_that_was_refused_later_is_used():
    answers = {
        "a": {files_here: None},
        "c": {introduce: told("c", device="A100"), files_here: {}},
    }
    workers, look, _ = cluster(answers, replace(RUN, source="the model"))
    look("a", "c")
    assert workers.places() == []
    workers._members["a"].asked.answer = ModelError("/m has another content")
    for _ in range(4):
        look("a", "c", times=1)
        workers.places()  # at no moment are all of them refused
    assert (workers.places(), workers.device()) == (["c"], "A100")


def test_two_workers_on_one_card_do_not_share_it_and_the_second_takes_its_place(caplog):
    answers = {"a": {introduce: told("a", card_id="GPU-1")}, "b": {introduce: told("b", card_id="GPU-1")}}
    answers |= {name: {introduce: told(name, card_id="", device="cpu")} for name in "cd"}
    workers, look, _ = cluster({name: answers[name] for name in "ab"})
    look("a", "b")
    assert workers.places() == ["a"]
    assert "workers   b, process 7 is not used: it has the same card as a, process 7; start each worker" in caplog.text
    workers._used = True
    look("b")
    assert workers.places() == ["b"]
    workers, look, _ = cluster({name: answers[name] for name in "ab"})
    look("a", "b")
    look()  # both at once
    assert (workers._members, workers._early_deaths) == ({}, 0)
    workers, look, _ = cluster({name: answers[name] for name in "cd"})
    look("c", "d")
    assert workers.places() == ["c", "d"]  # a machine without a card may have several


def test_a_worker_without_a_gpu_does_not_decide_for_those_that_say_so_later(monkeypatch):
    answers = {"a": {introduce: told("a", device="cpu")}, "b": {introduce: None}}
    workers, look, _ = cluster(answers)
    look("a", "b")
    assert workers.places() == []
    workers._members["b"].asked.answer = told("b")
    look("a", "b")
    assert (workers.places(), workers.device()) == (["b"], "H100")
    # It waits a minute, and not at all where the CPU was asked for, or for those that said so, too.
    for run, seconds, others in ((RUN, 0.0, None), (replace(RUN, device="cpu"), 60.0, None), (RUN, 60.0, told("b"))):
        monkeypatch.setattr(dask_workers, "FIRST_SECONDS", seconds)
        answers["b"] = {introduce: others and replace(others, device="cpu")}
        workers, look, _ = cluster(answers, run)
        look("a", "b")
        assert workers.device() == "cpu"


def test_until_a_worker_gets_a_task_another_kind_may_take_the_place_of_the_first_and_then_no_more(monkeypatch):
    answers = {"a": {}, "b": {introduce: told("b", device="A100")}}
    workers, look, _ = cluster(answers)
    look("a", "b")
    assert workers.places() == ["a"]
    look("b")
    assert (workers.places(), workers.device()) == (["b"], "A100")
    workers, look, _ = cluster(answers)
    look("a", "b")
    workers._used = True
    look("b")
    assert (workers.places(), workers.device()) == ([], "H100")
    assert workers.troubles() == (
        "; 1 refused: b, process 7: has a A100, and the first worker (a, process 7) a H100: they make other pixels"
    )


def test_workers_that_die_one_after_another_before_they_are_ready_are_not_waited_for_without_an_end(caplog):
    answers = {str(i): {introduce: None} for i in range(12)}
    workers, look, _ = cluster(answers)
    for i in range(dask_workers.EARLY_DEATHS + 1):
        assert workers.hopeful()
        look(str(i), times=1)
    assert "workers   0 was lost before it was ready" in caplog.text
    assert not workers.hopeful()
    workers._members[str(i)].asked.answer = told("x")
    look(str(i))
    look("11", times=1)
    assert workers.hopeful(), "one was ready"


def test_a_worker_whose_answer_cannot_be_read_is_refused_and_not_taken_unchecked(caplog):
    class Older:
        title = "an older worker"

    workers, look, _ = cluster({"a": {introduce: Older()}, "b": {}})
    look("a", "b")
    assert workers.places() == ["b"]
    assert "workers   a is not used: this version of text2image is not installed there (" in caplog.text


def test_a_worker_is_not_used_without_the_model_s_files_where_the_scheduler_was_gone_just_then():
    answers = {"a": {files_here: {}}}
    workers, look, client = cluster(answers, replace(RUN, source="the model"))
    submit, lost = client.submit, [OSError("the connection is lost")]

    def lossy(function, *arguments, **options):
        if function is files_here and lost:
            raise lost.pop()
        return submit(function, *arguments, **options)

    client.submit = lossy
    with pytest.raises(OSError, match="the connection is lost"):
        look("a", times=1)
    look("a")
    assert workers.places() == ["a"]
    assert client.asked == [("a", "introduce"), ("a", "files_here")]


def test_a_worker_whose_own_file_system_times_out_is_refused_and_not_asked_for_ever(caplog):
    for asked in (introduce, files_here):
        late = {asked: TimeoutError(110, "Connection timed out")}
        workers, look, _ = cluster({"a": late, "b": {files_here: {}}}, replace(RUN, source="the model"))
        look("a", "b")
        assert workers.places() == ["b"]
        assert "is not used: it timed out ([Errno 110] Connection timed out)" in caplog.text
        caplog.clear()


def test_processes_of_a_machine_with_cards_are_asked_for_cards_and_decide_at_once_without_them():
    client = Client({"a": {introduce: told("a", device="cpu")}, "b": {introduce: None}})
    for kind, device in (("cuda", "cuda"), (None, "auto")):
        workers = DaskWorkers(Runner(client), 2, "http://here/api", kind=kind)
        workers._ended.set()
        workers.start(RUN)
        workers._thread.join()
        assert workers._run.device == device
    workers._run, workers._reachable = RUN, True
    workers._follow(client, {name: {"name": name} for name in "ab"})
    workers._follow(client, {name: {"name": name} for name in "ab"})
    assert workers.places() == ["a"]  # on a machine without cards none waits for the other


def test_a_worker_whose_answer_was_lost_is_asked_again():
    workers, look, client = cluster({"a": {introduce: CancelledError("x")}})
    look("a", times=2)
    assert client.asked == [("a", "introduce")] * 2
    client.answers["a"] = {}
    look("a", times=2)
    assert workers.places() == ["a"]


def test_a_process_that_is_started_anew_keeps_its_seat():
    workers, look, _ = cluster({"a": {}, "b": {}, "c": {}}, names={"a": "0", "b": "0"})
    look("a")
    look("b", "c")
    assert workers.seat("b") == "0"
    assert workers.seat("c") == "c "
