"""A fake hub and an empty cache for the tests of models."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fake_hub import FakeHub, connected_hub


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    with connected_hub(monkeypatch) as fake:
        yield fake


@pytest.fixture
def cache(tmp_path: Path) -> str:
    return str(tmp_path / "cache")
