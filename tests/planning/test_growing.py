"""A plan is read while it is written: each segment once it is there, in order, to its end or its error."""

import threading

import pytest

from t2i_core.errors import DatasetError
from t2i_core.planning.growing import GrowingCatalog, Growth
from t2i_core.planning.pending import Pending
from t2i_core.planning.plan import specs_file
from t2i_core.storage.workspace import Workspace
from tests.builders import image_spec, make_catalog, store_image, write_specs_file


def never():
    return False


def in_thread(call):
    thread = threading.Thread(target=call)
    thread.start()
    return thread


def test_a_reader_waits_for_each_segment():
    growth, step = Growth(never), threading.Semaphore(0)

    def write():
        for segments in (1, 2, 3):
            step.acquire()
            growth.note(segments, 0)
        growth.end()

    writer, seen = in_thread(write), []
    step.release()
    for number in growth.segments():
        seen.append(number)
        step.release()
    writer.join()
    assert seen == [0, 1, 2]
    assert list(growth.segments()) == [0, 1, 2]


def test_a_reader_gets_the_error_after_what_was_written():
    growth, seen = Growth(never), []
    growth.note(2, 5)
    growth.end(DatasetError("is damaged"))
    with pytest.raises(DatasetError, match="is damaged"):
        seen.extend(growth.segments())
    assert seen == [0, 1]


def test_a_plan_that_is_begun_again_takes_no_segment_back():
    growth = Growth(never)
    for segments in (1, 2, 1, 2, 3):
        growth.note(segments, 10 * segments)
    growth.end()
    assert list(growth.segments()) == [0, 1, 2]


def test_a_stop_ends_the_waiting():
    stop = threading.Event()
    growth = Growth(stop.is_set)
    growth.note(1, 0)
    segments = growth.segments()
    assert next(segments) == 0
    threading.Timer(0.1, stop.set).start()
    assert list(segments) == []
    growth.wait_for_images()
    growth.end(DatasetError("stopped"))
    assert list(growth.segments()) == []


@pytest.mark.parametrize("tell", [lambda growth: growth.note(2, 1), lambda growth: growth.end()])
def test_images_are_waited_for(tell):
    growth, waited = Growth(never), threading.Event()

    def wait():
        growth.wait_for_images()
        waited.set()

    waiting = in_thread(wait)
    growth.note(1, 0)
    assert not waited.wait(0.2)
    tell(growth)
    waiting.join()


def test_what_is_pending_is_known_segment_by_segment(tmp_path):
    workspace = Workspace(tmp_path)
    specs = [image_spec(i) for i in range(6)]
    store_image(workspace, specs[1])
    catalog = make_catalog(workspace, *specs)
    growth = Growth(never)
    growing = GrowingCatalog(workspace.plans, "growing", growth, catalog.index)
    requests = Pending(growing).requests()
    for number in range(3):
        write_specs_file(specs_file(workspace.plans, "growing", number), specs[2 * number : 2 * number + 2])
        growth.note(number + 1, 2 * number + 2)
        assert next(requests).spec == specs[2 * number]
        if number:
            assert next(requests).spec == specs[2 * number + 1]
    growth.end()
    assert list(requests) == []
