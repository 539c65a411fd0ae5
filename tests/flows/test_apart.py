"""A question is answered by another process, or by this one where that cannot be; torch stays out of this one."""

import os
import signal
import subprocess
import sys

import pytest

from flows import apart
from flows.apart import ask_apart
from t2i_core.errors import ConfigError
from tests.conftest import ROOT

HOME = "T2I_TEST_HOME"


def is_here():
    return os.environ[HOME] == str(os.getpid())


def where():
    print("a library says something")
    return os.getpid()


def refuse(option, *, value):
    raise ConfigError([f"{option}: no (got {value})", f"here: {is_here()}"])


def die_elsewhere():
    if not is_here():
        os.kill(os.getpid(), signal.SIGKILL)
    return "here"


def fail():
    raise RuntimeError(f"a bug in {os.getpid()}")


@pytest.fixture
def named_here(monkeypatch):
    """Let the other process find these functions, and know which process this is."""
    monkeypatch.setattr(sys, "path", [str(ROOT), *sys.path])
    monkeypatch.setenv(HOME, str(os.getpid()))


def test_another_process_answers_whatever_libraries_print(named_here, capfd):
    assert ask_apart(where) != os.getpid()
    assert capfd.readouterr().err == "a library says something\n"


def test_what_is_wrong_with_the_input_is_raised_as_if_it_was_found_here(named_here):
    with pytest.raises(ConfigError, match="workers: no") as raised:
        ask_apart(refuse, "workers", value=3)
    assert raised.value.problems == ["workers: no (got 3)", "here: False"]


def test_where_the_other_process_is_killed_this_one_answers(named_here, capfd):
    assert ask_apart(die_elsewhere) == "here"


def test_a_bug_is_raised_here_with_its_traceback(named_here, capfd):
    with pytest.raises(RuntimeError, match=f"a bug in {os.getpid()}") as raised:
        ask_apart(fail)
    assert raised.traceback[-1].name == "fail"


def test_where_no_process_can_be_started_this_one_answers(monkeypatch):
    def refuse(*_, **__):
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(apart.subprocess, "run", refuse)
    assert ask_apart(os.getpid) == os.getpid()
    monkeypatch.setattr(sys, "executable", "")
    assert ask_apart(os.getpid) == os.getpid()


def test_torch_is_asked_for_the_devices_without_being_imported_even_among_files_of_the_same_names(tmp_path):
    (tmp_path / "flows").mkdir()
    for name in ("flows/__init__.py", "tasks.py", "random.py", "torch.py"):
        (tmp_path / name).write_text("raise ImportError('of the user')\n")
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); from flows import runners; sys.path.append('')\n"
        "runners._own_dask, runners.api_url = len, lambda: ''\n"
        "from t2i_core.config import Config\n"
        "found = runners.find_workers(Config.from_values({'dataset': 'x.txt', 'workers': 2, 'device': 'cpu'}))\n"
        "print(found, 'torch' in sys.modules)"
    )
    command = [sys.executable, "-I", "-c", code, str(ROOT)]
    assert subprocess.check_output(command, cwd=tmp_path, text=True) == "2 False\n"
