"""The model on the machine that generates: fetched once, hashed once, and refused where it holds something else."""

import threading
from dataclasses import replace
from pathlib import Path

import pytest

from t2i_core.errors import ModelError
from t2i_core.models import local_files
from t2i_core.models.adapters import Adapter
from t2i_core.models.identity import resolve_model
from t2i_core.models.local_files import ModelSource, fetch_and_verify
from t2i_core.models.prepare import prepare_digest
from tests.fake_hub import FakeHub, write_tree
from tests.tiny_model import model_files

NAME = "owner/model"


@pytest.fixture
def source(hub: FakeHub, cache: str) -> ModelSource:
    hub.repository(NAME).commit(model_files())
    return ModelSource(resolve_model(NAME, cache_dir=cache), cache_dir=cache)


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that were hashed."""
    files: list[Path] = []
    original = local_files.file_sha256
    monkeypatch.setattr(local_files, "file_sha256", lambda path: files.append(path) or original(path))
    return files


def folder_source(tmp_path: Path, **more: str) -> ModelSource:
    folder = tmp_path / "model"
    write_tree(folder, model_files())
    return ModelSource(resolve_model(str(folder)), cache_dir=str(tmp_path / "cache"), **more)


def test_several_processes_of_a_machine_fetch_and_hash_once(
    hub: FakeHub, source: ModelSource, hashed: list[Path]
) -> None:
    hub.requests.clear()
    found = []
    threads = [threading.Thread(target=lambda: found.append(fetch_and_verify(source))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({paths["model"] for paths in found}) == 1
    assert len(found) == 4
    assert len(hub.downloaded()) == len(set(hub.downloaded()))
    assert len(hashed) == len(source.model.files)


def test_a_folder_that_holds_something_else_is_refused(tmp_path: Path, hashed: list[Path]) -> None:
    source = folder_source(tmp_path)
    assert fetch_and_verify(source)["model"] == source.model.location
    weights = next(tmp_path.joinpath("model").rglob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    with pytest.raises(ModelError, match="has another content than the model of this run"):
        fetch_and_verify(source)


def test_a_folder_that_is_not_on_this_machine_is_named(tmp_path: Path) -> None:
    source = folder_source(tmp_path)
    (tmp_path / "model").rename(tmp_path / "elsewhere")
    with pytest.raises(ModelError, match=f"{tmp_path / 'model'} is not there: copy it"):
        fetch_and_verify(source)


def test_another_lora_and_another_function_of_the_user_are_refused(tmp_path: Path) -> None:
    source = folder_source(tmp_path)
    lora, function = tmp_path / "x.safetensors", tmp_path / "own.py"
    lora.write_bytes(b"weights")
    with pytest.raises(ModelError, match=r"x\.safetensors has another content"):
        fetch_and_verify(replace(source, adapters=(Adapter("x", "0" * 64, 1.0, str(lora), "x.safetensors"),)))
    function.write_text("def f(pipeline): ...\n")
    named = f"{function}:f"
    same = replace(source, prepare=(named, prepare_digest(named)))
    assert fetch_and_verify(same)
    function.write_text("def f(pipeline): return 1\n")
    with pytest.raises(ModelError, match=r"prepare: .* has another source here"):
        fetch_and_verify(same)


def test_a_cache_that_cannot_be_written_will_do(tmp_path: Path, hashed: list[Path]) -> None:
    source = folder_source(tmp_path)
    (tmp_path / "cache").write_text("no folder can be made here")
    for _ in range(2):
        assert fetch_and_verify(source)["model"] == source.model.location
    assert len(hashed) == 2 * len(source.model.files)
