"""What is hashed is what is loaded, whatever a file's size and time."""

import os
import shutil
import time
from pathlib import Path

import pytest

from t2i_core.errors import ModelError
from t2i_core.hashing import file_sha256
from t2i_core.models import adapters, identity
from t2i_core.models.adapters import Adapter, adapter_fingerprint, resolve_adapter
from t2i_core.models.checkpoints import checkpoint_fingerprint, resolve_checkpoint
from t2i_core.models.identity import ModelFile, ResolvedModel, folder_fingerprint, resolve_model
from t2i_core.models.loaded_files import LoadedFile, as_hashed, file_state, unchanged
from t2i_core.models.request import CheckpointRequest
from tests.fake_hub import write_tree
from tests.models.weight_files import safetensors
from tests.tiny_model import model_files

CHANGED = "changed or vanished while it was read; run the same command again"
HOW = ["in place", "replaced"]


def put(path: Path, data: bytes, how: str) -> None:
    """Give a file another content of the same size, and its time."""
    status = path.stat()
    assert status.st_size == len(data)
    time.sleep(0.02)  # a tick of the clock
    if how == "replaced":
        path.with_name(".new").write_bytes(data)
        path.with_name(".new").replace(path)
    else:
        path.write_bytes(data)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert path.stat().st_mtime_ns == status.st_mtime_ns


def flipped(path: Path) -> bytes:
    data = path.read_bytes()
    return data[:-1] + bytes([data[-1] ^ 0xFF])


@pytest.fixture
def lora(tmp_path: Path) -> Path:
    path = tmp_path / "style.safetensors"
    path.write_bytes(b"weights of a LoRA")
    return path


def loaded(path: Path) -> LoadedFile:
    return LoadedFile(str(path), file_sha256(path), file_state(path))


def test_files_that_are_as_they_were_are_loaded(lora: Path) -> None:
    with as_hashed([loaded(lora)]):
        lora.read_bytes()


@pytest.mark.parametrize("how", HOW)
def test_a_file_that_changed_since_it_was_hashed_is_not_loaded(lora: Path, how: str) -> None:
    file = loaded(lora)
    put(lora, flipped(lora), how)
    with pytest.raises(ModelError, match=f"^{lora}: {CHANGED}"), as_hashed([file]):
        pytest.fail("loaded")
    lora.unlink()
    with pytest.raises(ModelError, match=CHANGED), as_hashed([file]):
        pytest.fail("loaded")


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("back", [False, True])
def test_a_file_that_changes_while_it_is_loaded_ends_the_run(lora: Path, how: str, back: bool) -> None:
    file, content = loaded(lora), lora.read_bytes()
    with pytest.raises(ModelError, match=CHANGED), as_hashed([file]):
        put(lora, flipped(lora), how)
        if back:
            put(lora, content, how)


def test_a_file_that_was_only_touched_or_copied_is_loaded(lora: Path) -> None:
    file = loaded(lora)
    os.utime(lora, (5, 5))
    with as_hashed([file]):
        pass
    shutil.copy(lora, lora.with_name(".new"))
    lora.with_name(".new").replace(lora)
    with as_hashed([file]):
        pass


def test_what_vanishes_while_it_is_read_is_refused(lora: Path) -> None:
    with pytest.raises(ModelError, match=CHANGED), unchanged([lora]):
        lora.unlink()


@pytest.mark.parametrize("how", HOW)
def test_a_fingerprint_follows_the_content_whatever_size_and_time(lora: Path, tmp_path: Path, how: str) -> None:
    folder = write_tree(tmp_path / "m", model_files())
    weights = folder / "vae" / "diffusion_pytorch_model.safetensors"
    single = tmp_path / "x.safetensors"
    single.write_bytes(safetensors({"img_in.weight": (4, 64)}))
    request = CheckpointRequest("transformer", str(single), ("transformer",))

    def fingerprints() -> list[object]:
        return [adapter_fingerprint(str(lora)), folder_fingerprint(str(folder)), checkpoint_fingerprint(request, None)]

    before = fingerprints()
    assert before == fingerprints()
    for path in (lora, weights, single):
        put(path, flipped(path), how)
    assert all(one != other for one, other in zip(before, fingerprints(), strict=True))


def changed_while_hashed(monkeypatch: pytest.MonkeyPatch, module: object, path: Path) -> None:
    """Let a file change at the worst moment: right before it, or the file after it, is hashed; it is put back then."""
    original = file_sha256

    def sha256(file: Path) -> str:
        content = path.read_bytes()
        put(path, flipped(path), "in place")
        try:
            return original(file)
        finally:
            put(path, content, "in place")

    monkeypatch.setattr(module, "file_sha256", sha256)


def test_a_lora_that_changes_while_it_is_hashed_is_refused(lora: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    changed_while_hashed(monkeypatch, adapters, lora)
    with pytest.raises(ModelError, match=CHANGED):
        resolve_adapter(str(lora))


@pytest.mark.parametrize("file", ["vae/diffusion_pytorch_model.safetensors", "model_index.json"])
def test_a_model_that_changes_while_it_is_hashed_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    """Its configuration is read before: it must be of the version that is hashed."""
    folder = write_tree(tmp_path / "m", model_files())
    changed_while_hashed(monkeypatch, identity, folder / file)
    with pytest.raises(ModelError, match=CHANGED):
        resolve_model(str(folder))


def test_a_checkpoint_that_changes_while_it_is_hashed_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    single = tmp_path / "x.safetensors"
    single.write_bytes(safetensors({"img_in.weight": (4, 64)}))
    changed_while_hashed(monkeypatch, identity, single)
    with pytest.raises(ModelError, match=CHANGED):
        resolve_checkpoint(CheckpointRequest("transformer", str(single), ("transformer",)))


def test_states_survive_json_and_what_an_earlier_version_stored_has_none(lora: Path, tmp_path: Path) -> None:
    adapter = resolve_adapter(str(lora))
    assert Adapter.from_json(adapter.to_json()).state == adapter.state == file_state(lora)
    model = resolve_model(str(write_tree(tmp_path / "m", model_files())))
    again = ResolvedModel.from_json(model.to_json())
    assert [file.state for file in again.files] == [file.state for file in model.files]
    assert all(isinstance(file.state, tuple) for file in again.files)
    assert ModelFile.from_json({"path": "a", "sha256": "b", "size": 1}).state is None
    assert hash(again.files) == hash(model.files)


def test_the_state_of_a_file_is_no_part_of_the_model(tmp_path: Path) -> None:
    one, other = (resolve_model(str(write_tree(tmp_path / name, model_files()))) for name in "ab")
    assert one.identity == other.identity
    assert one.files == other.files
