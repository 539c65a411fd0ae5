"""Torch's threads spin shortly, unless the user says how they wait."""

import os
import subprocess
import sys

import pytest

from t2i_core.engine.waiting import CHOSEN_BY_USER, SPIN_COUNT, limit_spinning


@pytest.fixture
def environment(monkeypatch):
    for name in CHOSEN_BY_USER:
        monkeypatch.setenv(name, "to be restored")
        monkeypatch.delenv(name)
    return monkeypatch


def test_threads_spin_shortly(environment):
    limit_spinning()
    assert os.environ["GOMP_SPINCOUNT"] == SPIN_COUNT


@pytest.mark.parametrize(("name", "value"), [("GOMP_SPINCOUNT", "7"), ("OMP_WAIT_POLICY", "ACTIVE")])
def test_what_the_user_has_chosen_stays(environment, name, value):
    environment.setenv(name, value)
    limit_spinning()
    assert {other: os.environ.get(other) for other in CHOSEN_BY_USER} == dict.fromkeys(CHOSEN_BY_USER) | {name: value}


def test_the_settings_of_a_process_say_so_before_torch_is_imported(environment):
    program = (
        "import os, sys; from tasks.settings import apply_settings; apply_settings(); "
        "print('torch' in sys.modules, os.environ['GOMP_SPINCOUNT'])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", SPIN_COUNT]
