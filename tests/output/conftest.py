"""An output folder without a flow: a claimed workspace, and the configuration of a run over it."""

import os

import numpy as np
import pytest

from t2i_core.config import Config
from t2i_core.output.identity import OutputIdentity, claim_output
from t2i_core.output.named_links import NamedLinks
from t2i_core.storage.workspace import Workspace
from tests.builders import image_spec, store_image


@pytest.fixture
def workspace(tmp_path):
    """An output that a run has claimed, and into which none has written yet."""
    workspace = Workspace(tmp_path / "out")
    claim_output(workspace, OutputIdentity("prompts.jsonl", "0" * 64))
    return workspace


@pytest.fixture
def config(workspace):
    """Make the configuration of a run over `workspace`: `config(image_key="pictures")`."""

    def make(**values):
        return Config.from_values({"dataset": "prompts.jsonl", "model": "demo", "output": str(workspace.root)} | values)

    return make


@pytest.fixture
def links(workspace):
    return NamedLinks(workspace)


@pytest.fixture
def key(workspace):
    """The key of a stored image, by number."""
    return [store_image(workspace, image_spec(i)).key for i in range(4)]


@pytest.fixture
def wanted(workspace):
    """What `changes` takes, in one chunk: `wanted({name: key})`."""

    def make(keys_by_name):
        keys = list(keys_by_name.values())
        inodes = np.array([workspace.images.stat(key).inode for key in keys], np.uint64)
        return [(list(keys_by_name), keys, inodes)]

    return make


@pytest.fixture
def no_links(monkeypatch):
    """A file system without hard links."""

    def fail(*arguments):
        raise OSError("no links here")

    monkeypatch.setattr(os, "link", fail)
