"""The lock of an output says for whom it waits."""

import json
import os
import threading

import pytest

from t2i_core.storage import output_lock
from t2i_core.storage.output_lock import OutputLock

SECONDS = 30


@pytest.fixture
def waits(monkeypatch):
    """The lines about waiting, and an event that is set at the first one."""
    lines, said = [], threading.Event()

    def warning(text, *arguments):
        lines.append(text % arguments)
        said.set()

    monkeypatch.setattr(output_lock.log, "warning", warning)
    monkeypatch.setattr(output_lock, "SAY_SECONDS", 0.05)
    return lines, said


@pytest.mark.parametrize("note", [None, "{", json.dumps({"host": "node7", "pid": 12, "since": 0})])
def test_whoever_waits_is_told_who_holds_the_lock_and_gets_it_then(tmp_path, waits, note):
    lines, said = waits
    got = threading.Event()

    def other():
        with OutputLock(tmp_path / "lock"):
            got.set()

    thread = threading.Thread(target=other)
    with OutputLock(tmp_path / "lock"):
        holder = tmp_path / "lock-holder"
        assert json.loads(holder.read_text())["pid"] == os.getpid()
        if note is not None:
            holder.write_text(note)
        thread.start()
        assert said.wait(SECONDS)
        assert not got.is_set()
    thread.join(SECONDS)
    assert got.is_set()
    named = {None: f"process {os.getpid()} on ", "{": "it is not known which"}.get(note, "process 12 on node7, since ")
    assert lines[0].startswith("waits     for another run that writes to this output: ")
    assert named in lines[0]
    assert not holder.exists()


def test_a_lock_that_is_free_is_held_without_a_word(tmp_path, waits):
    with OutputLock(tmp_path / "lock"):
        pass
    assert waits[0] == []
