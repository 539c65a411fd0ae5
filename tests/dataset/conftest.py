"""What all tests of the data set share."""

import logging

import pytest


@pytest.fixture(autouse=True)
def warnings_alone(caplog):
    """Note warnings alone: once a flow has run in this process, loggers tell more."""
    caplog.set_level(logging.WARNING, "t2i_core")
