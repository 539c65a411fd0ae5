"""Prefect's settings: the project's own where the user has set none, and a log without what the state says anyway."""

import logging
import os

import prefect.context
import pytest
from prefect.exceptions import CancelledRun, FailedRun
from prefect.settings import get_current_settings

from t2i_core.errors import ConfigError, HubUnavailable
from tasks import settings
from tasks.settings import DEFAULTS, LOGGERS, apply_settings


@pytest.fixture
def unset(monkeypatch):
    """An environment in which the user has set nothing."""
    for name in DEFAULTS:
        monkeypatch.setenv(name, "to be restored")
        monkeypatch.delenv(name)
    prefect.context.refresh_global_settings_context()
    yield monkeypatch
    monkeypatch.undo()
    prefect.context.refresh_global_settings_context()


def test_what_the_user_has_not_set_is_set_for_this_process_and_its_children(unset):
    before = dict(os.environ)
    settings._set_defaults()
    assert dict(os.environ) == before | DEFAULTS  # and nothing else: children may be programs of others
    assert get_current_settings().server.ephemeral.startup_timeout_seconds == 180


def test_what_the_user_has_set_stays(unset):
    unset.setenv("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "31")
    settings._set_defaults()
    assert get_current_settings().server.ephemeral.startup_timeout_seconds == 31
    assert os.environ["PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS"] == "31"
    assert os.environ["PREFECT_SERVER_LOGGING_LEVEL"] == "WARNING"


def test_what_a_profile_has_set_stays(unset, tmp_path):
    unset.setenv("PREFECT_PROFILES_PATH", str(tmp_path / "profiles.toml"))
    unset.setenv("PREFECT_PROFILE", "mine")
    (tmp_path / "profiles.toml").write_text(
        '[profiles.mine]\nPREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS = "32"\n'
    )
    prefect.context.refresh_global_settings_context()
    settings._set_defaults()
    assert get_current_settings().server.ephemeral.startup_timeout_seconds == 32
    assert os.environ["PREFECT_SERVER_LOGGING_LEVEL"] == "WARNING"


def record(error=None, message="exited", name="prefect.flow_runs"):
    info = (type(error), error, None) if error else None
    return logging.LogRecord(name, logging.ERROR, "", 0, message, (), info)


@pytest.mark.parametrize(
    ("line", "kept"),
    [
        (record(FailedRun("3 failures")), False),
        (record(CancelledRun("stopped")), False),
        (record(message="Finished in state Cancelled('stopped; the next run goes on')"), False),
        (record(message="Finished in state Completed()"), True),
        (record(RuntimeError("a bug")), True),
        (record(HubUnavailable("the hub does not answer")), True),
        (record(), True),
    ],
)
def test_what_the_state_says_anyway_is_not_logged(line, kept):
    assert settings._is_news(line) is kept


def test_the_traceback_of_wrong_use_is_left_out_and_that_of_a_bug_is_not():
    wrong_use, bug = record(ConfigError(["steps: write a number"])), record(RuntimeError("a bug"))
    settings._is_news(wrong_use)
    settings._is_news(bug)
    assert wrong_use.exc_info is None
    assert bug.exc_info is not None


def test_the_log_is_set_up_once(server):
    apply_settings()
    before = {name: list(logging.getLogger(name).handlers) for name in LOGGERS}
    apply_settings()
    assert {name: list(logging.getLogger(name).handlers) for name in LOGGERS} == before
    for name in LOGGERS:
        assert "APILogHandler" in [type(handler).__name__ for handler in logging.getLogger(name).handlers]
    for name in ("prefect.flow_runs", "prefect.task_runs", "prefect.engine"):
        assert logging.getLogger(name).filters.count(settings._is_news) == 1
    assert not logging.getLogger("PIL.PngImagePlugin").isEnabledFor(logging.DEBUG)


def test_lines_for_a_terminal_that_is_gone_end_no_run():
    settings._go_on()
