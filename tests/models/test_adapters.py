"""LoRA files, local and on the hub."""

import hashlib
import json
from pathlib import Path

import pytest

from t2i_core.errors import HubUnavailable, ModelError
from t2i_core.models.adapters import Adapter, adapter_fingerprint, fetch_adapter, find_adapter, resolve_adapter
from tests.fake_hub import FakeHub, go_offline, message_of

DATA = b"lora weights" * 50
HASH = hashlib.sha256(DATA).hexdigest()


def test_a_file_with_a_weight(tmp_path: Path) -> None:
    file = tmp_path / "style.safetensors"
    file.write_bytes(DATA)
    adapter = resolve_adapter(f"{file}:0.8", cache_dir=None)
    assert (adapter.sha256, adapter.weight, adapter.file) == (HASH, 0.8, "style.safetensors")
    assert Adapter.from_json(json.loads(json.dumps(adapter.to_json()))) == adapter
    assert fetch_adapter(adapter, cache_dir=None) == file
    file.unlink()
    with pytest.raises(ModelError, match="does not exist any more"):
        fetch_adapter(adapter, cache_dir=None)


@pytest.mark.parametrize("entry", ["owner/style", "owner/style:0.5", "owner/style/style.safetensors"])
def test_the_hub_tells_the_hash_and_gives_that_commits_file(hub: FakeHub, tmp_path: Path, entry: str) -> None:
    hub.repository("owner/style").commit({"style.safetensors": DATA, "README.md": b"x"})
    adapter = resolve_adapter(entry, cache_dir=str(tmp_path))
    assert adapter.sha256 == HASH
    assert hub.downloaded() == []
    hub.repository("owner/style").commit({"style.safetensors": b"other", "README.md": b"x"})
    assert fetch_adapter(adapter, cache_dir=str(tmp_path)).read_bytes() == DATA
    assert hub.downloaded() == ["style.safetensors"]


def test_several_files_are_listed(hub: FakeHub, tmp_path: Path) -> None:
    hub.repository("owner/style").commit({f"{name}.safetensors": DATA for name in ("one", "sub/two")})
    with pytest.raises(ModelError, match=r"one\.safetensors, sub/two\.safetensors; write owner/style/one\.safetensors"):
        resolve_adapter("owner/style", cache_dir=str(tmp_path))
    with pytest.raises(ModelError, match=r"has no three\.safetensors, but one\.safetensors"):
        resolve_adapter("owner/style/three.safetensors", cache_dir=str(tmp_path))
    assert resolve_adapter("owner/style/sub/two.safetensors", cache_dir=str(tmp_path)).file == "sub/two.safetensors"


def test_what_is_no_lora(hub: FakeHub, tmp_path: Path) -> None:
    (tmp_path / "style.pt").write_bytes(b"x")
    hub.repository("owner/pickle").commit({"style.bin": b"x"})
    for entry, expected in {
        str(tmp_path / "style.pt"): "is not a .safetensors file",
        str(tmp_path): "is a folder; name the file",
        "./style.safetensors": "does not exist",
        "loras/style.safetensors": "does not exist",
        "style": "does not exist",
        "owner/pickle": "has no .safetensors file",
        "owner/nothing": "no such model",
    }.items():
        with pytest.raises(ModelError, match=expected) as caught:
            resolve_adapter(entry, cache_dir=str(tmp_path / "cache"))
        message_of(caught)


def test_a_name_is_a_file_or_may_be_on_the_hub(tmp_path: Path) -> None:
    file = tmp_path / "style.safetensors"
    file.write_bytes(DATA)
    assert find_adapter(str(file)) == file
    for name in ("owner/style", "owner/style/file.safetensors", "owner/style/sub/file.safetensors"):
        assert find_adapter(name) is None
    with pytest.raises(ModelError, match=r"does not exist; .*; did you mean .*/style\.safetensors\?$"):
        find_adapter(str(tmp_path / "stile.safetensors"))


def test_what_lies_on_this_machine_is_never_asked_of_the_hub(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "owner" / "style").mkdir(parents=True)
    for file in ("owner/file.safetensors", "owner/style/file.safetensors"):
        (tmp_path / file).write_bytes(DATA)
        assert resolve_adapter(file, cache_dir=str(tmp_path / "cache")).commit is None
    for missing in ("owner/fil.safetensors", "owner/style/fil.safetensors", "elsewhere/file.pt"):
        with pytest.raises(ModelError, match=r"^lora: '.*' does not exist; check the path"):
            resolve_adapter(missing, cache_dir=str(tmp_path / "cache"))
    assert hub.requests == []


def test_a_fingerprint_follows_size_and_time_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "style.safetensors"
    file.write_bytes(DATA)
    before = adapter_fingerprint(f"{file}:0.5")
    assert (
        before
        == adapter_fingerprint(str(file))
        == [
            len(DATA),
            file.stat().st_mtime_ns,
            file.stat().st_ctime_ns,
        ]
    )
    assert adapter_fingerprint("owner/style:0.5") is None
    with pytest.raises(ModelError, match="does not exist"):
        adapter_fingerprint("style")


def test_offline_a_cached_lora_is_used_instead(hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.repository("owner/style").commit({"style.safetensors": DATA})
    cache = str(tmp_path)
    online = resolve_adapter("owner/style", cache_dir=cache)
    fetch_adapter(online, cache_dir=cache)
    go_offline(monkeypatch, "no network")
    with pytest.raises(HubUnavailable, match="cannot be reached"):
        resolve_adapter("owner/other", cache_dir=cache)
    go_offline(monkeypatch, "HF_HUB_OFFLINE")
    assert resolve_adapter("owner/style", cache_dir=cache) == online
    assert fetch_adapter(online, cache_dir=cache).read_bytes() == DATA
    with pytest.raises(ModelError, match="offline"):
        resolve_adapter("owner/other", cache_dir=cache)
