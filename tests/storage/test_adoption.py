"""Images without a record are adopted by as many processes as there are cores, as by this one."""

import os
import signal

import pytest

from t2i_core.storage import adoption
from t2i_core.storage.adoption import Adopters, adopt
from t2i_core.storage.records import RECORD_TABLE
from t2i_core.storage.workspace import Workspace
from tests.builders import image_spec, store_image


@pytest.fixture
def workspace(tmp_path):
    return Workspace(tmp_path)


@pytest.fixture
def many(monkeypatch):
    """Other processes adopt from the first image on, two at a time."""
    monkeypatch.setattr(adoption, "MANY", 1)
    monkeypatch.setattr(adoption, "_PORTION", 2)


@pytest.fixture
def stored(workspace):
    """Keys of five images, the fourth of which is torn and the fifth gone."""
    records = [
        store_image(
            workspace, image_spec(i), tuning={"offload": "model"}, prompt_lengths=[{"encoder": "T5", "cut": "…"}]
        )
        for i in range(5)
    ]
    torn = workspace.root / workspace.images.location(records[3].key)
    torn.chmod(0o644)
    torn.write_bytes(torn.read_bytes()[:-30])
    workspace.images.delete(records[4].key)
    return [record.key for record in records]


def test_other_processes_adopt_what_this_one_would(workspace, stored, many, capfd):
    expected = adopt(stored, workspace.images)
    assert expected["key"].to_pylist() == stored[:3]
    with Adopters(workspace.images) as adopters:
        for _ in range(2):
            found = adopters(stored)
            assert found.schema.equals(RECORD_TABLE)
            assert found.equals(expected)
    assert capfd.readouterr() == ("", "")


def test_the_output_may_be_named_from_the_current_folder(workspace, stored, many, monkeypatch):
    monkeypatch.chdir(workspace.root.parent)
    with Adopters(Workspace(workspace.root.name).images) as adopters:
        assert adopters(stored)["key"].to_pylist() == stored[:3]


def test_processes_that_die_take_nothing_along(workspace, stored, many):
    with Adopters(workspace.images) as adopters:
        expected = adopters(stored)
        for _ in range(adopters._count):
            process = adopters._idle.get()
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            adopters._idle.put(process)
        assert adopters(stored).equals(expected)


def test_a_few_images_start_no_process(workspace, stored, monkeypatch):
    monkeypatch.setattr(adoption.subprocess, "Popen", lambda *_, **__: pytest.fail("a process"))
    with Adopters(workspace.images) as adopters:
        assert adopters(stored)["key"].to_pylist() == stored[:3]
        assert len(adopters([])) == 0


def test_no_process_outlives_its_block(workspace, stored, many):
    with Adopters(workspace.images) as adopters:
        adopters(stored)
        processes = [adopters._idle.get() for _ in range(adopters._count)]
    assert [process.returncode for process in processes] == [0] * len(processes)


def test_where_no_process_can_be_started_images_are_adopted_here(workspace, stored, many, monkeypatch):
    def refuse(*_, **__):
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(adoption.subprocess, "Popen", refuse)
    with Adopters(workspace.images) as adopters:
        assert adopters(stored)["key"].to_pylist() == stored[:3]
